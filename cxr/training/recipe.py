"""How to train: the settings of a run, its phases, and the learning rate of every step. Plain numbers, no Keras."""

import argparse
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cxr.network.start_weights import StartWeights

RATE_FROM_NONE, RATE_PRETRAINED = 1e-3, 2e-4  # defaults of the largest step size
HEAD_EPOCHS = 1  # with the backbone frozen, for pretrained weights
MAX_WARMUP_SHARE = 0.2  # of a phase: a run of one or two epochs must not end while it warms up


@dataclass(frozen=True)
class Recipe:
    """The settings of a training run.

    Attributes:
        epochs: in all, the head's included; 0 leaves the start weights as they are.
        learning_rate: the schedule's largest, with the whole network open.
        loss: "bce" or "weighted".
        head_epochs: epochs with the backbone frozen, for pretrained weights; 0 trains everything at once.
        warmup_epochs: of every phase, but never more than MAX_WARMUP_SHARE of it.
        patience: epochs without a better validation score after which the run ends; 0 for never.
        weights_origin: where the start weights came from.
        precision: dtype policy of the network.
        augmentation: "light" or "strong".
        mixup: parameter of the blending's Beta distribution; 0 for none.
        box_weight: of the box loss beside the binary cross-entropy; 0 for none.
        boxes, soft_labels: names and digests of the files they came from, or "".
    """

    epochs: int = 30
    batch_size: int = 16
    learning_rate: float = 1e-3
    loss: str = "bce"
    seed: int = 0
    head_epochs: int = 0
    head_learning_rate: float = 1e-3
    warmup_epochs: float = 1.0
    weight_decay: float = 1e-4
    patience: int = 0
    weights_origin: str = "none (random)"
    precision: str = "float32"
    augmentation: str = "light"
    mixup: float = 0.0
    box_weight: float = 0.0
    boxes: str = ""
    soft_labels: str = ""


@dataclass(frozen=True)
class Phase:
    """A stretch of epochs with one optimiser and one schedule."""

    name: str
    first_epoch: int
    num_epochs: int
    learning_rate: float
    frozen: bool


def phase_at(recipe: Recipe, epoch: int) -> Phase:
    """Return the phase of an epoch (from 0): the head on a frozen backbone first, then everything."""
    head = min(recipe.head_epochs, recipe.epochs)
    if epoch < head:
        return Phase("head", 0, head, recipe.head_learning_rate, frozen=True)
    return Phase("all", head, recipe.epochs - head, recipe.learning_rate, frozen=False)


def count_warmup_steps(recipe: Recipe, phase: Phase, steps_per_epoch: int) -> int:
    """Return how many of a phase's first steps warm up."""
    return round(min(recipe.warmup_epochs, MAX_WARMUP_SHARE * phase.num_epochs) * steps_per_epoch)


def learning_rate_at(step: int, num_steps: int, warmup_steps: int, peak: float) -> float:
    """Return the rate of a step (from 0): linear warm-up to `peak`, then half a cosine down towards 0.

    SGDR (Loshchilov and Hutter 2017), eq. 5 with one cycle.
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - warmup_steps) / max(num_steps - warmup_steps, 1)))


def choose_recipe(args: argparse.Namespace, start: "StartWeights", precision: str) -> Recipe:
    """Turn flags into a recipe; pretrained weights get a lower rate, and a new head on them is trained first."""
    rate = RATE_PRETRAINED if start.pretrained else RATE_FROM_NONE
    new_head = start.pretrained and not start.head
    return Recipe(
        epochs=args.epochs,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate or rate,
        loss=args.loss,
        seed=args.seed,
        head_epochs=min(HEAD_EPOCHS, args.epochs - 1) if new_head else 0,
        weight_decay=args.weight_decay,
        patience=args.patience,
        weights_origin=start.origin,
        precision=precision,
        augmentation=args.augment,
        mixup=args.mixup,
        box_weight=args.box_weight,
        boxes=describe_file(args.boxes) if args.box_weight else "",
        soft_labels=describe_file(args.soft_labels),
    )


def describe_file(path: Path | None) -> str:
    """Return a file's name and the start of its digest, so that a resumed run notices another file; "" for none."""
    return f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}" if path else ""
