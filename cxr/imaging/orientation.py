"""How a picture lies: what EXIF and DICOM headers say about it, and the turn that brings it upright.

Upright is how radiographs are looked at: the patient's feet below, the patient's left on the right side.
Source: JEITA CP-3451 (EXIF), tag 0x0112; DICOM PS3.3 C.7.6.1.1.1 (Patient Orientation), C.7.6.2.1.1 (Image
Orientation), C.8.11.4 (Field of View).
"""

import math
import struct
from typing import NamedTuple

import numpy as np
from pydicom.dataset import Dataset

from cxr.imaging.dicom_header import text, texts

ORIENTATION_TAG = 0x0112
AXES = {"R": "across", "L": "across", "A": "through", "P": "through", "H": "along", "F": "along"}
DIRECTIONS = ("LR", "PA", "HF")  # positive and negative direction of DICOM's x, y and z

TURNED = "By the header of this file the picture is stored mirrored or turned; it was brought upright."
UNCLEAR = (
    "What the header of this file says about how the patient lies in the picture cannot be used, or contradicts "
    "itself; the picture was not turned. Check right and left."
)
FLIPPED = (
    "By the header of this file the picture was mirrored or turned after it was taken, and how the patient lies in it "
    "is not said; the picture was not turned. Check right and left."
)


class Turn(NamedTuple):
    """How to bring a stored picture upright: swap rows and columns first, then step through each by 1 or -1."""

    transposed: bool = False
    rows: int = 1
    columns: int = 1

    def apply(self, radiograph: np.ndarray) -> np.ndarray:
        """Turn a picture (h, w)."""
        if self == Turn():
            return radiograph
        turned = radiograph.T if self.transposed else radiograph
        return np.ascontiguousarray(turned[:: self.rows, :: self.columns])

    def undo(self, picture: np.ndarray) -> np.ndarray:
        """Turn an upright picture (h, w) back to how the stored one lies."""
        turned = picture[:: self.rows, :: self.columns]
        return np.ascontiguousarray(turned.T if self.transposed else turned)


EXIF_TURNS = {
    2: Turn(False, 1, -1),
    3: Turn(False, -1, -1),
    4: Turn(False, -1, 1),
    5: Turn(True, 1, 1),
    6: Turn(True, 1, -1),
    7: Turn(True, -1, -1),
    8: Turn(True, -1, 1),
}


def exif_turn(exif: bytes) -> Turn:
    """Return the turn that an EXIF block (a TIFF header and its first directory) asks for."""
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return Turn()
    start = struct.unpack_from(f"{order}I", exif, 4)[0]
    if start + 2 > len(exif):
        return Turn()
    entries = struct.unpack_from(f"{order}H", exif, start)[0]
    for entry in range(start + 2, min(start + 2 + 12 * entries, len(exif) - 11), 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, entry)
        if tag == ORIENTATION_TAG:
            return EXIF_TURNS.get(value, Turn()) if kind == 3 else Turn()
    return Turn()


def dicom_turn(dataset: Dataset) -> tuple[Turn, list[str]]:
    """Return the turn that a DICOM header asks for, and notices on it.

    Patient Orientation and Image Orientation say where rows and columns point in the patient; where they do not say it
    with one voice, nothing is turned. The Field of View elements tell of what was done to the picture already: with a
    patient orientation beside them they are in order, alone they leave it open how the patient lies.
    """
    stated, usable = stated_directions(dataset)
    if not usable or len(set(stated)) > 1:
        return Turn(), [UNCLEAR]
    if not stated:
        moved = text(dataset, "FieldOfViewHorizontalFlip") == "YES"
        moved = moved or text(dataset, "FieldOfViewRotation").rstrip("0").rstrip(".") not in ("", "0")
        return Turn(), [FLIPPED] if moved else []
    rows, columns = stated[0]  # where the first row, and the first column, points to
    transposed = AXES[rows] == "along"
    if transposed:
        rows, columns = columns, rows
    if AXES[columns] != "along":  # seen from head or feet
        return Turn(), []
    # A lateral view has no side on which its front belongs.
    turn = Turn(transposed, -1 if columns == "H" else 1, -1 if rows == "R" else 1)
    return turn, [] if turn == Turn() else [TURNED]


def stated_directions(dataset: Dataset) -> tuple[list[tuple[str, str]], bool]:
    """Return each statement on where rows and columns point, two of R L A P H F, and whether all of them are usable."""
    stated, usable = [], True
    letters = texts(dataset, "PatientOrientation")
    cosines = texts(dataset, "ImageOrientationPatient")
    for present, directions in ((any(letters), _by_letters(letters)), (any(cosines), _by_cosines(cosines))):
        if directions is not None and AXES[directions[0]] != AXES[directions[1]]:
            stated.append(directions)
        elif present:
            usable = False
    return stated, usable


def _by_letters(values: list[str]) -> tuple[str, str] | None:
    """Read Patient Orientation; of several letters the first is the main direction."""
    if len(values) != 2 or not all(value and set(value) <= set(AXES) for value in values):
        return None
    return values[0][0], values[1][0]


def _by_cosines(values: list[str]) -> tuple[str, str] | None:
    """Read Image Orientation (Patient): the direction cosines of rows and of columns."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return None
    if len(numbers) != 6 or not all(map(math.isfinite, numbers)):
        return None
    found = []
    for cosines in (numbers[:3], numbers[3:]):
        axis = max(range(3), key=lambda k: abs(cosines[k]))
        if abs(cosines[axis]) < 0.5:
            return None
        found.append(DIRECTIONS[axis][0 if cosines[axis] > 0 else 1])
    return found[0], found[1]
