"""Pictures with outlines of right lung, left lung and heart, as flags in one byte per cell: read, joined, guessed."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from cxr.anatomy.outlines import LEFT_LUNG, RIGHT_LUNG, Outlines, outlines_from
from cxr.imaging.radiograph import read_radiograph, to_model_input
from cxr.system.csv_table import read_rows

# Flags of a cell. NO_HEART_KNOWN is on all cells or on none, HEART_UNCLEAR on those that may or may not be heart.
RIGHT, LEFT, HEART, NO_HEART_KNOWN, HEART_UNCLEAR = 1, 2, 4, 8, 16
GAMMAS = (1.0, 0.75, 1.35)  # a guess is the mean over these exposures of a picture


class Examples(NamedTuple):
    """Pictures and their outlines.

    Attributes:
        pictures: uint8 (n, size, size).
        flags: uint8 (n, size, size), RIGHT, LEFT and HEART where they are; NO_HEART_KNOWN where nobody outlined it,
            HEART_UNCLEAR where its border is not known better.
        aspects: float (n,), width over height of the radiographs.
        names: (n,), of the files.
    """

    pictures: np.ndarray
    flags: np.ndarray
    aspects: np.ndarray
    names: list[str]


class Guess(NamedTuple):
    """A radiograph, uint8 (size, size), with its width over its height, and a network's outlines of it."""

    name: str
    picture: np.ndarray
    aspect: float
    outlines: Outlines


def read_phantom(folder: Path, split: str, size: int) -> Examples:
    """Read one split of `tools.make_sample_data --masks`.

    Raises: OSError, ImageError.
    """
    names = [row["Image"] for row in read_rows(folder / split)]
    pictures, flags = [], []
    for name in names:
        pictures.append(to_model_input(read_radiograph(folder / "images" / name), size)[..., 0])
        heart, left, right = cv2.split(shrink(read_mask(folder / "masks" / name), size))
        flags.append(RIGHT * (right > 127) + LEFT * (left > 127) + HEART * (heart > 127))
    return Examples(np.stack(pictures), np.stack(flags).astype(np.uint8), np.ones(len(names)), names)


def read_outlined(folder: Path, use: str, size: int) -> Examples:
    """Read radiographs whose readers outlined both lungs together: lungs.csv (columns image and use), images, masks.

    Raises: OSError, ImageError; ValueError for a mask of fewer than two pieces.
    """
    names = [row["image"] for row in read_rows(folder / "lungs.csv") if row["use"] == use]
    pictures, flags, aspects = [], [], []
    for name in names:
        radiograph = read_radiograph(folder / "images" / name)
        pictures.append(to_model_input(radiograph, size)[..., 0])
        flags.append(split_sides(shrink(read_mask(folder / "masks" / name)[..., 0], size) > 127, name))
        aspects.append(radiograph.shape[1] / radiograph.shape[0])
    return Examples(np.stack(pictures), np.stack(flags), np.array(aspects), names)


def split_sides(lungs: np.ndarray, name: str) -> np.ndarray:
    """Tell right from left in a mask of both lungs, bool (h, w): by the two largest pieces, the rest by the nearer one.

    Returns: uint8 (h, w), flags.
    Raises: ValueError where the lungs are one piece.
    """
    count, pieces, statistics, centres = cv2.connectedComponentsWithStats(lungs.astype(np.uint8), connectivity=4)
    if count < 3:
        raise ValueError(f"{name}: expected a mask of two lungs apart, found {count - 1} pieces.")
    largest = 1 + np.argsort(-statistics[1:, cv2.CC_STAT_AREA])[:2]
    middle = centres[largest, 0].mean()
    right = np.isin(pieces, 1 + np.flatnonzero(centres[1:, 0] < middle))
    return (np.where(right, RIGHT, LEFT) * lungs + NO_HEART_KNOWN).astype(np.uint8)


def guess_outlines(
    table: Path, folder: Path, size: int, probabilities_of: Callable[[np.ndarray], np.ndarray]
) -> Iterator[Guess]:
    """Outline radiographs without outlines by a trained network.

    Args:
        table: a CSV with a column Image.
        probabilities_of: uint8 (n, size, size) to probabilities (n, size, size, 3).
    Raises: OSError, ImageError.
    """
    for row in read_rows(table):
        radiograph = read_radiograph(folder / row["Image"])
        picture = to_model_input(radiograph, size)[..., 0]
        exposures = [np.rint(255 * (picture / 255) ** gamma).astype(np.uint8) for gamma in GAMMAS]
        aspect = radiograph.shape[1] / radiograph.shape[0]
        outlines = outlines_from(probabilities_of(np.stack(exposures)).mean(axis=0), aspect)
        yield Guess(row["Image"], picture, aspect, outlines)


def credible_guesses(guesses: Iterable[Guess]) -> Examples:
    """Return the radiographs whose lungs are credible; a heart that is not is unknown."""
    pictures, flags, aspects, names = [], [], [], []
    for name, picture, aspect, found in guesses:
        if found.lungs_credible:
            known = HEART * found.heart if found.heart_credible else NO_HEART_KNOWN
            pictures.append(picture)
            flags.append(RIGHT * (found.labels == RIGHT_LUNG) + LEFT * (found.labels == LEFT_LUNG) + known)
            aspects.append(aspect)
            names.append(name)
    return Examples(np.stack(pictures), np.stack(flags).astype(np.uint8), np.array(aspects), names)


def read_mask(path: Path) -> np.ndarray:
    """Read a mask as uint8 (h, w, 3), blue, green, red. Raises: OSError."""
    mask = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if mask is None:
        raise OSError(f"{path}: cannot be read as a picture. Make the masks anew.")
    return mask


def shrink(mask: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA)
