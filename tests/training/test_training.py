"""The loss, the schedule and the training loop: stopping, resuming, selecting, and refusing to go on."""

import contextlib
import csv
import dataclasses
import json
import logging
import math
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from small_network import build_small_network

from cxr.data.batches import RadiographBatches
from cxr.data.cache import CachedSplit
from cxr.data.labels import Split
from cxr.network.densenet import build_network
from cxr.report.history import epoch_line, epoch_logger
from cxr.system.atomic_files import FolderError, LockedError, check_folder, sweep_temp_files, training_lock
from cxr.system.terminal import quiet_stderr
from cxr.training import loop
from cxr.training.checkpoint import (
    SLOTS,
    Checkpoint,
    CheckpointError,
    ResumeError,
    clear_checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from cxr.training.loop import fit, predict_split
from cxr.training.losses import MAX_POSITIVE_WEIGHT, make_loss, positive_weights
from cxr.training.recipe import Recipe, count_warmup_steps, learning_rate_at, phase_at
from cxr.training.stopping import DivergedError, Stopped, StopRequest

FINDINGS = ("Mass", "Edema", "Hernia")
SIZE = 32
NAN = float("nan")
LABELS = np.array([[1, 0, NAN], [0, 1, 0], [1, NAN, 0], [0, 0, 0]], np.float32)
LOGITS = np.array([[2.0, -1.0, 0.3], [-0.5, 4.0, -2.0], [100.0, 0.0, -100.0], [0.0, 1.0, 2.0]], np.float32)


def make_cached(name, num_images, seed):
    """Radiographs on which the first finding is a bright left half and the second a bright top: easy to learn."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (num_images, len(FINDINGS))).astype(np.float32)
    labels[:, 2] = 0  # a finding without positives
    labels[0, 1] = NAN
    model_inputs = rng.integers(60, 120, (num_images, SIZE, SIZE, 1))
    model_inputs[:, :, : SIZE // 2] += (80 * np.nan_to_num(labels[:, 0])).astype(int)[:, None, None, None]
    model_inputs[:, : SIZE // 2] += (40 * np.nan_to_num(labels[:, 1])).astype(int)[:, None, None, None]
    images = tuple(f"{name}{k}.png" for k in range(num_images))
    return CachedSplit(Split(name, images, images, labels, FINDINGS), model_inputs.astype(np.uint8), f"{name}{seed}")


TRAIN, VAL = make_cached("train", 26, 1), make_cached("val", 9, 2)
RECIPE = Recipe(epochs=3, batch_size=4, learning_rate=0.01, seed=5)


def run_fit(checkpoint_dir, recipe=RECIPE, stop=None, train=TRAIN, val=VAL, weights_seed=1, build=build_small_network):
    """Train a network of random weights; the seed stands for the process that the run lives in."""
    keras.utils.set_random_seed(weights_seed)
    network = build(FINDINGS, SIZE)
    history = fit(network, train, val, recipe, Path(checkpoint_dir), stop or StopRequest())
    return network.get_weights(), history


class StopAfter(StopRequest):
    """Ask for a stop when it has been looked at often enough: that is after every batch and validation batch."""

    def __init__(self, looks):
        super().__init__()
        self.looks = looks

    @property
    def requested(self):
        self.looks -= 1
        self.signal_number = signal.SIGINT
        return self.looks < 0


def test_loss_is_the_mean_cross_entropy_of_the_known_labels():
    terms = [
        -math.log(p if label else 1 - p)
        for label, p in zip(LABELS.ravel(), 1 / (1 + np.exp(-LOGITS.ravel().astype(float))), strict=True)
        if not math.isnan(label) and abs(p - 0.5) < 0.4999  # the two saturated cells are right and cost nothing
    ]
    loss = float(make_loss()(keras.ops.convert_to_tensor(LABELS), keras.ops.convert_to_tensor(LOGITS)))
    assert loss == pytest.approx(sum(terms) / 10, rel=1e-5)


def test_loss_equals_keras_binary_crossentropy_where_nothing_is_blank():
    labels = np.nan_to_num(LABELS)
    loss = float(make_loss()(keras.ops.convert_to_tensor(labels), keras.ops.convert_to_tensor(LOGITS)))
    expected = float(keras.losses.BinaryCrossentropy(from_logits=True)(labels, LOGITS))
    assert loss == pytest.approx(expected, rel=1e-6)


def test_loss_of_blank_labels_only_is_zero():
    blank = keras.ops.full((2, 3), NAN)
    assert float(make_loss()(blank, keras.ops.ones((2, 3)))) == 0.0


def test_weighted_loss_multiplies_the_positives_of_each_finding():
    weights = np.array([3.0, 0.5, 7.0], np.float32)
    total = 0.0
    for label, logit, weight in zip(LABELS.ravel(), LOGITS.ravel().astype(float), np.tile(weights, 4), strict=True):
        if label == 1:
            total += weight * np.logaddexp(0, -logit)
        elif label == 0:
            total += np.logaddexp(0, logit)
    loss = float(make_loss(weights)(keras.ops.convert_to_tensor(LABELS), keras.ops.convert_to_tensor(LOGITS)))
    assert loss == pytest.approx(total / 10, rel=1e-5)


def test_C22_C23_positive_weights_equal_the_hand_worked_table():
    columns = {
        (1, 0, 0, 0): 3.0,
        (1, 1, 1, 0): 1 / 3,
        (1, 0, NAN, NAN): 1.0,
        (1, NAN, 0, 0): 2.0,
        (0, 0, 0, 0): 1.0,
        (1, 1, 1, 1): 1.0,
        (NAN, NAN, NAN, NAN): 1.0,
    }
    np.testing.assert_allclose(positive_weights(np.array(list(columns)).T), list(columns.values()), rtol=1e-6)
    rare = np.zeros((1000, 2), np.float32)
    rare[0, 0], rare[1:, 1] = 1, 1
    np.testing.assert_allclose(positive_weights(rare), [MAX_POSITIVE_WEIGHT, 1 / MAX_POSITIVE_WEIGHT])


def test_schedule_equals_its_closed_form():
    rates = [learning_rate_at(step, num_steps=14, warmup_steps=4, peak=0.5) for step in range(14)]
    np.testing.assert_allclose(rates[:4], [0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(rates[4:], [0.25 * (1 + math.cos(math.pi * k / 10)) for k in range(10)])
    assert rates[4] == max(rates) == 0.5
    assert learning_rate_at(0, 1, 0, 0.5) == 0.5  # one step, no warm-up
    assert 0 < learning_rate_at(0, 1, 5, 0.5) < 0.5  # a run shorter than its warm-up


@pytest.mark.parametrize(("epochs", "steps"), [(1, 20), (4, 80), (5, 100), (30, 100)])
def test_warm_up_is_an_epoch_but_at_most_a_fifth_of_the_run(epochs, steps):
    recipe = Recipe(epochs=epochs)
    assert count_warmup_steps(recipe, phase_at(recipe, 0), steps_per_epoch=100) == steps


def test_pretrained_weights_train_the_head_first():
    recipe = Recipe(epochs=5, head_epochs=2, learning_rate=1e-4, head_learning_rate=1e-3)
    phases = [phase_at(recipe, epoch) for epoch in range(5)]
    assert [(one.name, one.frozen) for one in phases] == [("head", True)] * 2 + [("all", False)] * 3
    assert (phases[0].learning_rate, phases[4].learning_rate) == (1e-3, 1e-4)
    assert (phases[4].first_epoch, phases[4].num_epochs) == (2, 3)
    assert phase_at(Recipe(epochs=2), 0).name == "all"


def test_frozen_backbone_keeps_weights_and_moving_statistics_then_everything_moves(tmp_path):
    keras.utils.set_random_seed(1)
    network = build_small_network(FINDINGS, SIZE)
    moved = []
    for epochs in (1, 2):
        before = {variable.path: variable.numpy() for variable in network.weights}
        fit(
            network,
            TRAIN,
            VAL,
            Recipe(epochs=epochs, head_epochs=1, batch_size=4),
            tmp_path / str(epochs),
            StopRequest(),
        )
        moved.append({path for path, old in before.items() if not np.array_equal(old, by_path(network)[path])})
    assert moved[0] == {"logits/kernel", "logits/bias"}
    assert moved[1] == set(by_path(network))


def by_path(network):
    return {variable.path: variable.numpy() for variable in network.weights}


def test_training_learns_and_its_history_tells(tmp_path):
    keras.utils.set_random_seed(1)
    network = build_small_network(FINDINGS, SIZE)
    rows_seen = []
    recipe = Recipe(epochs=12, batch_size=4, learning_rate=0.02)
    history = fit(
        network, TRAIN, VAL, recipe, tmp_path, StopRequest(), on_epoch=lambda history: rows_seen.append(len(history))
    )
    assert rows_seen == list(range(1, 13))
    assert [row["epoch"] for row in history] == rows_seen
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]
    best = max(history, key=lambda row: (row["val_mean_auroc"], -row["val_loss"]))
    assert [row["epoch"] for row in history if row["best"]][-1] == best["epoch"]
    # The network holds the best epoch's weights: scikit-learn finds its score again.
    logits = predict_split(
        keras.Model(network.input, network.get_layer("logits").output), VAL, batch_size=4
    )  # 9 rows: the last batch is padded
    np.testing.assert_allclose(
        1 / (1 + np.exp(-logits)), network.predict(VAL.model_inputs, verbose=0), rtol=1e-4, atol=1e-6
    )
    labels = VAL.split.labels
    expected = [
        roc_auc_score(labels[known, k], logits[known, k]) for k in (0, 1) for known in [~np.isnan(labels[:, k])]
    ]
    assert best["val_mean_auroc"] == pytest.approx(np.mean(expected), abs=1e-9)
    assert best["num_defined"] == 2


@pytest.mark.parametrize("looks", [0, 3, 5, 6, 8, 17, 22])
def test_T02_resumed_run_equals_the_uninterrupted_one(tmp_path, looks):
    """26 rows and batches of 4: 6 batches and 2 validation batches make 8 looks per epoch, 24 in all."""
    weights, history = run_fit(tmp_path / "whole")
    with pytest.raises(Stopped) as stopped:
        run_fit(tmp_path / "stopped", stop=StopAfter(looks))
    assert stopped.value.exit_code == 130
    resumed_weights, resumed_history = run_fit(tmp_path / "stopped", weights_seed=99)
    assert resumed_history == history
    for one, other in zip(weights, resumed_weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


def test_T02_resume_across_phases_equals_the_uninterrupted_run(tmp_path):
    recipe = Recipe(epochs=3, head_epochs=1, batch_size=4, learning_rate=0.01, loss="weighted", seed=5)
    weights, history = run_fit(tmp_path / "whole", recipe)
    for seed, looks in ((1, 2), (98, 8)):  # within the head's epoch, then within the others
        with pytest.raises(Stopped):
            run_fit(tmp_path / "stopped", recipe, StopAfter(looks), weights_seed=seed)
    resumed_weights, resumed_history = run_fit(tmp_path / "stopped", recipe, weights_seed=99)
    assert resumed_history == history
    for one, other in zip(weights, resumed_weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


def test_T02_resume_after_a_crash_equals_the_uninterrupted_run(tmp_path, monkeypatch):
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


@pytest.mark.slow  # compiles DenseNet121 for training three times
def test_T02_densenet_resumes_to_the_same_weights(tmp_path):
    recipe = Recipe(epochs=2, batch_size=4, learning_rate=1e-3, seed=3)
    train, val = make_cached("train", 8, 3), make_cached("val", 4, 4)
    weights, history = run_fit(tmp_path / "whole", recipe, train=train, val=val, build=build_network)
    with pytest.raises(Stopped):
        run_fit(tmp_path / "stopped", recipe, StopAfter(4), train, val, build=build_network)
    resumed, resumed_history = run_fit(tmp_path / "stopped", recipe, None, train, val, 99, build_network)
    assert max(np.abs(one - other).max() for one, other in zip(weights, resumed, strict=True)) <= 1e-5
    assert [row["epoch"] for row in resumed_history] == [row["epoch"] for row in history] == [1, 2]


def test_T19_same_seed_gives_the_same_history_and_another_seed_another(tmp_path):
    histories = [
        run_fit(tmp_path / str(k), Recipe(epochs=2, batch_size=4, seed=seed))[1] for k, seed in enumerate((1, 1, 2))
    ]
    assert histories[0] == histories[1] != histories[2]


def test_finished_run_is_not_trained_again(tmp_path, caplog):
    weights, history = run_fit(tmp_path)
    with caplog.at_level(logging.INFO):
        again, history_again = run_fit(tmp_path, weights_seed=99)
    assert "Resuming after the last epoch" in caplog.text
    assert history_again == history
    for one, other in zip(weights, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_checkpoint_is_written_when_time_is_up(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    generations = []
    monkeypatch.setattr(loop, "write_checkpoint", lambda folder, one: generations.append(one.generation))
    run_fit(tmp_path)
    assert generations == list(range(1, 28))  # after each of 8 looks and at the end of each of 3 epochs


def test_T05_best_score_survives_a_resume_and_a_worse_epoch_does_not_replace_it(tmp_path, monkeypatch):
    scores = iter([0.9, 0.2, 0.3])
    monkeypatch.setattr(loop, "mean_auroc", lambda labels, logits: (next(scores), 2))
    with pytest.raises(Stopped):
        run_fit(tmp_path, stop=StopAfter(8))  # at the first batch of the second epoch
    checkpoint = read_checkpoint(tmp_path)
    weights, history = run_fit(tmp_path, weights_seed=99)
    assert [row["best"] for row in history] == [True, False, False]
    for k, weight in enumerate(weights):
        np.testing.assert_array_equal(weight, checkpoint.arrays[f"best.{k}"])


def test_early_stopping_counts_epochs_without_a_better_score(tmp_path, monkeypatch):
    scores = iter([0.5, 0.7, 0.6, 0.6, 0.6, 0.6])
    monkeypatch.setattr(loop, "mean_auroc", lambda labels, logits: (next(scores), 2))
    _, history = run_fit(tmp_path, Recipe(epochs=9, batch_size=4, patience=2))
    assert len(history) == 4


def test_T16_selection_falls_back_on_the_loss_where_no_auroc_is_defined(tmp_path):
    one_class = CachedSplit(
        Split("val", VAL.split.images, VAL.split.patients, np.zeros_like(VAL.split.labels), FINDINGS),
        VAL.model_inputs,
        "one class",
    )
    _, history = run_fit(tmp_path, val=one_class)
    assert {row["val_mean_auroc"] for row in history} == {None}
    losses = [row["val_loss"] for row in history]
    assert [row["best"] for row in history] == [loss == min(losses[: k + 1]) for k, loss in enumerate(losses)]


MARK = 7.0  # a label that the poisoned loss below knows


def poison(kind):
    """Make a loss that is bad for the batch with the marked label: NaN, or finite with a gradient of NaN."""

    def make_bad_loss(weights=None, original=make_loss):
        def bad_loss(labels, logits):
            marked = keras.ops.any(labels == MARK)
            loss = original(weights)(keras.ops.minimum(labels, 1.0), logits)
            if kind == "loss":
                return keras.ops.where(marked, NAN, loss)
            zero = keras.ops.sum(logits - keras.ops.stop_gradient(logits))  # 0, with a gradient
            # The slope of a square root at 0 is infinite, and infinity times the slope of abs at 0 is NaN.
            return loss + keras.ops.cast(marked, "float32") * keras.ops.sqrt(keras.ops.abs(zero))

        return bad_loss

    return make_bad_loss


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_T08_nan_stops_within_its_batch_and_keeps_the_checkpoint(tmp_path, monkeypatch, kind):
    bad_row = RadiographBatches(TRAIN, 4, training=True, seed=RECIPE.seed).rows(4)[1]
    labels = TRAIN.split.labels.copy()
    labels[bad_row, 0] = MARK
    train = CachedSplit(dataclasses.replace(TRAIN.split, labels=labels), TRAIN.model_inputs, "marked")
    monkeypatch.setattr(loop, "make_loss", poison(kind))
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)  # a checkpoint after every batch
    message = rf"Epoch 1, batch 5 of 6: .* learning rate .* train{bad_row}.png \(row {bad_row + 1}\)"
    with pytest.raises(DivergedError, match=message):
        run_fit(tmp_path, train=train)
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.record["state"]["next_batch"] == 4
    assert all(np.isfinite(array).all() for array in checkpoint.arrays.values())


def test_T08_nan_in_validation_stops_and_is_never_the_best(tmp_path, monkeypatch):
    real = loop.predict_split
    monkeypatch.setattr(loop, "predict_split", lambda *args: real(*args) * NAN)
    with pytest.raises(DivergedError, match="Epoch 1: validation logits or weights are not finite"):
        run_fit(tmp_path)
    assert read_checkpoint(tmp_path) is None


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"recipe": Recipe(epochs=3, batch_size=8, learning_rate=0.01, seed=5)}, "batch_size: was 4, now 8"),
        (
            {"recipe": Recipe(epochs=3, batch_size=4, learning_rate=0.1, seed=6)},
            "learning_rate: .*; seed: was 5, now 6",
        ),
        ({"train": make_cached("train", 26, 7)}, "train_data: was train1, now train7"),
    ],
)
def test_T04_resume_with_other_settings_or_data_is_refused_naming_them(tmp_path, changes, keys):
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


@pytest.mark.parametrize("damage", [cut, empty, flip])
def test_T03_damaged_checkpoint_falls_back_one_generation_with_a_message(tmp_path, caplog, damage):
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


def test_T06_failed_checkpoint_leaves_both_generations(tmp_path, monkeypatch):
    for generation in (1, 2):
        write_checkpoint(tmp_path, make_checkpoint(generation))

    def fail(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cxr.training.checkpoint.replacing", fail)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(tmp_path, make_checkpoint(3))
    assert read_checkpoint(tmp_path).generation == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(SLOTS)


def test_T06_T07_folder_without_room_or_permission_is_found_before_training(tmp_path):
    check_folder(tmp_path / "model", 1000)
    assert list((tmp_path / "model").iterdir()) == []
    with pytest.raises(FolderError, match=r"training needs 1000000000000 MB there, \d+ MB are free"):
        check_folder(tmp_path, 10**18)
    with pytest.raises(FolderError, match="cannot be written"):
        check_folder(tmp_path / "missing" / "model", 1000)
    (tmp_path / "file").touch()
    with pytest.raises(FolderError, match="cannot be written"):
        check_folder(tmp_path / "file", 1000)


def test_T13_second_run_is_told_who_holds_the_lock_and_a_killed_one_lets_go(tmp_path):
    code = f"""
        import sys
        from pathlib import Path
        from cxr.system.atomic_files import training_lock
        with training_lock(Path({str(tmp_path)!r})):
            print("held", flush=True)
            sys.stdin.read()  # until the test ends, however it does
    """
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=rf"process {holder.pid}\) is using"), training_lock(tmp_path):
            pass
        holder.kill()
        holder.wait()
        with training_lock(tmp_path):
            assert (tmp_path / ".train.lock").read_text().strip() == str(os.getpid())


def test_T10_T11_first_signal_is_noted_and_the_handlers_come_back(capsys):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop.requested
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
        assert Stopped(stop.signal_number).exit_code == 143
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert "Stopping after this batch" in capsys.readouterr().err


def test_T10_second_signal_ends_the_process_at_once():
    code = """
        import signal, time
        from cxr.training.stopping import StopRequest
        with StopRequest():
            signal.raise_signal(signal.SIGINT)
            print("first", flush=True)
            signal.raise_signal(signal.SIGINT)
            print("second", flush=True)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (run.returncode, run.stdout) == (130, "first\n")


def test_checkpoint_record_is_readable_json(tmp_path):
    run_fit(tmp_path, Recipe(epochs=1, batch_size=4))
    record = read_checkpoint(tmp_path).record
    assert json.loads(json.dumps(record)) == record
    assert record["identity"]["findings"] == list(FINDINGS)
    assert record["state"]["finished"]


def test_M12_sweep_deletes_only_temporary_files(tmp_path):
    for name in (".tmp-1-model.h5", ".tmp-2-model.h5", "model.h5", "notes.tmp"):
        (tmp_path / name).touch()
    assert sorted(sweep_temp_files(tmp_path)) == [".tmp-1-model.h5", ".tmp-2-model.h5"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.h5", "notes.tmp"]


def test_T01_history_file_is_whole_after_every_epoch_and_after_a_resume(tmp_path):
    log = epoch_logger(tmp_path / "logs")
    rows = []
    for epoch in (1, 2, 3):
        rows.append({"epoch": epoch, "loss": 0.5 / epoch, "val_mean_auroc": None if epoch == 1 else 0.75})
        if epoch == 3:
            log = epoch_logger(tmp_path / "logs")  # as in another process
        with contextlib.suppress(KeyError):  # TensorBoard, where it is installed, wants the other columns
            log(rows)
        table = list(csv.reader((tmp_path / "logs" / "history.csv").read_text().splitlines()))
        assert table[0] == ["epoch", "loss", "val_mean_auroc"]
        assert [row[0] for row in table[1:]] == [str(k) for k in range(1, epoch + 1)]
    assert table[1:3] == [["1", "0.5", ""], ["2", "0.25", "0.75"]]


def test_epoch_line_states_an_undefined_score_as_such():
    row = {"epoch": 2, "phase": "all", "loss": 0.5, "val_loss": 0.25, "num_defined": 0, "best": True}
    assert epoch_line(row | {"val_mean_auroc": None}, 9) == (
        "epoch   2/9 (all)  loss 0.5000  val loss 0.2500  val mean AUROC n/a over 0 findings  best"
    )
    assert "val mean AUROC 0.750 over" in epoch_line(row | {"val_mean_auroc": 0.75}, 9)


def test_native_noise_is_kept_from_stderr_unless_something_fails(capfd):
    with quiet_stderr():
        os.write(2, b"noise\n")
    assert capfd.readouterr().err == ""
    with pytest.raises(ZeroDivisionError), quiet_stderr():
        os.write(2, b"the reason\n")
        raise ZeroDivisionError
    assert capfd.readouterr().err == "the reason\n"
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "later\n"
