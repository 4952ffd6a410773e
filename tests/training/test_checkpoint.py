"""Resumed runs equal uninterrupted ones; damaged checkpoints fall back one generation."""

import json
import signal

import keras
import numpy as np
import pytest
from small_network import build_small_network
from small_training import FINDINGS, StopAfter, make_cached, run_fit

from cxr.network.densenet import build_network, choose_precision, fuse
from cxr.system.atomic_files import FolderError
from cxr.training import loop
from cxr.training.checkpoint import (
    SLOTS,
    Checkpoint,
    CheckpointError,
    ResumeError,
    checkpoint_bytes,
    clear_checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from cxr.training.recipe import Recipe
from cxr.training.run_control import Stopped


@pytest.mark.fault("T02")
@pytest.mark.parametrize("looks", [0, 3, 5, 6, 8, 17, 22])
def test_resumed_run_equals_the_uninterrupted_one(tmp_path, looks):
    """26 rows and batches of 4: 6 batches and 2 validation batches make 8 looks per epoch, 24 in all."""
    weights, history = run_fit(tmp_path / "whole")
    with pytest.raises(Stopped) as stopped:
        run_fit(tmp_path / "stopped", stop=StopAfter(looks))
    assert stopped.value.exit_code == 130
    resumed_weights, resumed_history = run_fit(tmp_path / "stopped", weights_seed=99)
    assert resumed_history == history
    for one, other in zip(weights, resumed_weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


@pytest.mark.fault("T02")
def test_resume_across_phases_equals_the_uninterrupted_run(tmp_path):
    recipe = Recipe(epochs=3, head_epochs=1, batch_size=4, learning_rate=0.01, loss="weighted", seed=5)
    weights, history = run_fit(tmp_path / "whole", recipe)
    for seed, looks in ((1, 2), (98, 8)):  # within the head's epoch, then within the others
        with pytest.raises(Stopped):
            run_fit(tmp_path / "stopped", recipe, StopAfter(looks), weights_seed=seed)
    resumed_weights, resumed_history = run_fit(tmp_path / "stopped", recipe, weights_seed=99)
    assert resumed_history == history
    for one, other in zip(weights, resumed_weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


@pytest.mark.fault("T02")
def test_resume_after_a_crash_equals_the_uninterrupted_run(tmp_path, monkeypatch):
    weights, history = run_fit(tmp_path / "whole")
    calls = []

    def crash_at_12th(self, index, original=loop.RadiographBatches.__getitem__):
        calls.append(index)
        if len(calls) == 12:
            raise OSError("the disk is gone")
        return original(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(loop.RadiographBatches, "__getitem__", crash_at_12th)
        with pytest.raises(OSError, match="the disk is gone"):
            run_fit(tmp_path / "crashed")
    resumed_weights, resumed_history = run_fit(tmp_path / "crashed", weights_seed=99)
    assert resumed_history == history
    for one, other in zip(weights, resumed_weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


def test_resume_between_two_phases_equals_the_uninterrupted_run(tmp_path, monkeypatch):
    recipe = Recipe(epochs=3, head_epochs=1, batch_size=4, learning_rate=0.01, seed=5)
    weights, history = run_fit(tmp_path / "whole", recipe)
    train_epoch = loop._train_epoch

    def die_in_the_second_epoch(run, stop):
        if run.state.epoch == 1:
            raise KeyboardInterrupt
        train_epoch(run, stop)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_train_epoch", die_in_the_second_epoch)
        with pytest.raises(KeyboardInterrupt):
            run_fit(tmp_path / "died", recipe)
    resumed_weights, resumed_history = run_fit(tmp_path / "died", recipe, weights_seed=99)
    assert resumed_history == history
    for one, other in zip(weights, resumed_weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


def fused_in_bfloat16(findings, size):
    """Build the small network as DenseNet121 is trained where the processor multiplies in bfloat16."""
    usual = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return fuse(build_small_network(findings, size))
    finally:
        keras.config.set_dtype_policy(usual)


@pytest.mark.fault("T02")
@pytest.mark.parametrize("looks", [3, 8, 17])
def test_resumed_run_in_bfloat16_equals_the_uninterrupted_one_to_the_bit(tmp_path, looks):
    recipe = Recipe(epochs=3, head_epochs=1, batch_size=4, learning_rate=0.01, seed=5, precision="mixed_bfloat16")
    weights, history = run_fit(tmp_path / "whole", recipe, build=fused_in_bfloat16)
    with pytest.raises(Stopped):
        run_fit(tmp_path / "stopped", recipe, StopAfter(looks), build=fused_in_bfloat16)
    resumed_weights, resumed_history = run_fit(tmp_path / "stopped", recipe, weights_seed=99, build=fused_in_bfloat16)
    assert resumed_history == history
    for one, other in zip(weights, resumed_weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.fault("T02")
@pytest.mark.slow  # compiles DenseNet121 for training three times
def test_densenet_resumes_to_the_same_weights(tmp_path):
    precision = choose_precision()
    recipe = Recipe(epochs=2, batch_size=4, learning_rate=1e-3, seed=3, precision=precision)
    train, val = make_cached("train", 8, 3), make_cached("val", 4, 4)

    def build(findings, size):
        return fuse(build_network(findings, size, precision=precision))

    weights, history = run_fit(tmp_path / "whole", recipe, train=train, val=val, build=build)
    with pytest.raises(Stopped):
        run_fit(tmp_path / "stopped", recipe, StopAfter(4), train, val, build=build)
    resumed, resumed_history = run_fit(tmp_path / "stopped", recipe, None, train, val, 99, build)
    assert resumed_history == history
    for one, other in zip(weights, resumed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_checkpoint_is_written_when_time_is_up(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    generations = []
    monkeypatch.setattr(loop, "write_checkpoint", lambda folder, one: generations.append(one.generation))
    run_fit(tmp_path)
    assert generations == list(range(1, 28))  # after each of 8 looks and at the end of each of 3 epochs


@pytest.mark.fault("T05")
def test_best_score_survives_a_resume_and_a_worse_epoch_does_not_replace_it(tmp_path, monkeypatch):
    scores = iter([0.9, 0.2, 0.3])
    monkeypatch.setattr(loop, "mean_auroc", lambda labels, logits: (next(scores), 2))
    with pytest.raises(Stopped):
        run_fit(tmp_path, stop=StopAfter(8))  # at the first batch of the second epoch
    checkpoint = read_checkpoint(tmp_path)
    weights, history = run_fit(tmp_path, weights_seed=99)
    assert [row["best"] for row in history] == [True, False, False]
    for k, weight in enumerate(weights):
        np.testing.assert_array_equal(weight, checkpoint.arrays[f"best.{k}"])


@pytest.mark.fault("T04")
@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"recipe": Recipe(epochs=3, batch_size=8, learning_rate=0.01, seed=5)}, "batch_size: was 4, now 8"),
        (
            {"recipe": Recipe(epochs=3, batch_size=4, learning_rate=0.1, seed=6)},
            "learning_rate: .*; seed: was 5, now 6",
        ),
        ({"train": make_cached("train", 26, 7)}, "train_data: was train1, now train7"),
        # A run without epochs would delete them at its end.
        ({"recipe": Recipe(epochs=0, batch_size=4, learning_rate=0.01, seed=5)}, "epochs: was 3, now 0"),
    ],
)
def test_resume_with_other_settings_or_data_is_refused_naming_them(tmp_path, changes, keys):
    with pytest.raises(Stopped):
        run_fit(tmp_path, stop=StopAfter(2))
    with pytest.raises(ResumeError, match=rf"other settings or data is there \({keys}\).* --fresh"):
        run_fit(tmp_path, **changes)
    clear_checkpoints(tmp_path)
    assert list(tmp_path.iterdir()) == []


def make_checkpoint(generation):
    return Checkpoint(generation, {"epoch": generation, "score": [0.5, None]}, {"weight": np.full(3, generation)})


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.fault("T03")
@pytest.mark.parametrize("damage", [cut, empty, flip])
def test_damaged_checkpoint_falls_back_one_generation_with_a_message(tmp_path, caplog, damage):
    for generation in (1, 2, 3):
        write_checkpoint(tmp_path, make_checkpoint(generation))
    assert read_checkpoint(tmp_path).record == {"epoch": 3, "score": [0.5, None]}
    damage(tmp_path / SLOTS[3 % 2])
    found = read_checkpoint(tmp_path)
    assert found.generation == 2
    np.testing.assert_array_equal(found.arrays["weight"], [2, 2, 2])
    assert f"Passing over a damaged checkpoint, {SLOTS[1]}" in caplog.text
    damage(tmp_path / SLOTS[0])
    with pytest.raises(CheckpointError, match=r"no checkpoint can be read: .* --fresh"):
        read_checkpoint(tmp_path)


@pytest.mark.fault("T06")
def test_failed_checkpoint_leaves_both_generations(tmp_path, monkeypatch):
    for generation in (1, 2):
        write_checkpoint(tmp_path, make_checkpoint(generation))

    def fail(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cxr.training.checkpoint.replacing", fail)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(tmp_path, make_checkpoint(3))
    assert read_checkpoint(tmp_path).generation == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(SLOTS)


@pytest.mark.fault("T06")
@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a limit of the file size")
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_disk_that_is_full_in_the_middle_of_a_checkpoint_leaves_both_generations(tmp_path, share):
    import resource

    for generation in (1, 2):
        write_checkpoint(tmp_path, make_checkpoint(generation))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    limits, size = resource.getrlimit(resource.RLIMIT_FSIZE), len(before[SLOTS[0]])
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * size), limits[1]))
    try:
        with pytest.raises(FolderError) as failure:
            write_checkpoint(tmp_path, make_checkpoint(3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert str(failure.value).startswith(f"{tmp_path / SLOTS[1]}: cannot be written (File too large).")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.fault("T06")
def test_the_room_that_a_run_needs_is_less_by_the_checkpoints_that_it_writes_over(tmp_path):
    """A run that stopped for want of room must be able to go on in the room that it began with."""
    folder = tmp_path / "checkpoints"
    assert checkpoint_bytes(folder) == 0
    for generation in (1, 2):
        write_checkpoint(folder, make_checkpoint(generation))
    (folder / "something.else").write_bytes(bytes(1000))
    assert checkpoint_bytes(folder) == sum((folder / slot).stat().st_size for slot in SLOTS) > 0


def test_checkpoint_record_is_readable_json(tmp_path):
    run_fit(tmp_path, Recipe(epochs=1, batch_size=4))
    record = read_checkpoint(tmp_path).record
    assert json.loads(json.dumps(record)) == record
    assert record["identity"]["findings"] == list(FINDINGS)
    assert record["state"]["finished"]


@pytest.mark.fault("T02")
def test_mutation_a_resume_that_forgets_the_optimiser_is_noticed(tmp_path, monkeypatch):
    real = loop._resume

    def forget(run):
        real(run)
        if run.phase is not None:  # something was resumed
            for variable in run.logits.optimizer.variables:
                variable.assign(np.zeros(variable.shape))

    monkeypatch.setattr(loop, "_resume", forget)
    with pytest.raises(AssertionError):
        test_resumed_run_equals_the_uninterrupted_one(tmp_path, looks=3)
