"""What a batch teaches: what teachers answer to the very same pictures, and the features that their answers rest on.

"Knowledge distillation: A good teacher is patient and consistent" (Beyer et al. 2022): student and teacher see one
augmented and blended picture. "Distilling the Knowledge in a Neural Network" (Hinton et al. 2015): the target lies
between the label and the answer. Owns what is asked and learned; the loop asks between two batches.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from cxr.data.batches import RadiographBatches
from cxr.data.cache import CachedSplit
from cxr.data.labels import Split
from cxr.distillation.feature_scale import FeatureScale, measure_scale
from cxr.distillation.lessons import Lesson, is_table, plan_lessons
from cxr.distillation.reused_head import ReusedHead, fit_map
from cxr.distillation.teacher_file import load_teacher
from cxr.imaging.radiograph import to_model_input
from cxr.metrics.calibration import sigmoid
from cxr.network.model_info import ModelFileError
from cxr.training.parallel import alone

TEACHER_SHARE = 0.9  # of the answer in a target; the label has the rest
TABLE_SHARE = 0.25  # of a head that is fitted to tables alone, in the finished one
LEAST_NAMED = 200  # pictures of a table that such a head is fitted to
LEARNED_SHARE = 0.8  # of a blended picture, that must be of sources that the teacher has learned from
ROUNDING = 1e-6  # of shares in single precision
NUM_MEASURED = 1920  # pictures that means, deviations and the first map are taken from


class Answers(NamedTuple):
    """What the teachers say about the pictures of a batch.

    Attributes:
        features: of each teacher, float32 (b, its channels), NaN in rows for which it does not speak.
        logits: float64 (b, findings), the mean of those that speak.
        answered: bool (b, findings), where at least one does.
    """

    features: list[np.ndarray]
    logits: np.ndarray
    answered: np.ndarray


class Teaching:
    """Teachers with their networks; called by the training loop for the targets of a batch."""

    def __init__(self, lessons: Sequence[Lesson], networks: Sequence[keras.Model | None], num_findings: int) -> None:
        """Take a network for each lesson but a table's: pictures of its size -> pooled features (n, channels), logits.

        Its last layer of weights is `logits`, which makes the second of the first.
        """
        self._pairs, self._num_findings = list(zip(lessons, networks, strict=True)), num_findings
        self._scales: list[FeatureScale] = []  # of each teacher
        self._head: ReusedHead | None = None
        self._student_size = 0
        self.picture_size = max(one.image_size for one in lessons)  # smaller pictures would hide what it was shown

    def begin(self, network: keras.Model, batches: RadiographBatches, with_cells: bool) -> keras.Model:
        """Measure the teachers' features on the first pictures, and put their heads behind the network's features.

        Args:
            network: from `build_network`; its layers are shared, but for its head.
            batches: of the training split; left at its first epoch.
            with_cells: whether the logits of every cell are wanted, for the box loss.
        Returns: a model with the outputs of `ReusedHead`, without the cells' where they are not wanted.
        """
        batches.set_epoch(0)
        batches = copy.copy(batches)
        batches.own_rows = slice  # all of them: several processes must begin with the same head
        self._student_size, pooled = network.input_shape[1], network.get_layer("logits").input
        student, start = keras.Model(network.input, pooled), network.get_weights()
        count = min(len(batches), -(-NUM_MEASURED // batches.batch_size))
        seen, told = [], []
        for index in range(count):
            pictures, _ = batches[index]
            inputs = resize(pictures, self._student_size).astype(np.float32)
            with alone():  # as training sees it: where moving statistics do not fit yet, prediction has other features
                seen.append(keras.ops.convert_to_numpy(student(inputs, training=True)))
            told.append(self._ask(batches, index, pictures).features)
        network.set_weights(start)  # moving statistics have moved
        features = [np.concatenate(ones) for ones in zip(*told, strict=True)]
        self._scales = [measure_scale(one) for one in features]
        maps = [fit_map(np.concatenate(seen), one) for one in self._standardised(features)]
        kernel, bias = (np.concatenate(ones, axis=-1) for ones in zip(*maps, strict=True))
        self._head = ReusedHead(kernel, bias, *self._mean_head())
        logits, cells, told_features = self._head(pooled, network.get_layer("relu").output)
        return keras.Model(network.input, [logits, cells, told_features] if with_cells else [logits, told_features])

    def settle(self, network: keras.Model) -> None:
        """Write the head, as the one dense layer that it amounts to, into the network."""
        network.get_layer("logits").set_weights(self._head.as_dense())

    def finish(self, network: keras.Model, cached: CachedSplit, batch_size: int) -> None:
        """Give the finished network's head a part that is fitted to the tables alone, on pictures as they are.

        While training, a table is heard for the few pictures that it names, augmented and blended with others. A last
        layer fitted anew to finished features ("Last Layer Re-Training is Sufficient for Robustness to Spurious
        Correlations", Kirichenko et al. 2022) learns its logits from all of these at once, in closed form.

        Args:
            network: with the weights of the best epoch; its layer `logits` is changed, unless no table names
                LEAST_NAMED of the pictures.
            cached: the training split, at the teachers' size.
        """
        tables = [lesson for lesson, teacher in self._pairs if teacher is None]
        tables = [one for one in tables if one.speaks_for.sum() >= LEAST_NAMED]
        if not tables:
            return
        head = network.get_layer("logits")
        student = keras.Model(network.input, head.input)
        named = np.flatnonzero(np.any([one.speaks_for for one in tables], axis=0))
        whole = np.resize(named, -(-len(named) // batch_size) * batch_size)  # another shape would be compiled anew
        inputs = (resize(cached.model_inputs[rows], self._student_size) for rows in whole.reshape(-1, batch_size))
        with alone():
            features = np.concatenate([student.predict_on_batch(one) for one in inputs])[: len(named)]
        fitted = zip(*(fit_map(features, one.answers[named]) for one in tables), strict=True)
        parts = zip(head.get_weights(), fitted, strict=True)
        head.set_weights([(1 - TABLE_SHARE) * own + TABLE_SHARE * np.mean(ones, axis=0) for own, ones in parts])

    def __call__(
        self, batches: RadiographBatches, index: int, pictures: np.ndarray, targets: Any
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Return the student's inputs and what it learns from a batch.

        Args:
            pictures: uint8 (b, size, size, 1), as the batches have them.
            targets: the labels, float32 (b, findings), or a pair of these and the boxes' coverage.
        Returns: model inputs, uint8 (b, the student's size, the same, 1); and a tuple of the labels blended with the
            teachers' answers, the coverage if there is one, and the teachers' standardised features side by side,
            float32 (b, features), NaN where a teacher does not speak.
        """
        labels, *coverage = targets if isinstance(targets, tuple) else (targets,)
        told = self._ask(batches, index, pictures)
        features = np.concatenate(self._standardised(told.features), axis=1)
        blended = blend_targets(labels, told.logits, told.answered)
        return resize(pictures, self._student_size), (blended, *coverage, features)

    def _ask(self, batches: RadiographBatches, index: int, pictures: np.ndarray) -> Answers:
        """Ask every teacher about all pictures of a batch: one shape, or it would be compiled anew."""
        rows, others, shares = batches.composition(index)
        total, count = (np.zeros((len(pictures), self._num_findings)) for _ in range(2))
        features = []
        for lesson, network in self._pairs:
            speaks = shares * lesson.speaks_for[rows] + (1 - shares) * lesson.speaks_for[others]
            speaks = (speaks >= LEARNED_SHARE - ROUNDING)[:, None]
            if network is None:
                pooled = logits = _looked_up(lesson, rows, others, shares[:, None])
            else:
                pooled, logits = _predicted(lesson, network, pictures)
            total[:, lesson.columns] += np.where(speaks, logits[:, lesson.outputs], 0.0)
            count[:, lesson.columns] += speaks
            features.append(np.where(speaks, pooled, np.nan))
        return Answers(features, total / np.maximum(count, 1), count > 0)

    def _standardised(self, features: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [scale.standardise(one) for one, scale in zip(features, self._scales, strict=True)]

    def _mean_head(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the head that answers with the mean of the teachers' logits, from their standardised features."""
        kernels, bias = [], np.zeros(self._num_findings)
        num_heads = sum(np.isin(np.arange(self._num_findings), lesson.columns) for lesson, _ in self._pairs)
        for (lesson, network), (mean, deviation) in zip(self._pairs, self._scales, strict=True):
            kernel, offset = _head_of(lesson, network)
            part = np.zeros((len(kernel), self._num_findings))
            part[:, lesson.columns] = kernel / num_heads[lesson.columns]
            bias[lesson.columns] += offset / num_heads[lesson.columns]
            bias += mean @ part
            kernels.append(deviation[:, None] * part)
        return np.concatenate(kernels).astype(np.float32), bias.astype(np.float32)


def load_teaching(paths: Sequence[Path], split: Split, precision: str) -> Teaching:
    """Load the teachers and plan their lessons for a training split. Raises: ModelFileError."""
    lessons, networks = plan_lessons(paths, split), []
    with alone():
        for path in paths:
            networks.append(None if is_table(path) else load_teacher(path, precision)[0])
    return Teaching(lessons, networks, len(split.findings))


def _predicted(lesson: Lesson, network: keras.Model, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a network's pooled features (b, channels) and logits (b, its findings). Raises: ModelFileError."""
    with alone():  # of several processes each asks for its own pictures
        answers = network.predict_on_batch(resize(pictures, lesson.image_size))
    pooled, logits = (np.asarray(one, np.float32) for one in answers)
    if not (np.isfinite(pooled).all() and np.isfinite(logits).all()):
        raise ModelFileError(f"{lesson.name}: this teacher answers with NaN or Inf. Leave it out of --teacher.")
    return pooled, logits


def _looked_up(lesson: Lesson, rows: np.ndarray, others: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return a table's logits (b, findings), blended as the pictures are where it names both."""
    own, other = lesson.answers[rows], lesson.answers[others]
    return np.where(np.isnan(other), own, shares * own + (1 - shares) * other)


def _head_of(lesson: Lesson, network: keras.Model | None) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel (channels, outputs) and bias (outputs,) of a head; a table's features are its logits."""
    if network is None:
        return np.eye(len(lesson.outputs)), np.zeros(len(lesson.outputs))
    kernel, bias = network.get_layer("logits").get_weights()
    return kernel[:, lesson.outputs], bias[lesson.outputs]


def blend_targets(labels: np.ndarray, logits: np.ndarray, answered: np.ndarray) -> np.ndarray:
    """Blend labels with teachers' probabilities; a blank label (NaN) is learned from the teachers alone.

    Args:
        labels, logits: (b, findings).
        answered: bool (b, findings); where it is False the label stays, blank or not.
    Returns: float32 (b, findings).
    """
    answers = sigmoid(logits)
    blended = np.where(np.isnan(labels), answers, (1 - TEACHER_SHARE) * labels + TEACHER_SHARE * answers)
    return np.where(answered, blended, labels).astype(np.float32)


def resize(pictures: np.ndarray, size: int) -> np.ndarray:
    """Return the same pictures at another size, uint8 (b, size, size, 1)."""
    if pictures.shape[1] == size:
        return pictures
    return np.stack([to_model_input(one[..., 0], size) for one in pictures])
