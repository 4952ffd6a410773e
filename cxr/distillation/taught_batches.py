"""The targets of a batch, blended from its labels and what teachers answer to the very same pictures.

"Knowledge distillation: A good teacher is patient and consistent" (Beyer et al. 2022): student and teacher see one
augmented and blended picture. "Distilling the Knowledge in a Neural Network" (Hinton et al. 2015): the target lies
between the label and the answer. Owns who answers for which picture; the loop asks between two batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np

from cxr.data.batches import RadiographBatches
from cxr.data.columns import name_key
from cxr.data.labels import Split, top_folder
from cxr.distillation.teacher_file import TeacherInfo, load_teacher, read_teacher_info
from cxr.network.model_info import ModelFileError
from cxr.training.parallel import alone

TEACHER_SHARE = 0.7  # of the answer in a target; the label has the rest
LEARNED_SHARE = 0.8  # of a blended picture, that must be of sources that the teacher has learned from
ROUNDING = 1e-6  # of shares in single precision


@dataclass(frozen=True, eq=False)
class Lesson:
    """What one teacher can teach a student.

    Attributes:
        columns: places of the common findings among the student's.
        outputs: places of the same findings among the teacher's.
        speaks_for: bool (n,), of the training pictures.
    """

    name: str
    image_size: int
    columns: np.ndarray
    outputs: np.ndarray
    speaks_for: np.ndarray


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


def plan_lessons(paths: Sequence[Path], split: Split) -> list[Lesson]:
    """Read what the teachers' files say, without building a network. Raises: ModelFileError, as `plan_lesson` too."""
    return [plan_lesson(path, read_teacher_info(path), split) for path in paths]


def describe_lessons(lessons: Sequence[Lesson], num_findings: int) -> str:
    """Say which teachers teach, and for how many of the training pictures."""
    parts = []
    for one in lessons:
        findings = f", {len(one.columns)} of {num_findings} findings" if len(one.columns) < num_findings else ""
        parts.append(f"{one.name} for {one.speaks_for.sum()} of {len(one.speaks_for)} training pictures{findings}")
    return f"Teachers: {'; '.join(parts)}."


class Teaching:
    """Teachers with their networks; called by the training loop for the targets of a batch."""

    def __init__(self, lessons: Sequence[Lesson], networks: Sequence[keras.Model]) -> None:
        """Take a network for each lesson: model inputs of its size -> pooled features, logits (n, its findings)."""
        self._pairs = list(zip(lessons, networks, strict=True))

    def __call__(self, batches: RadiographBatches, index: int, model_inputs: np.ndarray, targets: Any) -> Any:
        """Blend the labels of a batch with the mean of the teachers' logits.

        Args:
            model_inputs: uint8 (b, size, size, 1), as the student gets them.
            targets: the labels, float32 (b, findings), or a pair of these and anything else, which stays.
        Returns: what was given, with other labels.
        """
        labels, *rest = targets if isinstance(targets, tuple) else (targets,)
        rows, others, shares = batches.composition(index)
        total, count = np.zeros(labels.shape), np.zeros(labels.shape)
        for lesson, network in self._pairs:
            speaks = shares * lesson.speaks_for[rows] + (1 - shares) * lesson.speaks_for[others]
            speaks = speaks >= LEARNED_SHARE - ROUNDING
            if speaks.any():
                logits = self._ask(lesson, network, model_inputs)
                total[:, lesson.columns] += np.where(speaks[:, None], logits[:, lesson.outputs], 0.0)
                count[:, lesson.columns] += speaks[:, None]
        blended = blend_targets(labels, total / np.maximum(count, 1), count > 0)
        return (blended, *rest) if rest else blended

    def _ask(self, lesson: Lesson, network: keras.Model, model_inputs: np.ndarray) -> np.ndarray:
        """Return a teacher's logits for all pictures of a batch: one shape, or it would be compiled anew."""
        with alone():  # of several processes each asks for its own pictures
            _, logits = network.predict_on_batch(resize(model_inputs, lesson.image_size))
        logits = np.asarray(logits, np.float64)
        if not np.isfinite(logits).all():
            raise ModelFileError(f"{lesson.name}: this teacher answers with NaN or Inf. Leave it out of --teacher.")
        return logits


def load_teaching(paths: Sequence[Path], split: Split, precision: str) -> Teaching:
    """Load the teachers and plan their lessons for a training split. Raises: ModelFileError."""
    lessons, networks = [], []
    with alone():
        for path in paths:
            network, info = load_teacher(path, precision)
            lessons.append(plan_lesson(path, info, split))
            networks.append(network)
    return Teaching(lessons, networks)


def blend_targets(labels: np.ndarray, logits: np.ndarray, answered: np.ndarray) -> np.ndarray:
    """Blend labels with teachers' probabilities; a blank label (NaN) is learned from the teachers alone.

    Args:
        labels, logits: (b, findings).
        answered: bool (b, findings); where it is False the label stays, blank or not.
    Returns: float32 (b, findings).
    """
    answers = 0.5 * (1.0 + np.tanh(0.5 * logits))  # the sigmoid, without overflow
    blended = np.where(np.isnan(labels), answers, (1 - TEACHER_SHARE) * labels + TEACHER_SHARE * answers)
    return np.where(answered, blended, labels).astype(np.float32)


def resize(model_inputs: np.ndarray, size: int) -> np.ndarray:
    """Return the same pictures at another size, uint8 (b, size, size, 1)."""
    if model_inputs.shape[1] == size:
        return model_inputs
    how = cv2.INTER_AREA if size < model_inputs.shape[1] else cv2.INTER_LINEAR
    return np.stack([cv2.resize(one[..., 0], (size, size), interpolation=how) for one in model_inputs])[..., None]


def _shown(names: Sequence[str]) -> str:
    """List a few names for a message."""
    return ", ".join(name or "(none)" for name in names[:5]) + (", ..." if len(names) > 5 else "")
