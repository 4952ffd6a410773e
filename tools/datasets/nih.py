"""NIH ChestX-ray14: label table, official lists, boxes, and the pictures, fetched or unpacked already.

Files as in the data set's folder (https://nihcc.app.box.com/v/ChestXray-NIHCC; Wang et al. 2017, "ChestX-ray8", and its
README): Data_Entry_2017_v2020.csv (Image Index, Finding Labels, ..., Patient ID), train_val_list.txt, test_list.txt,
BBox_List_2017.csv, images_001.tar.gz to images_012.tar.gz. Kaggle's sample of 5,606 images has the table alone, as
sample_labels.csv.
"""

import argparse
import shutil
from collections.abc import Iterable
from pathlib import Path

from cxr.data.boxes import Box, read_boxes
from cxr.system.atomic_files import sweep_temp_files
from cxr.system.terminal import say
from tools.datasets.collection import BOX_FRAME, Collection, PrepareError, SourceBox
from tools.nih.download import ARCHIVES, download_archive
from tools.nih.tables import FINDINGS, official_splits, read_entries, read_list
from tools.nih.unpack import resize_pictures, unpack_archive

HELP = "NIH ChestX-ray14, whole or a part of it such as Kaggle's sample"
ARCHIVE_PATTERN = "images_*.tar.gz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this source."""
    parser.add_argument("--entries", type=Path, required=True, metavar="FILE", help="NIH's Data_Entry_2017_v2020.csv")
    for flag, name in (("--train-val-list", "train_val_list.txt"), ("--test-list", "test_list.txt")):
        parser.add_argument(
            flag, type=Path, metavar="FILE", help=f"NIH's {name} (both lists; without them, splits are drawn)"
        )
    parser.add_argument("--boxes", type=Path, metavar="FILE", help="NIH's BBox_List_2017.csv; checked and copied")
    parser.add_argument(
        "--allow",
        choices=("subset",),
        help="subset: use the images that are both in the table and in a list, where one of them is incomplete",
    )
    parser.add_argument("--download", action="store_true", help="fetch the twelve archives (45 GB) and unpack them")
    parser.add_argument(
        "--archives",
        type=Path,
        metavar="DIR",
        help="folder of the archives, which are unpacked also without --download (default: OUT/archives), or of "
        "pictures that are unpacked already, such as DIR/images_001/images/*.png",
    )
    parser.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="resize to this side (default: as they are, 1024)"
    )


def check(args: argparse.Namespace) -> str | None:
    """Say what is wrong with the flags, None where nothing is."""
    if (args.train_val_list is None) != (args.test_list is None):
        return "expected both --train-val-list and --test-list, or neither"
    if not (args.image_size is None or 32 <= args.image_size <= 1024):
        return "expected --image-size from 32 to 1024"
    return None


def read(args: argparse.Namespace) -> Collection:
    """Read the tables; val is drawn from the first list, and without lists test too."""
    entries = read_entries(args.entries)
    data = Collection(FINDINGS)
    if args.train_val_list is None:
        parts = {"": list(entries.values())}
        data.notes.append("Without NIH's lists the test split was drawn; scores on it compare with no published ones.")
    else:
        lists = read_list(args.train_val_list), read_list(args.test_list)
        train, test = official_splits(entries, *lists, subset=args.allow == "subset")
        parts = {"train": train, "test": test}
        not_in_table = sum(map(len, lists)) - len(train) - len(test)
        not_in_lists = len(entries) - len(train) - len(test)
        for number, reason in ((not_in_table, "listed but not in the table"), (not_in_lists, "in neither list")):
            if number:
                data.leave_out(reason, number)
    for split, members in parts.items():
        for entry in members:
            data.add(entry.image, entry.patient, [int(name in entry.findings) for name in FINDINGS], split)
    if args.boxes is not None:
        data.boxes = [_source_box(box) for box in read_boxes(args.boxes)]
    if args.image_dir is None and args.image_size is None and args.archives is not None and _pictures(args.archives):
        args.image_dir = args.archives  # unpacked already: used where they are
    return data


def _source_box(box: Box) -> SourceBox:
    """Return a box in pixels again; powers of two, so that every digit comes back."""
    numbers = (value * BOX_FRAME for value in (box.left, box.top, box.width, box.height))
    return SourceBox(box.image, box.finding, *numbers)


def _pictures(folder: Path) -> list[Path]:
    """Return the unpacked pictures below a folder; none where it holds archives."""
    if any(folder.glob(ARCHIVE_PATTERN)):
        return []
    return sorted(folder.rglob("*.png"))


def fetch_images(args: argparse.Namespace, known: Iterable[str]) -> None:
    """Fetch and unpack the archives into OUT/images, or resize unpacked pictures into it, as the flags say."""
    if not (args.download or args.archives) or args.image_dir is not None:
        return
    folder, image_dir, known = args.archives or args.out / "archives", args.out / "images", frozenset(known)
    if args.download:
        for archive in ARCHIVES:
            download_archive(archive, folder)
    paths = sorted(folder.glob(ARCHIVE_PATTERN))
    pictures = [] if paths else [path for path in _pictures(folder) if path.name in known]
    if not paths and not pictures:
        raise PrepareError(
            f"{folder}: no {ARCHIVE_PATTERN} found, and no unpacked picture of the table. Add --download, or name "
            "their folder with --archives."
        )
    sweep_temp_files(image_dir)
    for path in paths:
        say(f"{path.name}: {unpack_archive(path, image_dir, known, args.image_size):,} images written")
    if pictures:
        say(f"{folder}: {resize_pictures(pictures, image_dir, args.image_size):,} images written")
    num_missing = len(known) - sum((image_dir / name).is_file() for name in known)
    free = shutil.disk_usage(image_dir).free
    say(f"{image_dir}: {len(known) - num_missing:,} images, {num_missing:,} missing; {free / 1e9:.0f} GB free")
