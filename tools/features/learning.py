"""A student network learns to predict a teacher's features of crops: targets, schedule, steps, resuming.

FitNets (Romero et al. 2015), with the teacher's map and pooled features standardised, and teacher and student looking
at the very same crop (Beyer et al. 2022, "Knowledge distillation: A good teacher is patient and consistent"). The state
of a run is a handful of plain values, which a checkpoint holds whole.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cxr.data.batches import prepare_ahead
from cxr.distillation.feature_scale import FeatureScale, measure_scale
from cxr.imaging.radiograph import to_model_input
from cxr.training.checkpoint import Checkpoint, check_identity, read_checkpoint, write_checkpoint
from cxr.training.run_control import DivergedError, Stopped, StopRequest
from tools.features.crops import BATCH_SIZE, CropBatches

WEIGHT_DECAY = 0.02
CLIP_NORM = 5.0  # of each gradient
WARM_UP_SHARE = 0.05  # of the steps
WARM_UP_START = 0.001  # of the steps; the first one moves too
NUM_STATISTICS_BATCHES = 15  # 480 crops
CHECKPOINT_EVERY = 250  # steps
PROGRESS_SECONDS = 120.0
STUDENT_MAP, STUDENT_FEATURES = "pool4_relu", "relu"  # of DenseNet121: (n, h, w, 1024) each, h of side/16 and side/32


@dataclass(frozen=True, eq=False)
class Teacher:
    """A network with a map and pooled features as its outputs, and the scales of both."""

    network: keras.Model
    scales: tuple[FeatureScale, FeatureScale]

    def targets(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what the student has to predict: float32 (n, h, w, channels) and (n, channels)."""
        answers = features_of(self.network, inputs)
        return tuple(one.standardise(answer) for one, answer in zip(self.scales, answers, strict=True))


def features_of(network: keras.Model, inputs: np.ndarray) -> list[np.ndarray]:
    return [np.asarray(answer, np.float32) for answer in network.predict_on_batch(inputs)]


def measure_teacher(network: keras.Model, batches: CropBatches) -> Teacher:
    """Measure the scales of a teacher's answers to the first 480 crops."""
    answers = [features_of(network, batches[index][0]) for index in range(NUM_STATISTICS_BATCHES)]
    maps, pooled = (measure_scale(np.concatenate(ones)) for ones in zip(*answers, strict=True))
    return Teacher(network, (maps, pooled))


def build_student(backbone: keras.Model, teacher: keras.Model) -> keras.Model:
    """Put projections on a backbone that have the shape of the teacher's outputs.

    Args:
        backbone: from `build_network`; its layers are shared, so that its weights are those that are learned.
        teacher: its outputs are (n, h, w, channels) and (n, channels).
    Returns: a model with two float32 outputs of the same shapes.
    Raises:
        ValueError: the maps have different numbers of cells.
    """
    middle, last = (backbone.get_layer(name).output for name in (STUDENT_MAP, STUDENT_FEATURES))
    expected, pooled = teacher.outputs
    if middle.shape[1:3] != expected.shape[1:3]:
        raise ValueError(f"Expected a student's map of {expected.shape[1:3]} cells, received {middle.shape[1:3]}.")
    middle = keras.layers.Activation("linear", dtype="float32")(middle)
    feature_map = keras.layers.Conv2D(expected.shape[-1], 1, name="map_projection", dtype="float32")(middle)
    last = keras.layers.GlobalAveragePooling2D(dtype="float32")(last)
    features = keras.layers.Dense(pooled.shape[-1], name="pooled_projection", dtype="float32")(last)
    return keras.Model(backbone.input, [feature_map, features], name="student")


def rate_at(step: int, num_steps: int, peak: float) -> float:
    """Return the learning rate of a step (from 0): half a cosine over all steps, times a linear warm-up.

    SGDR (Loshchilov and Hutter 2017), eq. 5 with one cycle.
    """
    done = step / num_steps
    return peak * min(1.0, (done + WARM_UP_START) / WARM_UP_SHARE) * 0.5 * (1.0 + math.cos(math.pi * done))


def explained_variance(targets: np.ndarray, predicted: np.ndarray) -> float:
    """Return one minus the squared error over the squared distance from each channel's mean, both (..., channels)."""
    axes = tuple(range(targets.ndim - 1))
    distance = np.sum((targets - targets.mean(axis=axes)) ** 2, dtype=np.float64)
    return float(1 - np.sum((targets - predicted) ** 2, dtype=np.float64) / distance) if distance else math.nan


@dataclass(eq=False)
class _Run:
    """What the functions below share: the two networks, the crops, and where the run is."""

    student: keras.Model
    teacher: Teacher | None
    batches: CropBatches
    held_out: Sequence[np.ndarray]
    peak_rate: float
    checkpoint_dir: Path
    identity: dict[str, Any]
    next_batch: int = 0
    generation: int = 0


def learn(
    student: keras.Model,
    teacher: keras.Model,
    batches: CropBatches,
    held_out: Sequence[np.ndarray],
    peak_rate: float,
    checkpoint_dir: Path,
    identity: dict[str, Any],
    stop: StopRequest,
    say: Callable[[str], None],
) -> None:
    """Learn to the end, from the checkpoint if there is one; the result is that of a run that was never stopped.

    Args:
        student: from `build_student`; compiled and changed here.
        held_out: pictures, uint8 (h, w) each, that are looked at for every progress line and never learned from.
        checkpoint_dir: of this run alone.
        identity: what a checkpoint must belong to, as JSON values.
        say: takes a line for the user.
    Raises:
        ResumeError: the checkpoint is of a run with other settings, weights or pictures.
        CheckpointError: there are checkpoints and none can be read.
        DivergedError: a loss is not finite; the last checkpoint is kept.
        Stopped: the user asked for it; a checkpoint was written.
    """
    optimiser = keras.optimizers.AdamW(peak_rate, weight_decay=WEIGHT_DECAY, clipnorm=CLIP_NORM)
    student.compile(optimiser, loss=["mse", "mse"])  # the sum of both, each a mean over all its numbers
    optimiser.build(student.trainable_variables)
    run = _Run(student, None, batches, held_out, peak_rate, checkpoint_dir, identity)
    _resume(run, teacher, say)
    if run.teacher is None:
        run.teacher = measure_teacher(teacher, batches)
    losses, first, began = [], run.next_batch, time.monotonic()
    shown = began
    for index, inputs in prepare_ahead(batches, first):
        losses.append(_take_step(run, index, *inputs))
        run.next_batch = index + 1
        last = run.next_batch == len(batches)
        signal_number = stop.signal_number  # looked at once: it must not come between save and stop
        if signal_number or last or run.next_batch % CHECKPOINT_EVERY == 0:
            _save(run)
        if signal_number:
            raise Stopped(signal_number)
        if last or time.monotonic() - shown > PROGRESS_SECONDS:
            say(_progress_line(run, losses, (time.monotonic() - began) / (run.next_batch - first)))
            losses, shown = [], time.monotonic()


def _take_step(run: _Run, index: int, teacher_inputs: np.ndarray, student_inputs: np.ndarray) -> list[float]:
    """Move the weights by one batch; return the losses of map and pooled features before it."""
    rate = rate_at(index, len(run.batches), run.peak_rate)
    run.student.optimizer.learning_rate = rate
    targets = run.teacher.targets(teacher_inputs)
    losses = [float(one) for one in run.student.train_on_batch(student_inputs, list(targets))]
    if not all(map(math.isfinite, losses)):
        raise DivergedError(
            f"Batch {index + 1} of {len(run.batches)}: the loss is {losses[0]} at learning rate {rate:.3g}. Nothing "
            f"was saved and the last checkpoint is kept. Try --learning-rate {run.peak_rate / 10:.3g} --fresh."
        )
    return losses[1:]


def _progress_line(run: _Run, losses: Sequence[Sequence[float]], seconds_per_step: float) -> str:
    """Say how far the run is, with the mean losses since the last line."""
    of_map, of_pooled = np.mean(losses, axis=0)
    explained = " and ".join("n/a" if math.isnan(one) else f"{one:.3f}" for one in _explained(run))
    minutes = (len(run.batches) - run.next_batch) * seconds_per_step / 60
    return (
        f"{run.next_batch * BATCH_SIZE:,} of {len(run.batches) * BATCH_SIZE:,} crops: loss {of_map:.3f} (map) + "
        f"{of_pooled:.3f} (pooled), explained variance {explained} on {len(run.held_out)} pictures held out, "
        f"{minutes:.0f} minutes left"
    )


def _explained(run: _Run) -> list[float]:
    """Return the explained variance of map and pooled features on the whole pictures held out; NaN without any."""
    if not run.held_out:
        return [math.nan, math.nan]
    targets, predicted = [], []
    for start in range(0, len(run.held_out), BATCH_SIZE):
        pictures = run.held_out[start : start + BATCH_SIZE]
        teacher_inputs, student_inputs = (whole(pictures, size) for size in run.batches.sizes)
        targets.append(run.teacher.targets(teacher_inputs))
        predicted.append(features_of(run.student, student_inputs))
    return [
        explained_variance(np.concatenate([one[k] for one in targets]), np.concatenate([one[k] for one in predicted]))
        for k in range(2)
    ]


def _resume(run: _Run, teacher: keras.Model, say: Callable[[str], None]) -> None:
    """Take the run up where its checkpoint left it, if there is one."""
    checkpoint = read_checkpoint(run.checkpoint_dir)
    if checkpoint is None:
        return
    check_identity(checkpoint.record["identity"], run.identity)
    arrays = checkpoint.arrays
    run.next_batch, run.generation = checkpoint.record["next_batch"], checkpoint.generation
    run.student.set_weights([arrays[f"weight.{k}"] for k in range(len(run.student.weights))])
    for k, variable in enumerate(run.student.optimizer.variables):
        variable.assign(arrays[f"optimiser.{k}"])
    scales = [FeatureScale(arrays[f"mean.{k}"], arrays[f"deviation.{k}"]) for k in range(2)]
    run.teacher = Teacher(teacher, tuple(scales))
    say(f"Going on after {run.next_batch * BATCH_SIZE:,} crops.")


def _save(run: _Run) -> None:
    run.generation += 1
    arrays = {f"weight.{k}": weight for k, weight in enumerate(run.student.get_weights())}
    arrays |= {f"optimiser.{k}": one.numpy() for k, one in enumerate(run.student.optimizer.variables)}
    for k, (mean, deviation) in enumerate(run.teacher.scales):
        arrays |= {f"mean.{k}": mean, f"deviation.{k}": deviation}
    record = {"identity": run.identity, "next_batch": run.next_batch}
    write_checkpoint(run.checkpoint_dir, Checkpoint(run.generation, record, arrays))


def whole(pictures: Iterable[np.ndarray], size: int) -> np.ndarray:
    """Return whole pictures as model inputs, float32 (n, size, size, 1)."""
    return np.stack([to_model_input(picture, size) for picture in pictures]).astype(np.float32)
