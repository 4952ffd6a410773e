"""Turn a published data set, class folders or any table into this project's three CSVs.

    python -m tools.prepare_data nih --entries Data_Entry_2017_v2020.csv --train-val-list train_val_list.txt \\
        --test-list test_list.txt --boxes BBox_List_2017.csv --out nih
    python -m tools.prepare_data chexpert CheXpert-v1.0-small --out chexpert --image-dir CheXpert-v1.0-small
    python -m tools.prepare_data table my.csv --image-column file --patient-column id --label-column findings --out mine

Sources: nih, chexpert, mimic-cxr-jpg, vindr, rsna, padchest, folders, table; `SOURCE --help` lists the flags of each.
No patient is in two splits: a source's own split is kept, the others are drawn by patient and seeded. The table that
is printed says what was left out and why. Exit codes: 0 done, 2 bad arguments or files that are not the source's, 3
network or disk, 130 stopped with Ctrl-C.
"""

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from cxr.data.boxes import BoxError
from cxr.imaging.radiograph import ImageError
from cxr.system.terminal import SayHandler, fail, say
from tools.datasets import any_table, chexpert, folders, mimic_cxr_jpg, nih, padchest, rsna, vindr
from tools.datasets.collection import UNLABELLED, Collection, PrepareError
from tools.datasets.image_files import keep_present
from tools.datasets.output import BOXES_NAME, CSV_NAMES, describe, write_splits
from tools.datasets.splitting import split_by_patient

SOURCES = {
    "nih": nih, "chexpert": chexpert, "mimic-cxr-jpg": mimic_cxr_jpg, "vindr": vindr, "rsna": rsna,
    "padchest": padchest, "folders": folders, "table": any_table,
}  # fmt: skip


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")
    for name, module in SOURCES.items():
        command = commands.add_parser(
            name, help=module.HELP, description=module.__doc__, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        module.add_arguments(command)
        _add_common_arguments(command)
    args = parser.parse_args(argv)
    problem = _problem(args, SOURCES[args.source])
    if problem:
        parser.error(problem)
    return args


def _add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that all sources have."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the CSVs (and boxes.csv)")
    parser.add_argument(
        "--image-dir",
        type=Path,
        metavar="DIR",
        help="folder of the pictures: rows without a picture there are left out, the others get its path (default: all "
        "rows, with the names that the source gives)",
    )
    for name, share in (("val", 0.1), ("test", 0.2)):
        parser.add_argument(
            f"--{name}-share",
            type=float,
            default=share,
            metavar="SHARE",
            help=f"share of the images for {name} where the source has no such split (default: {share})",
        )
    parser.add_argument("--draw", action="store_true", help="draw all splits, also where the source has its own")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what is drawn (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace CSV files that hold something else")


def _problem(args: argparse.Namespace, module: ModuleType) -> str | None:
    """Say which flag cannot be, None where all can."""
    if not (0 < args.val_share < 1 and 0 < args.test_share < 1) or args.seed < 0:
        return "expected --val-share and --test-share between 0 and 1, and --seed >= 0"
    return module.check(args) if hasattr(module, "check") else None


def prepare(args: argparse.Namespace) -> dict[str, Collection]:
    """Read a source, split it, write the files and say what is in them."""
    data = SOURCES[args.source].read(args)
    names = list(data.images)
    if args.image_dir is not None:
        data = keep_present(data, args.image_dir)
    splits = split_by_patient(data, args.val_share, args.test_share, args.seed, keep_own=not args.draw)
    write_splits(splits, data.boxes, args.out, args.overwrite)
    say(describe(splits, data.boxes))
    if args.source == "nih":
        nih.fetch_images(args, names)
    return splits


def next_command(args: argparse.Namespace, splits: dict[str, Collection]) -> str:
    """Return the command that checks what was written."""
    parts = splits.values()
    allowed = [
        *(["no-patients"] if not all(part.patients_known for part in parts) else []),
        *(["blank"] if any((part.labels == UNLABELLED).any() for part in parts) else []),
    ]
    command = ["python", "main_train.py", "--check"]
    for name, file in CSV_NAMES.items():
        command += [f"--{name}-csv", str(args.out / file)]
    command += ["--image-dir", str(args.image_dir or args.out / "images")]
    if allowed:
        command += ["--allow", ",".join(allowed)]
    if (args.out / BOXES_NAME).exists():
        command += ["--boxes", str(args.out / BOXES_NAME)]
    return shlex.join(command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = parse_args(argv)
    logging.basicConfig(handlers=[SayHandler()], level=logging.INFO, force=True)
    try:
        splits = prepare(args)
    except (PrepareError, BoxError, ImageError) as error:
        return fail(error, 2)
    except OSError as error:
        return fail(error, 3)
    except KeyboardInterrupt:
        return fail("Stopped; the same command goes on from here.", 130)
    say(f"Next: {next_command(args, splits)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
