"""Which teacher speaks for which findings and training pictures: networks by their files, tables by their images.

Nothing here builds a network: what a file cannot teach is said before anything is decoded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxr.data.columns import name_key
from cxr.data.labels import Split, top_folder
from cxr.distillation.teacher_file import TeacherInfo, read_teacher_info
from cxr.network.model_info import ModelFileError
from cxr.training.targets import read_probabilities

LEAST_PROBABILITY = 1e-4  # of a table; rounded ones of 0 and 1 have no logits


@dataclass(frozen=True, eq=False)
class Lesson:
    """What one teacher can teach a student.

    Attributes:
        columns: places of the common findings among the student's.
        outputs: places of the same findings among the teacher's.
        speaks_for: bool (n,), of the training pictures.
        answers: of a table, float32 (n, findings), logits, NaN for pictures that it does not name; None for a network.
    """

    name: str
    image_size: int
    columns: np.ndarray
    outputs: np.ndarray
    speaks_for: np.ndarray
    answers: np.ndarray | None = None


def plan_lesson(path: Path, info: TeacherInfo, split: Split) -> Lesson:
    """Match findings by name and pictures by the folder that their names begin with.

    Args:
        split: the training split.
    Raises:
        ModelFileError: no finding is in common, or no picture is of what the teacher has learned from.
    """
    places = {name_key(name): place for place, name in enumerate(info.findings)}
    common = [
        (column, places[name_key(name)]) for column, name in enumerate(split.findings) if name_key(name) in places
    ]
    if not common:
        raise ModelFileError(
            f"{path}: this teacher knows none of the findings {_shown(split.findings)}; it knows "
            f"{_shown(info.findings)}. Give another file to --teacher, or leave it out."
        )
    speaks_for = np.ones(len(split.images), bool)
    if any(info.sources):  # else its training images were in no folder, and it is taken at its word for all
        speaks_for = np.array([top_folder(image) in info.sources for image in split.images], bool)
    if not speaks_for.any():
        raise ModelFileError(
            f"{path}: this teacher has learned from images in the folders {_shown(info.sources)}, with which no "
            f"training image's name begins; for example {split.images[0]}. Give another file to --teacher, or leave it "
            "out."
        )
    columns, outputs = (np.array(one) for one in zip(*common, strict=True))
    return Lesson(path.name, info.image_size, columns, outputs, speaks_for)


def plan_table(path: Path, split: Split) -> Lesson:
    """Take a table of probabilities as a teacher that knows the training pictures it names by heart.

    Logits are learned, not probabilities: that a rare finding is ten times as likely in one picture as in another is
    worth as much as any other difference ("Do Deep Nets Really Need to be Deep?", Ba and Caruana 2014).

    Raises:
        LabelError: as `read_probabilities`.
    """
    probabilities = np.clip(read_probabilities(path, split, "--teacher"), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    answers, places = np.log(probabilities / (1 - probabilities)), np.arange(len(split.findings))
    return Lesson(path.name, 0, places, places, ~np.isnan(answers).any(axis=1), answers)


def plan_lessons(paths: Sequence[Path], split: Split) -> list[Lesson]:
    """Read what the teachers' files say, without building a network.

    Raises:
        LabelError: as `plan_table`.
        ModelFileError: as `plan_lesson`; no teacher knows a finding; or a file cannot be read.
    """
    lessons = [
        plan_table(path, split) if is_table(path) else plan_lesson(path, read_teacher_info(path), split)
        for path in paths
    ]
    check_findings(lessons, split.findings)
    return lessons


def is_table(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def check_findings(lessons: Sequence[Lesson], findings: Sequence[str]) -> None:
    """Make sure that every finding has a teacher, whose head is reused for it. Raises: ModelFileError."""
    unknown = [name for column, name in enumerate(findings) if not any(column in one.columns for one in lessons)]
    if unknown:
        raise ModelFileError(
            f"No teacher knows {_shown(unknown)}. Expected that every finding is known by one of --teacher; give "
            "another teacher as well, or leave the finding out with --findings."
        )


def describe_lessons(lessons: Sequence[Lesson], num_findings: int) -> str:
    """Say which teachers teach, and for how many of the training pictures."""
    parts = []
    for one in lessons:
        findings = f", {len(one.columns)} of {num_findings} findings" if len(one.columns) < num_findings else ""
        parts.append(f"{one.name} for {one.speaks_for.sum()} of {len(one.speaks_for)} training pictures{findings}")
    return f"Teachers: {'; '.join(parts)}."


def _shown(names: Sequence[str]) -> str:
    """List a few names for a message."""
    return ", ".join(name or "(none)" for name in names[:5]) + (", ..." if len(names) > 5 else "")
