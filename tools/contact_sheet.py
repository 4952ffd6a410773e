"""Draw the contact sheet of the sample: two radiographs of each finding, with their true boxes on the second.

python -m tools.contact_sheet --data . --out docs/sample_radiographs.png
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Rectangle

from cxr.data.columns import display_name
from cxr.system.atomic_files import describe_error
from cxr.system.csv_table import TableError, read_rows, read_table, records
from cxr.system.terminal import fail
from tools.make_sample_data import BOXES_CSV, SPLITS
from tools.phantom.case import BOX_SCALE
from tools.phantom.casemix import NAMES

COLUMNS, TILE_INCHES = 6, 2.0


def read_cases(folder: Path) -> dict[str, set[str]]:
    """Image name -> findings, over the three splits."""
    cases = {}
    for name, *_ in SPLITS:
        for row in read_rows(folder / name):
            if missing := {"Image", *NAMES} - row.keys():
                raise TableError("missing column", f"{name}: no column {sorted(missing)[0]}. Name the sample's folder.")
            cases[row["Image"]] = {finding for finding in NAMES if row[finding] == "1"}
    return cases


def read_boxes(folder: Path) -> dict[str, list[tuple[str, list[float]]]]:
    boxes = defaultdict(list)
    _, *rows = records(read_table(folder / BOXES_CSV))
    for _, (image, finding, *numbers) in rows:
        boxes[image].append((finding, [float(number) for number in numbers]))
    return boxes


def choose(cases: dict[str, set[str]], finding: str | None, skip: int) -> list[str]:
    """Two images with this finding alone (or with as few others as there are); None: without any."""
    wanted = [image for image, found in sorted(cases.items()) if (finding in found if finding else not found)]
    wanted.sort(key=lambda image: len(cases[image]))
    return wanted[skip : skip + 2]


def draw_sheet(folder: Path, skip: int) -> Figure:
    cases, boxes = read_cases(folder), read_boxes(folder)
    tiles = [(finding, image, second) for finding in (None, *NAMES)
             for second, image in enumerate(choose(cases, finding, skip))]  # fmt: skip
    num_rows = -(-len(tiles) // COLUMNS)
    figure = Figure(figsize=(COLUMNS * TILE_INCHES, num_rows * (TILE_INCHES + 0.24) + 0.5), facecolor="white")
    axes = figure.subplots(num_rows, COLUMNS).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, (finding, image, second) in zip(axes, tiles, strict=False):
        picture = imread(folder / "images" / image)
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
        axis.set_title(display_name(finding or "No finding"), fontsize=9, pad=3)
        scale = picture.shape[0] / BOX_SCALE
        for name, (x, y, width, height) in boxes.get(image, []) if second else []:
            if name == finding:
                place = (np.array([x, y]) * scale - 0.5, width * scale, height * scale)
                axis.add_patch(Rectangle(*place, fill=False, edgecolor="#ffd21f", linewidth=1.2))
    figure.suptitle(
        "Synthetic radiographs of a digital phantom: two of each finding, true boxes on the second", y=0.995
    )
    figure.tight_layout(pad=0.4, rect=(0, 0, 1, 0.99))
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(), help="folder of the sample (default: here)")
    parser.add_argument("--out", type=Path, default=Path("docs/sample_radiographs.png"),
                        help="PNG to write (default: docs/sample_radiographs.png)")  # fmt: skip
    parser.add_argument("--skip", type=int, default=0, help="leave out the first so many of each finding (default: 0)")
    args = parser.parse_args()
    try:
        draw_sheet(args.data, args.skip).savefig(args.out, dpi=110)
    except TableError as error:
        return fail(f"{args.data}: {error}", 2)
    except OSError as error:
        return fail(describe_error(error), 3)
    return 0


if __name__ == "__main__":
    sys.exit(main())
