"""VinDr-CXR: one row per box and reader -> one row per image, by the vote of its readers; boxes in NIH's form.

Files and columns as in the data set's description (version 1.0.0, https://doi.org/10.13026/3akn-b287, and Nguyen et
al. 2022, doi 10.1038/s41597-022-01498-w): annotations/annotations_train.csv and annotations_test.csv (image_id,
rad_id in the training table only, class_name, x_min, y_min, x_max, y_max in pixels of the DICOM picture, blank for
"No finding"); images are train/IMAGE_ID.dicom. The Kaggle contest of 2021 has the training table as train.csv, and
its boxes in the same pixels; PNG copies of it come with a table of image_id, dim0 (rows), dim1 (columns).
"""

import argparse
import contextlib
from collections import Counter
from pathlib import Path

from cxr.imaging.limits import ImageError
from cxr.imaging.orientation import Turn
from cxr.system.file_search import MISSING, list_folder, search
from tools.datasets.boxes import framed_box, read_sizes, upright_box
from tools.datasets.collection import Collection, PrepareError
from tools.datasets.source_table import SourceTable, find_file, find_optional

HELP = "VinDr-CXR of PhysioNet or Kaggle: boxes of several readers"
NO_FINDING = "No finding"
Rectangle = tuple[float, float, float, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this source."""
    parser.add_argument("folder", type=Path, help="folder of annotations_train.csv or Kaggle's train.csv")
    parser.add_argument(
        "--min-readers",
        type=int,
        default=2,
        metavar="N",
        help="readers who must name a finding before an image has it; all where an image has fewer (default: 2)",
    )
    parser.add_argument(
        "--sizes",
        type=Path,
        metavar="FILE",
        help="table of image_id and width, height (or dim0, dim1) of the pictures that the boxes were drawn on; "
        "without it and without such columns the pictures in --image-dir are measured",
    )


def check(args: argparse.Namespace) -> str | None:
    """Say what is wrong with the flags, None where nothing is."""
    return None if args.min_readers >= 1 else "expected --min-readers of at least 1"


def read(args: argparse.Namespace) -> Collection:
    """Read the tables; the test split is VinDr's own where its table is there."""
    folder = args.folder / "annotations" if (args.folder / "annotations").is_dir() else args.folder
    paths = {"train": find_file(folder, "annotations_train.csv", "train.csv")}
    paths["test"] = find_optional(folder, "annotations_test.csv")
    readings = {split: _Readings(path) for split, path in paths.items() if path is not None}
    classes = Counter(name for one in readings.values() for names in one.readers.values() for name in names)
    classes.pop(NO_FINDING, None)
    data = Collection(tuple(sorted(classes)), patients_known=False)
    for split, one in readings.items():
        one.add_to(data, split if "test" in readings else "", args.min_readers)
    data.notes.append(
        "VinDr-CXR names no patients: each image counts as one. If one has several images, scores may be too good."
    )
    _add_boxes(data, readings, args)
    return data


class _Readings:
    """What the readers of each image found."""

    def __init__(self, path: Path) -> None:
        self.readers: dict[str, dict[str, set[str]]] = {}  # image -> class -> readers
        self.readers_of: dict[str, set[str]] = {}
        self.boxes: list[tuple[str, str, str, Rectangle]] = []  # image, reader, class, corners
        self.sizes: dict[str, tuple[int, int]] = {}
        columns = ("image_id", "class_name", "x_min", "y_min", "x_max", "y_max")
        table = SourceTable(path, columns)
        getter = table.getter(*columns)
        reader_of = table.getter("rad_id") if table.has("rad_id") else lambda cells: ["consensus"]
        size_of = table.getter("width", "height") if table.has("width", "height") else None
        for line, cells in table.rows():
            image, name, *corners = getter(cells)
            (reader,) = reader_of(cells)
            if not image or not name:
                raise PrepareError(f"{path.name} line {line}: blank image_id or class_name.")
            self.readers_of.setdefault(image, set()).add(reader)
            self.readers_by_class(image).setdefault(name, set()).add(reader)
            if size_of:
                self.sizes[image] = tuple(int(float(value)) for value in size_of(cells))
            if any(corners):
                self.boxes.append((image, reader, name, _rectangle(corners, f"{path.name} line {line}")))

    def readers_by_class(self, image: str) -> dict[str, set[str]]:
        """Return class -> readers who named it in this image."""
        return self.readers.setdefault(image, {})

    def has(self, image: str, name: str, min_readers: int) -> bool:
        """Whether enough of an image's readers named a class."""
        needed = min(min_readers, len(self.readers_of[image]))
        return len(self.readers[image].get(name, ())) >= needed

    def add_to(self, data: Collection, split: str, min_readers: int) -> None:
        """Add the images with the labels of the vote."""
        for image in self.readers:
            data.add(image, image, [int(self.has(image, name, min_readers)) for name in data.findings], split)


def _rectangle(cells: list[str], where: str) -> Rectangle:
    try:
        left, top, right, bottom = map(float, cells)
    except ValueError as error:
        raise PrepareError(f"{where}: expected four numbers x_min, y_min, x_max, y_max, received {cells}.") from error
    return left, top, right, bottom


def _add_boxes(data: Collection, readings: dict[str, _Readings], args: argparse.Namespace) -> None:
    """Add every reader's boxes of the findings that an image has; without sizes there are none, which is said."""
    boxes = [
        (image, name, corners)
        for one in readings.values()
        for image, _, name, corners in one.boxes
        if name != NO_FINDING and one.has(image, name, args.min_readers)
    ]
    turns: dict[str, Turn] = {}
    sizes = {image: size for one in readings.values() for image, size in one.sizes.items()}
    if args.sizes is not None:
        sizes = read_sizes(args.sizes)
    if args.image_dir is not None:
        measured, turns = _look_at(args.image_dir, dict.fromkeys(image for image, *_ in boxes), measure=not sizes)
        sizes = sizes or measured
    for image, name, corners in boxes:
        if image in sizes:
            turn = turns.get(image, Turn())
            upright = sizes[image][::-1] if turn.transposed else sizes[image]
            data.boxes.append(framed_box(image, name, upright_box(corners, turn, upright), upright))
    if num_without := len(boxes) - len(data.boxes):
        data.notes.append(f"{num_without:,} boxes are left out: the sizes of their pictures are not known (--sizes).")


def _look_at(
    image_dir: Path, images: dict[str, None], *, measure: bool
) -> tuple[dict[str, tuple[int, int]], dict[str, Turn]]:
    """Read how decoding turns pictures: readers drew on them as they are stored.

    Args:
        measure: decode them too, to learn their sizes.
    Returns: image -> (width, height) as it is stored; image -> turn.
    """
    from cxr.imaging.dicom import is_dicom, stored_turn  # only here: most runs decode nothing
    from cxr.imaging.radiograph import decode_radiograph

    faulty = list_folder(image_dir, images).faulty
    found = search(image_dir, [image for image, fault in faulty.items() if fault == MISSING], ())
    sizes, turns = {}, {}
    for image in images:
        if image in faulty and image not in found:
            continue
        data = (image_dir / (found[image].path if image in found else image)).read_bytes()
        if is_dicom(data):
            with contextlib.suppress(ImageError):  # whoever decodes it says so
                turns[image] = stored_turn(data)
        if measure:
            sizes[image] = turns.get(image, Turn()).undo(decode_radiograph(data)).shape[::-1]
    return sizes, turns
