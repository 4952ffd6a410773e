"""How to train: the settings of a run and their flags, its phases, and the learning rate of every step. No Keras."""

import argparse
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cxr.network.start_weights import StartWeights

RATE_FROM_NONE, RATE_PRETRAINED = 1e-3, 2e-4  # defaults of the largest step size
HEAD_EPOCHS = 1  # with the backbone frozen, for pretrained weights
MAX_SEED = 2**32 - 1  # that NumPy's older generator takes, which Keras seeds too
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
        teachers: names and digests of the files of the networks that it learns from, or "".
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
    teachers: str = ""


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
        teachers=", ".join(map(describe_file, args.teacher)),
    )


def describe_file(path: Path | None) -> str:
    """Return a file's name and the start of its digest, so that a resumed run notices another file; "" for none."""
    return f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}" if path else ""


@dataclass(frozen=True)
class RecipeDefaults:
    """Defaults of the flags of a recipe, where programs differ; `epochs_help` and `rate_help` say them in words."""

    image_size: int
    epochs: int
    epochs_help: str
    rate_help: str
    min_image_size: int = 32
    min_epochs: int = 0
    learning_rate: float | None = None
    weight_decay: float = 1e-4
    mixup: float = 0.0
    augment: str = "light"


def add_recipe_flags(training: argparse._ArgumentGroup, usual: RecipeDefaults) -> None:
    """Add the flags that say how to train, whatever the network."""
    size, decay, mixup = usual.image_size, usual.weight_decay, usual.mixup
    sides, counts = number(int, usual.min_image_size, 1024), number(int, usual.min_epochs)
    rates, alphas = number(float, 1e-8, 1), number(float, 0, 10)
    numbers = (  # flag, metavar, values, default, what it is, the default in words
        ("--image-size", "PIXELS", sides, size, "side of the model input", size),
        ("--batch-size", "N", number(int, 1), 16, "images per training step", 16),
        ("--epochs", "N", counts, usual.epochs, "passes over the images", usual.epochs_help),
        ("--learning-rate", "RATE", rates, usual.learning_rate, "largest step size of AdamW", usual.rate_help),
        ("--weight-decay", "W", number(float, 0, 1), decay, "of AdamW, times the learning rate", f"{decay:g}"),
        ("--mixup", "ALPHA", alphas, mixup, "blend pictures by Beta(ALPHA, ALPHA); 0 for none", f"{mixup:g}"),
        ("--patience", "N", number(int, 0), 0, "stop after N epochs without a better validation score", "never"),
        ("--seed", "N", number(int, 0, MAX_SEED), 0, "same seed, same metrics", 0),
    )  # fmt: skip
    for flag, metavar, values, default, what, words in numbers:
        help_text = f"{what} (default: {words})"
        training.add_argument(flag, type=values, metavar=metavar, default=default, help=help_text)
    training.add_argument(
        "--loss",
        choices=("bce", "weighted"),
        default="bce",
        help="binary cross-entropy, plain or with each finding's positives weighed up (default: bce)",
    )
    training.add_argument(
        "--augment",
        choices=("light", "strong"),
        default=usual.augment,
        help="how much training pictures are changed: turned and shifted a little, or also stretched, blurred, grainy, "
        f"of another exposure and with a part hidden (default: {usual.augment}; strong pays from about 10 epochs on)",
    )
    training.add_argument(
        "--soft-labels",
        type=Path,
        metavar="FILE",
        help="table of another model's probabilities, as gradcam.py writes it, learned together with the labels of "
        "the training pictures that it names",
    )
    training.add_argument(
        "--fresh", action="store_true", help="throw an unfinished run away instead of going on with it"
    )


def number(kind: type, low: float, high: float = float("inf")) -> Callable[[str], float]:
    """Make a converter for argparse that takes numbers from `low` to `high`."""

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            shown = [f"{limit}" if kind is int else f"{limit:g}" for limit in (low, high)]
            limits = f"of at least {shown[0]}" if high == float("inf") else f"from {shown[0]} to {shown[1]}"
            article = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"expected {article} {limits}; received {text!r}")
        return value

    return convert
