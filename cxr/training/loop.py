"""The training loop: phases, schedule, selection, and a run that can be stopped at any batch and resumed exactly.

A loop over `train_on_batch` and not `fit`: the state of a run is then a handful of plain values, which a checkpoint
can hold whole. Names no Keras backend.
Other networks may teach: whoever calls then says what is trained, and what is learned from a batch.
"""

import dataclasses
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from cxr.data.batches import AUGMENTATIONS, RadiographBatches, prepare_ahead
from cxr.data.boxes import BoxTargets
from cxr.data.cache import CachedSplit
from cxr.metrics.calibration import binary_cross_entropy
from cxr.metrics.ranking import mean_auroc
from cxr.system.progress import Progress
from cxr.training import parallel
from cxr.training.checkpoint import Checkpoint, check_identity, pack, read_checkpoint, unpack, write_checkpoint
from cxr.training.optimisation import (
    TrainingSteps,
    box_loss,
    feature_loss,
    make_loss,
    make_optimiser,
    make_steps,
    positive_weights,
)
from cxr.training.recipe import Phase, Recipe, count_warmup_steps, learning_rate_at, phase_at
from cxr.training.run_control import DivergedError, Stopped, StopRequest

logger = logging.getLogger(__name__)

FEATURE_SHARE = 0.5  # of the loss on the teachers' features, beside that on the labels

CHECKPOINT_SECONDS = 300.0  # the most work that a power cut can cost, beside the unfinished epoch's validation


@dataclass
class RunState:
    """Where a run is; together with the weights and the optimiser's variables, all that a resume needs.

    Attributes:
        epoch, next_batch: what comes next, both from 0.
        loss_sum, num_seen: of the unfinished epoch, for its mean loss.
        best_score: (mean validation AUROC or -inf where undefined, -validation loss), compared in this order.
        history: one row per finished epoch.
        finished: no epoch comes next.
    """

    epoch: int = 0
    next_batch: int = 0
    loss_sum: float = 0.0
    num_seen: int = 0
    best_score: tuple[float, float] = (-math.inf, -math.inf)
    best_epoch: int = -1
    generation: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    finished: bool = False


def layer_output(network: keras.Model, name: str) -> keras.Model:
    """Return the part of the network that ends at the named layer."""
    return keras.Model(network.input, network.get_layer(name).output)


def predict_split(
    network: keras.Model, cached: CachedSplit, batch_size: int, between_batches: Callable[[], None] = lambda: None
) -> np.ndarray:
    """Predict a whole split in its order, never augmented.

    Args:
        network: any model from model inputs to one array per row; its output is what is returned.
        between_batches: called after every batch; may raise to stop.
    Returns: float32 (n, outputs).
    """
    batches, network = RadiographBatches(cached, batch_size), parallel.gathering(network)
    full_size = parallel.whole_batch_size(batches.batch_size)
    rows = []
    for _, (model_inputs, _labels) in prepare_ahead(batches, 0):
        missing = full_size - len(model_inputs)
        # One shape for all batches: another would have the backend compile the network once more.
        padded = np.concatenate([model_inputs, np.repeat(model_inputs[:1], missing, axis=0)])
        rows.append(np.asarray(network.predict_on_batch(parallel.spread(padded)))[: len(model_inputs)])
        between_batches()
    return np.concatenate(rows).astype(np.float32)


class Teaching(Protocol):
    """What other networks teach: `cxr.distillation.taught_batches` has one that reads teachers from files."""

    def begin(self, network: keras.Model, batches: RadiographBatches, with_cells: bool) -> keras.Model:
        """Return the model that is trained, with another head than the network's.

        Args:
            with_cells: whether the logits of every cell are wanted, for the box loss.
        Returns: outputs are logits, those of every cell if wanted, and features; the head is its layer `logits`.
        """

    def settle(self, network: keras.Model) -> None:
        """Write what the network's head has become into its layer `logits`."""

    def finish(self, network: keras.Model, cached: CachedSplit, batch_size: int) -> None:
        """Change the head of the network with its best weights, if that is of use.

        Args:
            cached: the training split.
        """

    def __call__(
        self, batches: RadiographBatches, index: int, pictures: np.ndarray, targets: Any
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Return model inputs and what is learned from them, an array for each output, in place of a batch's own."""


@dataclass(eq=False)
class _Run:
    """What the functions below share: the network with its optimiser, the data, and the state."""

    network: keras.Model
    logits: keras.Model  # the same layers, ending before the sigmoid
    trained: keras.Model  # what is compiled: the logits, with boxes the evidence of every cell, with teachers features
    batches: RadiographBatches
    val: CachedSplit
    recipe: Recipe
    checkpoint_dir: Path
    identity: dict[str, Any]
    best_weights: list[np.ndarray]
    teaching: Teaching | None = None
    state: RunState = field(default_factory=RunState)
    phase: Phase | None = None
    steps: TrainingSteps | None = None  # of the phase
    saved_at: float = 0.0


def fit(
    network: keras.Model,
    train: CachedSplit,
    val: CachedSplit,
    recipe: Recipe,
    checkpoint_dir: Path,
    stop: StopRequest,
    on_epoch: Callable[[list[dict[str, Any]]], None] = lambda history: None,
    boxes: BoxTargets | None = None,
    soft_labels: np.ndarray | None = None,
    teaching: Teaching | None = None,
) -> list[dict[str, Any]]:
    """Train to the end, from the checkpoint if there is one, and leave the best weights in the network.

    The result of a run that was stopped and resumed equals that of one that was not.

    Args:
        network: from `build_network`, with its start weights.
        checkpoint_dir: of this run alone; the caller holds the training lock.
        on_epoch: called after every epoch with the rows of all epochs so far.
        boxes: of the training pictures, for the recipe's box loss; the network gives them its grid.
        soft_labels: float32 (n, findings) between 0 and 1, learned in place of the training split's labels.
        teaching: teachers, whose answers and features are learned beside the labels; asked between two batches, so
            that they have the processor or the GPU to themselves. The training pictures are then of their size.
    Returns: the history, one row per epoch; empty, and the network as it was, where the recipe has no epochs.
    Raises:
        ResumeError: the checkpoint is of a run with other settings or data.
        CheckpointError: there are checkpoints and none can be read.
        DivergedError: a loss, weight or logit is not finite; the last checkpoint is kept.
        Stopped: the user asked for it; a checkpoint was written.
    """
    identity = dataclasses.asdict(recipe)
    identity |= {"image_size": val.image_size, "findings": list(train.split.findings)}
    identity |= {"train_data": train.fingerprint, "val_data": val.fingerprint}
    logits = layer_output(network, "logits")
    if boxes is not None:
        boxes = dataclasses.replace(boxes, grid=network.get_layer("relu").output.shape[1:3])
    if soft_labels is not None:
        train = dataclasses.replace(train, split=dataclasses.replace(train.split, labels=soft_labels))
    batches = RadiographBatches(
        train,
        recipe.batch_size,
        training=True,
        seed=recipe.seed,
        limits=AUGMENTATIONS[recipe.augmentation],
        own_rows=parallel.share_of_this_process(),
        mixup=recipe.mixup,
        boxes=boxes if recipe.box_weight else None,
    )
    parallel.check_batch_size(batches.batch_size)
    if teaching is not None:
        trained = teaching.begin(network, batches, batches.boxes is not None)
    else:
        trained = logits if batches.boxes is None else _with_cells(network)
    start = network.get_weights()
    run = _Run(network, logits, trained, batches, val, recipe, checkpoint_dir, identity, start, teaching)
    _resume(run)
    if recipe.epochs == 0:
        return []
    run.saved_at = time.monotonic()
    while not run.state.finished:
        _enter_phase(run)
        _train_epoch(run, stop)
        _end_epoch(run, stop)
        on_epoch(run.state.history)
        _save(run)
    network.set_weights(run.best_weights)
    if teaching is not None:
        teaching.finish(network, train, recipe.batch_size)
    return run.state.history


def _with_cells(network: keras.Model) -> keras.Model:
    """Return the network with two outputs: its logits, and its head applied to every cell, (n, h, w, findings)."""
    head = network.get_layer("logits")
    return keras.Model(network.input, [head.output, head(network.get_layer("relu").output)])


def _resume(run: _Run) -> None:
    """Take the run up where its checkpoint left it, if there is one."""
    checkpoint = _common_checkpoint(run.checkpoint_dir)
    if checkpoint is None:
        return
    check_identity(checkpoint.record["identity"], run.identity)
    run.state = RunState(**checkpoint.record["state"])
    run.state.best_score = tuple(run.state.best_score)
    arrays, count = checkpoint.arrays, len(run.best_weights)
    run.network.set_weights([arrays[f"weight.{k}"] for k in range(count)])
    run.best_weights = [arrays[f"best.{k}"] for k in range(count)]
    head = run.trained.get_layer("logits")  # the network's own, or with teachers another
    head.set_weights([arrays[f"head.{k}"] for k in range(len(head.weights))])
    if run.state.finished:
        logger.info("Resuming after the last epoch of an unfinished run.")
        return
    logger.info("Resuming an unfinished run at epoch %d, batch %d.", run.state.epoch + 1, run.state.next_batch + 1)
    _enter_phase(run)
    if (run.state.epoch, run.state.next_batch) == (run.phase.first_epoch, 0):
        return  # saved between two phases: the optimiser in the file is the last phase's, and this one starts anew
    for k, variable in enumerate(run.trained.optimizer.variables):
        variable.assign(arrays[f"optimiser.{k}"])


def _common_checkpoint(folder: Path) -> Checkpoint | None:
    """Read the checkpoint; of several processes the first reads it for all, whose machines may not have it."""
    checkpoint = read_checkpoint(folder) if parallel.is_first() else None
    if not parallel.is_several():
        return checkpoint
    content = parallel.from_first(None if checkpoint is None else bytes(pack(checkpoint)))
    return None if content is None else unpack(content)


def _enter_phase(run: _Run) -> None:
    """Compile for the phase of the present epoch, once; unfreezing has no effect before a new compilation."""
    phase = phase_at(run.recipe, run.state.epoch)
    if phase == run.phase:
        return
    run.phase = phase
    for layer in run.network.layers:
        # A frozen BatchNormalization runs in inference mode: its moving statistics stay as they are.
        layer.trainable = layer.name == "logits" or not phase.frozen
    optimiser = make_optimiser(phase.learning_rate, run.recipe.weight_decay)
    weights = positive_weights(run.batches.cached.split.labels) if run.recipe.loss == "weighted" else None
    losses, shares = [make_loss(weights)], [1.0]
    if run.batches.boxes is not None:
        losses, shares = [*losses, box_loss], [*shares, run.recipe.box_weight]
    if run.teaching is not None:
        losses, shares = [*losses, feature_loss], [*shares, FEATURE_SHARE]
    run.steps = make_steps(run.trained, optimiser, losses, shares)


def _rate(run: _Run, index: int) -> float:
    steps = len(run.batches)
    step = (run.state.epoch - run.phase.first_epoch) * steps + index
    warmup_steps = count_warmup_steps(run.recipe, run.phase, steps)
    return learning_rate_at(step, run.phase.num_epochs * steps, warmup_steps, run.phase.learning_rate)


def _train_epoch(run: _Run, stop: StopRequest) -> None:
    """Train on the epoch's batches that are left."""
    state = run.state
    run.batches.set_epoch(state.epoch)
    progress = Progress(f"epoch {state.epoch + 1}/{run.recipe.epochs}: batch", len(run.batches))
    for index, (model_inputs, targets) in prepare_ahead(run.batches, state.next_batch):
        rate = _rate(run, index)
        if run.teaching is not None:
            model_inputs, targets = run.teaching(run.batches, index, model_inputs, targets)
        loss, head_is_finite = run.steps.take(model_inputs, targets, rate)
        if not (math.isfinite(loss) and head_is_finite):
            raise DivergedError(_divergence(run, index, rate, loss))
        state.loss_sum += loss * len(model_inputs)
        state.num_seen += len(model_inputs)
        state.next_batch = index + 1
        progress.show(index + 1, f"(loss {state.loss_sum / state.num_seen:.4f})")
        _pause(run, stop)


def _pause(run: _Run, stop: StopRequest) -> None:
    """Between two batches: stop if asked to, save if it is time."""
    # Looked at once: a signal between save and stop must not find the save left out. Several processes stop together.
    signal_number = parallel.largest(stop.signal_number if stop.requested else 0)
    if signal_number or time.monotonic() - run.saved_at > CHECKPOINT_SECONDS:
        _save(run)
    if signal_number:
        raise Stopped(signal_number)


def _end_epoch(run: _Run, stop: StopRequest) -> None:
    """Validate, keep the weights if they are the best, write the history row and go on to the next epoch."""
    state, recipe = run.state, run.recipe
    run.steps.settle()
    if run.teaching is not None:
        run.teaching.settle(run.network)
    logits = predict_split(run.logits, run.val, 2 * recipe.batch_size, lambda: _pause(run, stop))
    weights = run.network.get_weights()
    if not (np.isfinite(logits).all() and all(np.isfinite(weight).all() for weight in weights)):
        raise DivergedError(
            f"Epoch {state.epoch + 1}: validation logits or weights are not finite (learning rate "
            f"{_rate(run, len(run.batches) - 1):.3g}). {_remedy(run)}"
        )
    auroc, num_defined = mean_auroc(run.val.split.labels, logits)
    val_loss = binary_cross_entropy(run.val.split.labels, logits)
    score = (auroc if num_defined else -math.inf, -val_loss)
    row = {
        "epoch": state.epoch + 1,
        "phase": run.phase.name,
        "learning_rate": _rate(run, 0),
        "loss": state.loss_sum / max(state.num_seen, 1),
        "val_loss": val_loss,
        "val_mean_auroc": auroc if num_defined else None,
        "num_defined": num_defined,
        "best": score > state.best_score,
    }
    if row["best"]:
        state.best_score, state.best_epoch, run.best_weights = score, state.epoch, weights
    state.history.append(row)
    waited = state.epoch - max(state.best_epoch, run.phase.first_epoch)
    state.epoch, state.next_batch, state.loss_sum, state.num_seen = state.epoch + 1, 0, 0.0, 0
    state.finished = state.epoch >= recipe.epochs or 0 < recipe.patience <= waited


def _save(run: _Run) -> None:
    run.saved_at = time.monotonic()
    run.steps.settle()
    run.state.generation += 1
    if not parallel.is_first():
        return
    # JSON has no infinity, but Python's reader and writer agree on one; the file is read by this module alone.
    record = {"identity": run.identity, "state": dataclasses.asdict(run.state)}
    arrays = {f"weight.{k}": weight for k, weight in enumerate(run.network.get_weights())}
    arrays |= {f"head.{k}": weight for k, weight in enumerate(run.trained.get_layer("logits").get_weights())}
    arrays |= {f"best.{k}": weight for k, weight in enumerate(run.best_weights)}
    arrays |= {f"optimiser.{k}": one.numpy() for k, one in enumerate(run.trained.optimizer.variables)}
    write_checkpoint(run.checkpoint_dir, Checkpoint(run.state.generation, record, arrays))
    run.saved_at = time.monotonic()


def _divergence(run: _Run, index: int, rate: float, loss: float) -> str:
    rows = run.batches.rows(index)
    images = ", ".join(f"{run.batches.cached.split.images[row]} (row {row + 1})" for row in rows[:4])
    return (
        f"Epoch {run.state.epoch + 1}, batch {index + 1} of {len(run.batches)}: the loss is {loss} or a gradient "
        f"is not finite at learning rate {rate:.3g}. The batch: {images}{', ...' if len(rows) > 4 else ''}. "
        f"{_remedy(run)}"
    )


def _remedy(run: _Run) -> str:
    return (
        "No model was saved and the last checkpoint is kept. "
        f"Try --learning-rate {run.recipe.learning_rate / 10:.3g} --fresh."
    )
