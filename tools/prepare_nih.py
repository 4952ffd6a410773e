"""Turn NIH ChestX-ray14 into this project's three CSVs and one folder of images.

    python -m tools.prepare_nih --entries Data_Entry_2017_v2020.csv --train-val-list train_val_list.txt \\
        --test-list test_list.txt --boxes BBox_List_2017.csv --out nih            # the tables alone
    python -m tools.prepare_nih ... --out nih --download --image-size 256         # and the images, 45 GB to fetch

The tables (plain or .gz) are at https://nihcc.app.box.com/v/ChestXray-NIHCC. The test split is NIH's official list; the
validation split is drawn from the other list, by patient and seeded. Everything may be interrupted and run again.
Exit codes: 0 done, 2 bad arguments or files that are not NIH's, 3 network or disk, 130 stopped with Ctrl-C.
"""

import argparse
import logging
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from cxr.data.boxes import BoxError, read_boxes
from cxr.system.atomic_files import TEMP_PREFIX
from cxr.system.terminal import SayHandler, fail, say
from tools.nih.download import ARCHIVES, download_archive
from tools.nih.tables import (
    CSV_NAMES,
    Entry,
    PrepareError,
    csv_text,
    describe,
    official_splits,
    read_entries,
    read_list,
    split_off_patients,
)
from tools.nih.unpack import unpack_archive

BOXES_NAME = "boxes.csv"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    for flag, name in (
        ("--entries", "Data_Entry_2017_v2020.csv"),
        ("--train-val-list", "train_val_list.txt"),
        ("--test-list", "test_list.txt"),
    ):
        parser.add_argument(flag, type=Path, required=True, metavar="FILE", help=f"NIH's {name}")
    parser.add_argument("--boxes", type=Path, metavar="FILE", help="NIH's BBox_List_2017.csv; checked and copied")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the CSVs and images/")
    parser.add_argument(
        "--val-share",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="share of the images of the first list that are validated on (default: 0.1)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the validation split (default: 0)")
    parser.add_argument("--download", action="store_true", help="fetch the twelve archives (45 GB) and unpack them")
    parser.add_argument(
        "--archives",
        type=Path,
        metavar="DIR",
        help="folder of the archives, which are unpacked also without --download (default: OUT/archives)",
    )
    parser.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="resize to this side (default: as they are, 1024)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace CSV files that hold something else")
    args = parser.parse_args(argv)
    if not 0 < args.val_share < 1 or args.seed < 0 or not (args.image_size is None or 32 <= args.image_size <= 1024):
        parser.error("expected --val-share between 0 and 1, --seed >= 0 and --image-size from 32 to 1024")
    return args


def write_tables(args: argparse.Namespace, entries: dict[str, Entry]) -> None:
    """Split, write and describe the three CSVs, and copy the boxes."""
    train_val, test = official_splits(entries, read_list(args.train_val_list), read_list(args.test_list))
    train, val = split_off_patients(train_val, args.val_share, args.seed)
    splits = {"train": train, "val": val, "test": test}
    texts = {CSV_NAMES[name]: csv_text(split) for name, split in splits.items()}
    boxes = None
    if args.boxes is not None:
        boxes = read_boxes(args.boxes)
        texts[BOXES_NAME] = args.boxes.read_text(encoding="utf-8-sig")
    for name, text in texts.items():
        path = args.out / name
        if path.exists() and path.read_text(encoding="utf-8") != text and not args.overwrite:
            raise PrepareError(f"{path} exists and holds other data. Choose another --out, or add --overwrite.")
    args.out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        temp = args.out / f"{TEMP_PREFIX}{name}"
        temp.write_text(text, encoding="utf-8", newline="\n")
        temp.replace(args.out / name)
    num_left_out = len(entries) - sum(map(len, splits.values()))
    say(f"Lists: {len(train_val):,} images for training, {len(test):,} to test; {num_left_out:,} in neither.")
    for name, split in splits.items():
        say(describe(name, split))
    if boxes is not None:
        in_test = {entry.image for entry in test}
        num_tested = sum(box.image in in_test for box in boxes)
        say(f"{BOXES_NAME}: {len(boxes):,} boxes, {num_tested:,} of them on images of the test split")


def unpack_all(args: argparse.Namespace, known: Iterable[str]) -> None:
    """Fetch what is to be fetched, and unpack every archive that is there."""
    folder, image_dir = args.archives or args.out / "archives", args.out / "images"
    known = frozenset(known)
    if args.download:
        for archive in ARCHIVES:
            download_archive(archive, folder)
    paths = sorted(folder.glob("images_*.tar.gz"))
    if not paths:
        raise PrepareError(f"{folder}: no images_*.tar.gz found. Add --download, or name their folder with --archives.")
    for stray in image_dir.glob(f"{TEMP_PREFIX}*"):
        stray.unlink()
    for path in paths:
        num_written = unpack_archive(path, image_dir, known, args.image_size)
        say(f"{path.name}: {num_written:,} images written")
    num_missing = len(known) - sum((image_dir / name).is_file() for name in known)
    free = shutil.disk_usage(image_dir).free
    say(f"{image_dir}: {len(known) - num_missing:,} images, {num_missing:,} missing; {free / 1e9:.0f} GB free")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = parse_args(argv)
    logging.basicConfig(handlers=[SayHandler()], level=logging.INFO, force=True)
    try:
        entries = read_entries(args.entries)
        write_tables(args, entries)
        if args.download or args.archives:
            unpack_all(args, entries)
    except (PrepareError, BoxError) as error:
        return fail(error, 2)
    except OSError as error:
        return fail(error, 3)
    except KeyboardInterrupt:
        return fail("Stopped; the same command goes on from here.", 130)
    csvs = " ".join(f"--{name}-csv {args.out / file}" for name, file in CSV_NAMES.items())
    say(f"Next: python main_train.py --check {csvs} --image-dir {args.out / 'images'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
