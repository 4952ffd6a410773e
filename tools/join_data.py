"""Join data sets into one: each keeps a folder of its own below images/, by which it is known from then on.

    python -m tools.join_data nih=nih_data phantom=phantom_data:1200,40,0 --out joint

Every source is a folder with train-small.csv, val_data.csv, test_data.csv, images/ and, where there are boxes, a file
*boxes*.csv or BBox_List*.csv in NIH's format. Behind a colon stand how many rows of the training, validation and test
split are taken, from the first on (default: all). Writes the three CSVs, boxes.csv and images/NAME/ (hard links where
the disk allows them, else copies) below --out. Names of images and patients get the source's name in front, so that
two sets that both know a patient 1 stay apart. `main_train.py` then fits its input check to each source.
"""

import argparse
import csv
import filecmp
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr.data.boxes import BOX_PICTURE_SIZE, BoxError, read_boxes
from cxr.data.columns import IMAGE_KEYS, PATIENT_KEY, name_key
from cxr.system.atomic_files import describe_error, replacing
from cxr.system.csv_table import TableError, read_table, records

SPLITS = ("train-small.csv", "val_data.csv", "test_data.csv")
IMAGE, PATIENT = "Image", "Patientid"


class JoinError(ValueError):
    """Data sets that cannot be joined."""


@dataclass(frozen=True)
class Source:
    """One data set and how many rows of its three splits are taken; None for all."""

    name: str
    folder: Path
    num_rows: tuple[int | None, int | None, int | None] = (None, None, None)


def read_source(text: str) -> Source:
    """Read NAME=FOLDER or NAME=FOLDER:TRAIN,VAL,TEST, for argparse."""
    name, equals, rest = text.partition("=")
    folder, colon, numbers = rest.rpartition(":")
    if not colon or not numbers.replace(",", "").isdigit():
        folder, numbers = rest, ""
    counts = tuple(int(number) for number in numbers.split(",")) if numbers else (None, None, None)
    if not equals or not folder or not name or not name.replace("-", "").replace("_", "").isalnum() or len(counts) != 3:
        raise argparse.ArgumentTypeError(
            f"expected NAME=FOLDER or NAME=FOLDER:TRAIN,VAL,TEST, the name of letters and digits; received {text!r}"
        )
    return Source(name, Path(folder), counts)


def join(sources: Sequence[Source], out: Path) -> list[str]:
    """Write the joint set below `out`; return a line for each source and split.

    Raises:
        JoinError: a CSV or image is missing, the findings differ, or two sources share a name.
        OSError: the disk refuses.
    """
    if len({source.name for source in sources}) < len(sources):
        raise JoinError("Two sources have the same name. Give each its own before the equals sign.")
    lines, findings, boxes = [], None, []
    tables: dict[str, list[list[str]]] = {name: [] for name in SPLITS}
    for source in sources:
        for split, number in zip(SPLITS, source.num_rows, strict=True):
            header, rows = _read(source.folder / split)
            rows = rows[:number]
            keys = ["image" if key in IMAGE_KEYS else key for key in map(name_key, header)]
            fixed = (IMAGE_KEYS[0], PATIENT_KEY)
            findings = findings or [name for name, key in zip(header, keys, strict=True) if key not in fixed]
            wanted = [*fixed, *map(name_key, findings)]
            if sorted(keys) != sorted(wanted):
                raise JoinError(
                    f"{source.folder / split}: expected the columns {IMAGE}, {PATIENT}, {', '.join(findings)}; "
                    f"received {', '.join(header)}. Give all sources the same findings."
                )
            places = [keys.index(key) for key in wanted]
            for row in rows:
                name, patient, *labels = (row[place].strip() for place in places)
                _link(source.folder / "images" / name, out / "images" / source.name / name)
                tables[split].append([f"{source.name}/{name}", f"{source.name}-{patient}", *labels])
            lines.append(f"{source.name}: {len(rows)} rows of {split}")
        boxes += _read_boxes(source)
    for split, rows in tables.items():
        _write(out / split, [[IMAGE, PATIENT, *findings], *rows])
    if boxes:
        taken = {row[0] for rows in tables.values() for row in rows}
        boxes = [row for row in boxes if row[0] in taken]
        _write(out / "boxes.csv", [["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]"], *boxes])
        lines.append(f"{len(boxes)} boxes")
    return lines


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a table."""
    try:
        found = [[cell.strip() for cell in cells] for _, cells in records(read_table(path))] or [[]]
    except FileNotFoundError:
        raise JoinError(f"{path}: no such file. A source needs {', '.join(SPLITS)} and images/.") from None
    except TableError as error:
        raise JoinError(f"{path}{f' line {error.line}' if error.line else ''}: {error}") from error
    header, *rows = found
    if any(len(row) != len(header) for row in rows):
        raise JoinError(f"{path}: a row has more or fewer cells than the header. Check it with main_train.py --check.")
    return header, rows


def _read_boxes(source: Source) -> list[list[str]]:
    """Return the rows of a source's box file in NIH's frame, the image with the source's name in front."""
    found = sorted({*source.folder.glob("*boxes*.csv"), *source.folder.glob("BBox_List*.csv")})
    try:
        boxes = [box for path in found[:1] for box in read_boxes(path)]
    except BoxError as error:
        raise JoinError(str(error)) from error
    shares = [(box.left, box.top, box.width, box.height) for box in boxes]
    # The frame is a power of two, so that numbers in NIH's frame come back as they were.
    numbers = [[f"{share * BOX_PICTURE_SIZE:.15g}" for share in four] for four in shares]
    return [[f"{source.name}/{box.image}", box.finding, *four] for box, four in zip(boxes, numbers, strict=True)]


def _link(image: Path, target: Path) -> None:
    """Give an image a second name, or copy it where the disk has no hard links; another picture of that name goes."""
    try:
        if target.exists() and (target.samefile(image) or filecmp.cmp(image, target, shallow=False)):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # not written over: the other one may be a source's own file
        os.link(image.resolve(), target)
    except FileNotFoundError:
        raise JoinError(f"{image}: no such image. Every image of a CSV must be below images/.") from None
    except OSError:
        shutil.copyfile(image, target)


def _write(path: Path, rows: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temp, temp.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=read_source, metavar="NAME=FOLDER[:TRAIN,VAL,TEST]")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the joint set")
    args = parser.parse_args()
    try:
        print("\n".join(join(args.sources, args.out)))
    except JoinError as error:
        sys.exit(f"{error}")
    except OSError as error:
        sys.exit(describe_error(error))


if __name__ == "__main__":
    main()
