"""Train the network that outlines lungs and heart: first on outlines, then on its own outlines of further radiographs.

    python -m tools.make_sample_data --out lungs_phantom --count 3500 --seed 91 --masks
    python -m tools.train_anatomy --phantom lungs_phantom --outlined lungs --unlabelled train-small.csv images \
        --out model/anatomy.h5
    python -m tools.train_anatomy --phantom lungs_phantom --outlined lungs --unlabelled train-small.csv images \
        --start model/anatomy.h5 --heart-boxes BBox_List_2017.csv --work hearts --out hearts.h5   # second round alone
    python -m tools.train_anatomy --outlined lungs --phantom lungs_phantom --limits   # of credible outlines
    python -m tools.train_anatomy --outlined lungs --unlabelled train-small.csv images --start model/anatomy.h5 --limits

`lungs` holds lungs.csv (columns image and use), images and masks, both lungs together; only rows whose use is "train"
are learned from. The heart is learned from the phantom, and with --heart-boxes from readers' boxes of Cardiomegaly on
the radiographs of --unlabelled. A run that was killed goes on with the same command.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
from keras import ops

from cxr.anatomy.outline_file import OutlineInfo, load_outline_network, save_outline_network
from cxr.anatomy.outline_model import probabilities_from, self_check
from cxr.anatomy.outline_network import INPUT_SIZE, STRUCTURES, build_outline_network
from cxr.data.boxes import read_boxes
from cxr.imaging.limits import ImageError
from cxr.network.model_file import save_warnings_silenced
from cxr.system.atomic_files import replacing
from cxr.system.hdf5_guard import ModelFileError
from tools.anatomy.examples import (
    Examples,
    Guess,
    credible_guesses,
    guess_outlines,
    read_outlined,
    read_phantom,
)
from tools.anatomy.heart_boxes import boxed_hearts, mean_heart, without_hearts
from tools.anatomy.limits import limits_of, otherwise_credible
from tools.anatomy.randomisation import randomise

BATCH = 8
TEACHER_SHARES = {"outlined": 5, "phantom": 3}  # of each batch
STUDENT_SHARES = {"outlined": 3, "phantom": 2, "guessed": 3}
BOXED_SHARES = {"outlined": 3, "phantom": 2, "guessed": 1, "boxed": 2}
WARM_UP = 50  # steps
CHECKPOINT_EVERY = 100  # steps
TRAIN_SPLIT = "train-small.csv"  # of the phantom
DATA = (
    "Lungs: radiographs of the ieee8023 covid-chestxray collection whose licences allow derived works, outlined by "
    "annotators of V7 Labs, published with TorchXRayVision (CC BY 4.0); this project's phantom (MIT). Heart: the "
    "phantom{boxes}. Self-training on radiographs of NIH ChestX-ray14 (Wang et al. 2017) of the NIH Clinical Center."
)
DATA_BOXES = ", and readers' boxes of Cardiomegaly on radiographs of NIH ChestX-ray14"


def masked_loss(target: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    """Add cross-entropy and one minus soft Dice of each structure, those that nobody outlined left out.

    Args:
        target: (n, grid, grid, 3), shares of cells; negative where unknown.
    """
    known = ops.cast(target >= 0, logits.dtype)
    target = target * known
    entropy = ops.maximum(logits, 0) - logits * target + ops.softplus(-ops.abs(logits))
    cells = (1, 2)
    inside = ops.sigmoid(logits) * known
    overlap, sizes = ops.sum(inside * target, cells), ops.sum(inside + target, cells)  # (n, 3)
    weight = ops.max(known, cells)
    soft_dice = (2 * overlap + 1) / (sizes + 1)
    return (ops.sum(entropy * known) / ops.sum(known)) + ops.sum((1 - soft_dice) * weight) / ops.sum(weight)


def make_batch(sources: dict[str, Examples], shares: dict[str, int], seed: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Draw and randomise one batch: float32 (n, size, size, 1) and (n, grid, grid, 3); the seed decides everything."""
    rng = np.random.default_rng(seed)
    pairs = []
    for name, count in shares.items():
        chosen = sources[name]
        for k in rng.integers(len(chosen.pictures), size=count):
            pairs.append(randomise(chosen.pictures[k], chosen.flags[k], rng, overexposed="guessed" in shares))
    pictures, targets = map(np.stack, zip(*pairs, strict=True))
    return pictures[..., np.newaxis], targets


def train(network: keras.Model, sources: dict[str, Examples], shares: dict[str, int], steps: int, rate: float,
          seed: Sequence[int], checkpoint: Path) -> keras.Model:  # fmt: skip
    """Train for a number of steps, warm-up and cosine decay to 0; goes on from the checkpoint where there is one.

    Returns: the trained network.
    Raises: ValueError where the checkpoint is of other settings or pictures.
    """
    record = checkpoint.with_suffix(".json")
    identity = identify(sources, {"shares": shares, "steps": steps, "rate": rate, "seed": [*seed]})
    if checkpoint.exists() and (not record.exists() or record.read_text(encoding="utf-8") != identity):
        raise ValueError(
            f"{checkpoint}: of a training with other settings or pictures. Repeat its command to go on with it, or "
            "name another folder with --work."
        )
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - WARM_UP), warmup_target=rate, warmup_steps=WARM_UP
    )
    network.compile(keras.optimizers.AdamW(schedule, weight_decay=1e-4), loss=masked_loss)
    if checkpoint.exists():
        network = keras.models.load_model(checkpoint, custom_objects={"masked_loss": masked_loss})
    first, losses = int(network.optimizer.iterations), []
    for step in range(first, steps):
        losses.append(float(network.train_on_batch(*make_batch(sources, shares, [*seed, step]))))
        if not np.isfinite(losses[-1]):
            raise FloatingPointError(f"The loss is {losses[-1]} at step {step + 1}. Lower --learning-rate.")
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
            print(f"{checkpoint.stem}: step {step + 1} of {steps}, loss {np.mean(losses):.4f}", flush=True)
            losses = []
            record.write_text(identity, encoding="utf-8")
            with save_warnings_silenced(), replacing(checkpoint) as temp:
                network.save(temp)
    return network


def identify(sources: dict[str, Examples], settings: dict) -> str:
    """Return what a checkpoint belongs to, as JSON: the settings, and a digest of the pictures and outlines."""
    digest = hashlib.sha256()
    for name, examples in sources.items():
        digest.update(f"{name} {examples.pictures.shape}\n".encode())
        digest.update(np.ascontiguousarray(examples.pictures))
        digest.update(np.ascontiguousarray(examples.flags))
    return json.dumps(settings | {"examples": digest.hexdigest()})


def show_limits(args: argparse.Namespace, outlined: Examples) -> None:
    """Print limits by known outlines, and which values a network's own outlines take that are credible but for one."""
    limits = [limits_of(outlined)]
    if args.phantom:
        limits.append(limits_of(read_phantom(args.phantom, TRAIN_SPLIT, INPUT_SIZE)))
    if args.start and args.unlabelled:
        network, _ = load_outline_network(args.start)
        limits.append(otherwise_credible(list(guess(network, args.unlabelled))))
    for one in limits:
        print("\n".join(f"{name}: {low:.3f} to {high:.3f}" for name, (low, high) in one.items()))


def guess(network: keras.Model, unlabelled: tuple[Path, Path]) -> Iterator[Guess]:
    return guess_outlines(*unlabelled, INPUT_SIZE, lambda pictures: probabilities_of(network, pictures))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outlined", type=Path, required=True, metavar="DIR", help="lungs.csv, images and masks")
    parser.add_argument("--phantom", type=Path, metavar="DIR", help="made by tools.make_sample_data --masks")
    parser.add_argument("--unlabelled", nargs=2, type=Path, metavar=("CSV", "DIR"),
                        help="radiographs for the self-training; without them there is no second round")  # fmt: skip
    parser.add_argument("--heart-boxes", type=Path, metavar="CSV",
                        help="learn hearts from boxes of Cardiomegaly too, in NIH's BBox_List format")  # fmt: skip
    parser.add_argument("--start", type=Path, metavar="FILE", help="an outline network in place of the first round")
    parser.add_argument("--out", type=Path, default=Path("model/anatomy.h5"), help="(default: model/anatomy.h5)")
    parser.add_argument("--work", type=Path, default=Path("anatomy_work"), help="checkpoints (default: anatomy_work)")
    parser.add_argument("--steps", nargs=2, type=int, default=(1500, 2000), metavar=("FIRST", "SECOND"),
                        help="batches of 8 in each round (default: 1500 2000)")  # fmt: skip
    parser.add_argument("--learning-rate", type=float, default=0.002, help="of AdamW at its height (default: 0.002)")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    parser.add_argument("--limits", action="store_true", help="print what limits of credible outlines are set by; stop")
    args = parser.parse_args(argv)
    if not args.limits and args.phantom is None:
        parser.error("expected --phantom DIR, made by python -m tools.make_sample_data --masks")
    if (args.start or args.heart_boxes) and not args.unlabelled:
        parser.error("--start and --heart-boxes are for the second round: expected --unlabelled CSV DIR with them")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Train and save. Exit codes: 0 saved or printed, 2 what cannot be read or written, 4 diverged."""
    args = parse_args(argv)
    try:
        outlined = read_outlined(args.outlined, "train", INPUT_SIZE)
        if args.limits:
            show_limits(args, outlined)
            return 0
        run(args, outlined)
    except FloatingPointError as error:
        print(error, file=sys.stderr)
        return 4
    except (OSError, ImageError, ModelFileError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def run(args: argparse.Namespace, outlined: Examples) -> None:
    """Train the first round, outline the radiographs without outlines, train the second round, save each."""
    args.work.mkdir(parents=True, exist_ok=True)
    boxes = read_boxes(args.heart_boxes) if args.heart_boxes else ()
    sources = {"outlined": outlined, "phantom": read_phantom(args.phantom, TRAIN_SPLIT, INPUT_SIZE)}
    settings = {"seed": args.seed, "learning_rate": args.learning_rate, "batch_size": BATCH, "steps": list(args.steps)}
    settings["images"] = {name: len(examples.names) for name, examples in sources.items()}
    print(", ".join(f"{count} {name}" for name, count in settings["images"].items()))
    if args.start:
        network, info = load_outline_network(args.start)
        settings["start"] = {"digest": info.digest, "settings": info.settings}
    else:
        network = first_round(args, sources)
        save(network, settings, args.out if not args.unlabelled else args.work / "first.h5")
    if args.unlabelled:
        guessed = credible_guesses(guess(network, args.unlabelled))
        print(f"self-training: {len(guessed.names)} radiographs with credible lungs", flush=True)
        sources["guessed"] = guessed
        if args.heart_boxes:
            # The teacher knows the phantom's hearts alone, and makes those of films too small.
            sources["guessed"] = without_hearts(guessed)
            sources["boxed"] = boxed_hearts(guessed, boxes, mean_heart(sources["phantom"]))
        settings["images"] = {name: len(examples.names) for name, examples in sources.items()}
        student = build_outline_network()
        student.set_weights(network.get_weights())
        shares = BOXED_SHARES if args.heart_boxes else STUDENT_SHARES
        network = train(student, sources, shares, args.steps[1], args.learning_rate / 2, [args.seed, 2],
                        args.work / "second.keras")  # fmt: skip
        save(network, settings, args.out, boxed="boxed" in sources)


def first_round(args: argparse.Namespace, sources: dict[str, Examples]) -> keras.Model:
    """Train a new network on what is outlined."""
    keras.utils.set_random_seed(args.seed)
    return train(build_outline_network(), sources, TEACHER_SHARES, args.steps[0], args.learning_rate, [args.seed, 1],
                 args.work / "first.keras")  # fmt: skip


def probabilities_of(network: keras.Model, pictures: np.ndarray) -> np.ndarray:
    """Return probabilities (n, size, size, 3) of pictures, uint8 (n, size, size)."""
    logits = np.asarray(network.predict_on_batch(pictures[..., np.newaxis].astype(np.float32)))
    return np.stack([probabilities_from(one, pictures.shape[1]) for one in logits])


def save(network: keras.Model, settings: dict, path: Path, *, boxed: bool = False) -> None:
    checked = self_check(lambda picture: np.asarray(network.predict_on_batch(picture)), INPUT_SIZE)
    data = DATA.format(boxes=DATA_BOXES if boxed else " alone")
    info = OutlineInfo(input_size=INPUT_SIZE, data=data, settings=settings, self_check=tuple(checked.tolist()))
    info = save_outline_network(network, info, path)
    print(f"{path}: saved, SHA-256 {info.digest[:16]}, {json.dumps(settings)}, {', '.join(STRUCTURES)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
