"""Boxes around findings, in the format of NIH's BBox_List, and as targets of the training.

Owns the file's format and what lies inside a box, not what is measured with boxes.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cxr.data.columns import name_key
from cxr.system.csv_table import TableError, read_table, records

FINE = 8  # points per cell and direction by which the share of a cell inside a turned box is counted
BOX_PICTURE_SIZE = 1024  # NIH's boxes are in pixels of a 1024 x 1024 picture, whatever the size of the file at hand
NUM_BOX_COLUMNS = 6  # image, finding, x, y, w, h; NIH's own rows end in three empty cells
# Of boxes that this program found: in pixels of a picture whose size stands beside them.
FOUND_BOXES_HEADER = (
    *("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]"),
    *("Score", "Picture Width", "Picture Height"),
)
PICTURE_KEYS = ("picturewidth", "pictureheight")  # columns that name the size of another picture
SCORE_KEY = "score"  # a column of boxes that a program found
ROUNDING = 1e-6  # pixels by which a box may leave its picture: sums of decimals are not exact
MAX_PROBLEMS = 20  # lines of a box file named in one error


class BoxError(ValueError):
    """A box file that cannot be used, with every reason found."""


@dataclass(frozen=True)
class Box:
    """One box around a finding, in shares (0 to 1) of the picture's width and height from its top left corner."""

    image: str
    finding: str
    left: float
    top: float
    width: float
    height: float


def read_boxes(path: Path | str) -> tuple[Box, ...]:
    """Read boxes in the format of NIH's BBox_List: `Image Index,Finding Label,Bbox [x,y,w,h],,,`.

    x and y are the top left corner in pixels of a 1024 x 1024 picture, or of the size that the columns `Picture Width`
    and `Picture Height` name. Other named columns, such as `Score`, are passed over. Several rows may share image and
    finding.

    Raises: BoxError naming up to MAX_PROBLEMS faulty lines; OSError where the file cannot be read.
    """
    path = Path(path)
    try:
        rows = list(records(read_table(path)))
    except TableError as error:
        raise BoxError(f"{path.name}{f' line {error.line}' if error.line else ''}: {error}") from error
    line, header = rows[0] if rows else (1, ["an empty file"])
    if [name_key(cell) for cell in header[:2]] != ["imageindex", "findinglabel"]:
        raise BoxError(
            f"{path.name} line {line}: expected the header 'Image Index,Finding Label,Bbox [x,y,w,h],,,', received "
            f"'{','.join(header)[:80]}'. Add the header line."
        )
    extra = [name_key(cell) for cell in header[NUM_BOX_COLUMNS:]]
    if len({*PICTURE_KEYS} & {*extra}) == 1:
        raise BoxError(f"{path.name} line {line}: expected both of Picture Width and Picture Height, or neither.")
    boxes, problems = [], []
    for line, row in rows[1:]:
        if not any(cell.strip() for cell in row):
            continue
        parsed = _parse_row(row, extra)
        if isinstance(parsed, Box):
            boxes.append(parsed)
        else:
            problems.append(f"{path.name} line {line}: {parsed}")
    if problems:
        more = [f"and {len(problems) - MAX_PROBLEMS} more faulty lines."] if len(problems) > MAX_PROBLEMS else []
        raise BoxError("\n".join(problems[:MAX_PROBLEMS] + more))
    if not boxes:
        raise BoxError(f"{path.name}: no rows, expected at least one box below the header.")
    return tuple(boxes)


def _parse_row(row: list[str], extra: Sequence[str]) -> Box | str:
    """Return the box of one CSV row, or what is wrong with it.

    Args:
        extra: keys of the columns behind the box, "" for those without a name.
    """
    cells = [cell.strip() for cell in row]
    further = list(itertools.zip_longest(extra, cells[NUM_BOX_COLUMNS:], fillvalue=""))
    named = {key: cell for key, cell in further if key}
    if len(cells) < NUM_BOX_COLUMNS or any(cell for key, cell in further if not key):
        return f"expected 6 values (image, finding, x, y, w, h), received {len([cell for cell in cells if cell])}."
    if not cells[0] or not cells[1]:
        return "expected an image name and a finding, received an empty cell."
    try:
        x, y, width, height = (float(cell) for cell in cells[2:NUM_BOX_COLUMNS])
    except ValueError:
        return f"expected four numbers x, y, w, h, received {', '.join(cells[2:NUM_BOX_COLUMNS])[:60]}."
    try:
        across, down = (float(named.get(key, BOX_PICTURE_SIZE)) for key in PICTURE_KEYS)
    except ValueError:
        return f"expected the picture's width and height, received {', '.join(map(named.get, PICTURE_KEYS))[:60]}."
    finite = all(map(math.isfinite, (x, y, width, height, across, down)))
    outside = max(-x, -y, x + width - across, y + height - down) > ROUNDING
    if not finite or outside or min(width, height) <= 0:
        return (
            f"expected a box inside a {across:g} x {down:g} picture, received x={x:g}, y={y:g}, "
            f"w={width:g}, h={height:g}."
        )
    # A name that a spreadsheet would run was written behind a quote.
    image, finding = (cell.removeprefix("'") if SCORE_KEY in named else cell for cell in cells[:2])
    left, top = max(x, 0.0), max(y, 0.0)
    width, height = min(width, across - left), min(height, down - top)
    return Box(image, finding, left / across, top / down, width / across, height / down)


def with_file_names(boxes: Sequence[Box], found: Mapping[str, str]) -> tuple[Box, ...]:
    """Give boxes the names of the files that the data check found.

    Args:
        found: name as listed, in the CSV and in the boxes -> name of the file.
    """
    return tuple(replace(box, image=found.get(box.image, box.image)) for box in boxes)


@dataclass(frozen=True, eq=False)
class BoxTargets:
    """The boxes of a training split.

    Attributes:
        boxes: row of the split -> [(column of the finding, box)].
        num_findings: columns of the labels.
        grid: (h, w) of the feature map; one cell until the network is known.
    """

    boxes: dict[int, list[tuple[int, Box]]]
    num_findings: int
    grid: tuple[int, int] = (1, 1)

    @property
    def num_pairs(self) -> int:
        """How many (picture, finding) pairs have a box."""
        return sum(len({column for column, _ in boxes}) for boxes in self.boxes.values())

    def empty(self, num_images: int) -> np.ndarray:
        """Return the coverage of pictures without boxes, float32 (n, h, w, findings) of zeros."""
        return np.zeros((num_images, *self.grid, self.num_findings), np.float32)

    def draw(self, coverage: np.ndarray, row: int, matrix: np.ndarray, size: int) -> None:
        """Draw a picture's boxes where its warp has taken them.

        Args:
            coverage: float32 (h, w, findings) of zeros; becomes the share (0 to 1) of each cell inside the boxes.
            row: of the split.
            matrix: (2, 3), from pixels of the cached picture to pixels of the warped one.
            size: side of both in pixels.
        """
        if row not in self.boxes:
            return
        height, width = self.grid
        down, across = ((np.arange(count * FINE) + 0.5) / (count * FINE) for count in self.grid)
        # Pixel centres lie at whole numbers for OpenCV, and half a pixel inside the picture's border.
        x, y = np.meshgrid(across * size - 0.5, down * size - 0.5)
        back = np.linalg.inv(np.vstack([matrix, [0.0, 0.0, 1.0]]))
        x, y = ((back[k, 0] * x + back[k, 1] * y + back[k, 2] + 0.5) / size for k in range(2))
        for column in {column for column, _ in self.boxes[row]}:
            inside = np.zeros(x.shape, bool)
            for of, box in self.boxes[row]:
                if of == column:
                    inside |= (x >= box.left) & (x < box.left + box.width) & (y >= box.top) & (y < box.top + box.height)
            coverage[..., column] = inside.reshape(height, FINE, width, FINE).mean(axis=(1, 3))


def box_targets(
    boxes: Sequence[Box],
    images: Sequence[str],
    findings: Sequence[str],
    labels: np.ndarray,
    grid: tuple[int, int] = (1, 1),
) -> BoxTargets:
    """Collect the boxes of a split's pictures; a box whose picture is not labelled with its finding is left out.

    Args:
        images: (n,) names of the split, as in the boxes.
        labels: (n, findings).
        grid: as of BoxTargets.
    """
    columns = {name_key(finding): column for column, finding in enumerate(findings)}
    rows = {image: row for row, image in enumerate(images)}
    found: dict[int, list[tuple[int, Box]]] = {}
    for box in boxes:
        column = columns.get(name_key(box.finding))
        row = rows.get(box.image)
        if column is None or row is None or not labels[row, column] > 0:
            continue
        found.setdefault(row, []).append((column, box))
    return BoxTargets(found, len(findings), grid)
