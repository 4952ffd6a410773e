"""What ends a run: signals, NaN, no better score."""

import dataclasses
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
from small_training import NAN, RECIPE, TRAIN, run_fit

from cxr.data.batches import RadiographBatches
from cxr.data.cache import CachedSplit
from cxr.data.problems import LabelError
from cxr.system.atomic_files import LockedError
from cxr.training import loop
from cxr.training.checkpoint import (
    read_checkpoint,
)
from cxr.training.optimisation import make_loss
from cxr.training.recipe import Recipe
from cxr.training.run_control import DivergedError, ParallelError, Stopped, StopRequest, exit_code_of


def test_early_stopping_counts_epochs_without_a_better_score(tmp_path, monkeypatch):
    scores = iter([0.5, 0.7, 0.6, 0.6, 0.6, 0.6])
    monkeypatch.setattr(loop, "mean_auroc", lambda labels, logits: (next(scores), 2))
    _, history = run_fit(tmp_path, Recipe(epochs=9, batch_size=4, patience=2))
    assert len(history) == 4


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


@pytest.mark.fault("T08")
@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_nan_stops_within_its_batch_and_keeps_the_checkpoint(tmp_path, monkeypatch, kind):
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


@pytest.mark.fault("T08")
def test_nan_in_validation_stops_and_is_never_the_best(tmp_path, monkeypatch):
    real = loop.predict_split
    monkeypatch.setattr(loop, "predict_split", lambda *args: real(*args) * NAN)
    with pytest.raises(DivergedError, match="Epoch 1: validation logits or weights are not finite"):
        run_fit(tmp_path)
    assert read_checkpoint(tmp_path) is None


@pytest.mark.fault("T10", "T11", "T70")
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_first_signal_is_noted_and_the_handlers_come_back(capsys, number, exit_code):
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with StopRequest() as stop:
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested
        assert Stopped(stop.signal_number).exit_code == exit_code
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    assert "Stopping after this batch" in capsys.readouterr().err


@pytest.mark.fault("T10")
def test_second_signal_ends_the_process_at_once():
    code = """
        import signal, time
        from cxr.training.run_control import StopRequest
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


@pytest.mark.parametrize(
    ("error", "exit_code", "said"),
    [
        (LabelError("a bad cell"), 2, "a bad cell"),
        (ParallelError("set all three"), 2, "set all three"),
        (FileNotFoundError(2, "No such file or directory", "a.csv"), 3, "a.csv"),
        (MemoryError(), 3, "Out of memory. Try --batch-size 8."),
        (DivergedError("the loss is nan"), 4, "the loss is nan"),
        (LockedError("process 7 trains here"), 5, "process 7 trains here"),
        (Stopped(signal.SIGTERM), 143, "Stopped; the same command goes on from here."),
        (KeyboardInterrupt(), 130, "Stopped."),
    ],
)
def test_every_program_that_trains_ends_with_the_same_codes(capsys, error, exit_code, said):
    def fail():
        raise error

    assert exit_code_of(fail, batch_size=16) == exit_code
    assert said in capsys.readouterr().err
    assert exit_code_of(lambda: 0, batch_size=16) == 0
