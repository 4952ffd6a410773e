"""Boxes in the pixels of a picture to NIH's frame, and the sizes of pictures that this needs."""

from pathlib import Path

from cxr.imaging.orientation import Turn
from tools.datasets.collection import BOX_FRAME, PrepareError, SourceBox
from tools.datasets.source_table import SourceTable

GRID = 8  # places per pixel of the frame


def framed_box(
    image: str, finding: str, corners: tuple[float, float, float, float], size: tuple[int, int]
) -> SourceBox:
    """Return a box in the frame of NIH's list: 1024 x 1024 pixels over the whole picture.

    Args:
        corners: left, top, right, bottom in the picture's own pixels.
        size: the picture's width and height.

    Raises: PrepareError where the box is empty or, by more than a pixel, not in the picture.
    """
    width, height = size
    left, top, right, bottom = corners
    if not (-1 <= left < right <= width + 1 and -1 <= top < bottom <= height + 1):
        raise PrepareError(
            f"box of {image}: {left:g}, {top:g} to {right:g}, {bottom:g} is not in a picture of {width} x {height}. "
            "Give the sizes of the pictures that the boxes were drawn on."
        )
    left, right = (_on_grid(value / width) for value in (left, right))
    top, bottom = (_on_grid(value / height) for value in (top, bottom))
    return SourceBox(image, finding, left, top, max(right - left, 1 / GRID), max(bottom - top, 1 / GRID))


def _on_grid(share: float) -> float:
    """Return a place in the frame, on eighths of a pixel: their sums are exact, so that no box leaves the frame."""
    return round(min(max(share, 0.0), 1.0) * BOX_FRAME * GRID) / GRID


def read_sizes(path: Path) -> dict[str, tuple[int, int]]:
    """Read image -> (width, height) from a table of image_id, width, height, or Kaggle's image_id, dim0 (rows), dim1.

    Raises: PrepareError where it is another table.
    """
    table = SourceTable(path, ("image_id",))
    columns = ("width", "height") if table.has("width", "height") else ("dim1", "dim0")
    if not table.has(*columns):
        raise PrepareError(f"{path.name}: expected the columns image_id, width, height or image_id, dim0, dim1.")
    getter = table.getter("image_id", *columns)
    sizes = {}
    for line, cells in table.rows():
        image, width, height = getter(cells)
        if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
            raise PrepareError(
                f"{path.name} line {line}: expected whole numbers of pixels, received {width}, {height}."
            )
        sizes[image] = int(width), int(height)
    return sizes


def upright_box(
    corners: tuple[float, float, float, float], turn: Turn, size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Bring a box from a picture as it is stored to the upright one.

    Args:
        corners: left, top, right, bottom in pixels of the stored picture.
        size: width and height of the upright one.
    """
    left, top, right, bottom = corners
    width, height = size
    if turn.transposed:
        left, top, right, bottom = top, left, bottom, right
    if turn.columns < 0:
        left, right = width - right, width - left
    if turn.rows < 0:
        top, bottom = height - bottom, height - top
    return left, top, right, bottom
