"""What a source gives: images, patients and labels in columns, boxes, and a count of what was left out and why."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

SPLITS = ("train", "val", "test")
ABSENT, PRESENT, UNLABELLED = 0, 1, 2  # of one label; the CSV's cells are "0", "1" and ""
BOX_FRAME = 1024  # NIH's boxes are in pixels of a 1024 x 1024 picture, whatever the size of the file at hand


class PrepareError(ValueError):
    """Files that are not what a source expects, or a choice that cannot be; the message says what to do."""


@dataclass(frozen=True)
class SourceBox:
    """A box around a finding, in pixels of a BOX_FRAME x BOX_FRAME picture from its top left corner."""

    image: str
    finding: str
    x: float
    y: float
    width: float
    height: float


@dataclass(eq=False)
class Collection:
    """Collect the images of a source; half a million take some 150 MB.

    Args:
        findings: names of the label columns, in their order.
        patients_known: False where the source names no patients, so that each image counts as one.
        images, patients: one entry per image.
        splits: "train", "val" or "test" as the source has it, "" where it does not say.
        cells: labels of all images one after the other, ABSENT, PRESENT or UNLABELLED.
        boxes: of any of the images.
        left_out: reason -> number of rows.
        notes: sentences that the user should read.
    """

    findings: tuple[str, ...]
    patients_known: bool = True
    images: list[str] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    cells: bytearray = field(default_factory=bytearray)
    boxes: list[SourceBox] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    _known_patients: dict[str, str] = field(default_factory=dict)

    def add(self, image: str, patient: str, labels: Iterable[int], split: str = "") -> None:
        """Add an image; `labels` in the order of `findings`."""
        self.images.append(image)
        self.patients.append(self._known_patients.setdefault(patient, patient))  # one copy of each id
        self.splits.append(split)
        self.cells.extend(labels)

    def leave_out(self, reason: str, number: int = 1) -> None:
        """Count rows that are not used."""
        self.left_out[reason] += number

    @property
    def labels(self) -> np.ndarray:
        """Return uint8 (images, findings): ABSENT, PRESENT or UNLABELLED."""
        return np.frombuffer(self.cells, np.uint8).reshape(len(self.images), len(self.findings))

    def select(self, keep: np.ndarray) -> "Collection":
        """Return the images where the boolean mask `keep` is true, with everything else shared."""
        rows = np.flatnonzero(keep)
        images, patients, splits = (
            [values[row] for row in rows] for values in (self.images, self.patients, self.splits)
        )
        cells = bytearray(self.labels[rows].tobytes())
        return Collection(
            self.findings, self.patients_known, images, patients, splits, cells, self.boxes, self.left_out, self.notes
        )
