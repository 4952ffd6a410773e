"""Labels and logits to numbers: the evaluation of a split, per finding and as a whole. NumPy and scikit-learn only.

What is undefined (a finding with one class, 0/0) is NaN, never an invented value; a blank label is masked everywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from sklearn.metrics import precision_recall_curve

from cxr.metrics.calibration import (
    MIN_CASES,
    Calibration,
    binary_cross_entropy,
    brier_score,
    calibrate_logits,
    expected_calibration_error,
    sigmoid,
)
from cxr.metrics.ranking import NUM_RESAMPLES, Estimate, estimate_rankings

DEFAULT_THRESHOLD = 0.5
THRESHOLD_RULE = f"highest F1 on the validation split; 0.5 where it has fewer than {MIN_CASES} positives or negatives"


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model said about the rows of a split, beside their labels.

    Args:
        labels: (n, findings) 0 or 1, NaN where blank.
        logits: (n, findings) finite.
    Raises: ValueError where the parts do not fit together.
    """

    images: tuple[str, ...]
    patients: tuple[str, ...]
    findings: tuple[str, ...]
    labels: np.ndarray
    logits: np.ndarray

    def __post_init__(self) -> None:
        expected = (len(self.images), len(self.findings))
        if self.labels.shape != expected or self.logits.shape != expected or len(self.patients) != len(self.images):
            raise ValueError(
                f"predictions do not fit together: expected labels and logits of shape {expected} and {expected[0]} "
                f"patients, received {self.labels.shape}, {self.logits.shape} and {len(self.patients)}."
            )
        if not len(self.images):
            raise ValueError("predictions hold no rows: expected at least one image to evaluate.")
        if not np.isin(self.labels[~np.isnan(self.labels)], (0, 1)).all():
            raise ValueError("labels must be 0, 1 or NaN (blank). Check the split's CSV.")
        if not np.isfinite(self.logits).all():
            raise ValueError("logits hold NaN or infinity: expected finite numbers. Check the weights and the inputs.")

    @property
    def probabilities(self) -> np.ndarray:
        """Probabilities (n, findings), float64."""
        return sigmoid(self.logits)


@dataclass(frozen=True)
class Confusion:
    """Counts of one finding at one threshold (predicted where probability >= threshold) and the rates from them."""

    threshold: float
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    JSON_PROPERTIES: ClassVar = ("sensitivity", "specificity", "precision", "f1")  # written beside the counts

    @property
    def sensitivity(self) -> float:
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def specificity(self) -> float:
        return _ratio(self.true_negatives, self.true_negatives + self.false_positives)

    @property
    def precision(self) -> float:
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def f1(self) -> float:
        return _ratio(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)

    @property
    def num_correct(self) -> int:
        return self.true_positives + self.true_negatives


@dataclass(frozen=True)
class ProbabilityQuality:
    """How good probabilities are as probabilities, over known cells: mean losses, and the calibration error."""

    loss: float  # binary cross-entropy, natural logarithm
    brier: float
    calibration_error: float


@dataclass(frozen=True)
class FindingEvaluation:
    """The numbers of one finding."""

    finding: str
    num_known: int
    support: int
    auroc: Estimate
    average_precision: Estimate
    at_default: Confusion
    at_chosen: Confusion
    stated: ProbabilityQuality
    calibrated: ProbabilityQuality | None
    baseline_loss: float


@dataclass(frozen=True)
class Evaluation:
    """The numbers of a split. Accuracy and loss are means over all known cells, as Keras' binary ones are.

    `baseline_accuracy` is that of answering no to everything; `baseline_loss` that of stating each finding's own
    prevalence in this very split, which no constant answer can beat.
    """

    findings: tuple[FindingEvaluation, ...]
    num_images: int
    num_patients: int
    num_resamples: int
    seed: int
    mean_auroc: Estimate
    num_defined: int
    accuracy: float
    accuracy_chosen: float
    baseline_accuracy: float
    stated: ProbabilityQuality
    calibrated: ProbabilityQuality | None
    baseline_loss: float


def evaluate(
    predictions: Predictions,
    thresholds: Sequence[float],
    calibration: Calibration | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Evaluate a split at the default threshold and at the chosen ones.

    Args:
        thresholds: one per finding, for the probabilities before calibration; see `choose_thresholds`.
        calibration: fitted on the validation split.
        num_resamples, seed: of the patient bootstrap behind the intervals.
    """
    if len(thresholds) != len(predictions.findings):
        raise ValueError(
            f"expected {len(predictions.findings)} thresholds, one per finding, received {len(thresholds)}."
        )
    labels, logits = predictions.labels, predictions.logits
    calibrated = None if calibration is None else calibrate_logits(logits, calibration)
    rankings = estimate_rankings(labels, logits, predictions.patients, num_resamples, seed)
    rows = []
    for k, finding in enumerate(predictions.findings):
        column, probabilities = labels[:, k], sigmoid(logits[:, k])
        rows.append(
            FindingEvaluation(
                finding=finding,
                num_known=int((~np.isnan(column)).sum()),
                support=int((column == 1).sum()),
                auroc=rankings.auroc[k],
                average_precision=rankings.average_precision[k],
                at_default=count_confusion(column, probabilities, DEFAULT_THRESHOLD),
                at_chosen=count_confusion(column, probabilities, thresholds[k]),
                stated=measure_quality(column, logits[:, k]),
                calibrated=None if calibrated is None else measure_quality(column, calibrated[:, k]),
                baseline_loss=_constant_loss(column),
            )
        )
    num_known = sum(row.num_known for row in rows)
    return Evaluation(
        findings=tuple(rows),
        num_images=len(predictions.images),
        num_patients=len(set(predictions.patients)),
        num_resamples=num_resamples,
        seed=seed,
        mean_auroc=rankings.mean_auroc,
        num_defined=rankings.num_defined,
        accuracy=_ratio(sum(row.at_default.num_correct for row in rows), num_known),
        accuracy_chosen=_ratio(sum(row.at_chosen.num_correct for row in rows), num_known),
        baseline_accuracy=_ratio(num_known - sum(row.support for row in rows), num_known),
        stated=measure_quality(labels, logits),
        calibrated=None if calibrated is None else measure_quality(labels, calibrated),
        baseline_loss=_ratio(sum(row.num_known * row.baseline_loss for row in rows if row.num_known), num_known),
    )


def choose_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, ...]:
    """Choose one threshold per finding: the one with the highest F1 on the validation split.

    F1 and not Youden's J: a reader gets a list of findings, and at a prevalence of a few percent J fills it with false
    alarms (on simulated splits of 187 rows: precision 0.26 at sensitivity 0.70, against 0.38 at 0.46). Fewer than
    MIN_CASES positives or negatives leave DEFAULT_THRESHOLD. A threshold lies midway between two probabilities; of
    several with the same F1 the one nearest the default is taken.

    Args:
        labels, probabilities: (n, findings) of the validation split.
    """
    return tuple(_choose_threshold(labels[:, k], probabilities[:, k]) for k in range(labels.shape[1]))


def _choose_threshold(labels: np.ndarray, probabilities: np.ndarray) -> float:
    if min((labels == 1).sum(), (labels == 0).sum()) < MIN_CASES:
        return DEFAULT_THRESHOLD
    known = ~np.isnan(labels)
    precision, recall, cuts = precision_recall_curve(labels[known], np.asarray(probabilities, np.float64)[known])
    precision, recall = precision[:-1], recall[:-1]  # the last point belongs to no cut
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    midways = (cuts + np.concatenate([[0.0], cuts[:-1]])) / 2
    best = midways[np.isclose(f1, f1.max(), rtol=1e-9)]
    return float(best[np.argmin(np.abs(best - DEFAULT_THRESHOLD))])


def count_confusion(labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> Confusion:
    """Count one finding's rows (n,) by label and by probability >= threshold; blanks are left out."""
    predicted = probabilities >= threshold
    return Confusion(
        float(threshold),
        int((predicted & (labels == 1)).sum()),
        int((predicted & (labels == 0)).sum()),
        int((~predicted & (labels == 1)).sum()),
        int((~predicted & (labels == 0)).sum()),
    )


def measure_quality(labels: np.ndarray, logits: np.ndarray) -> ProbabilityQuality:
    """Measure the probabilities behind logits of any shape against labels of the same shape."""
    probabilities = sigmoid(logits)
    return ProbabilityQuality(
        binary_cross_entropy(labels, logits),
        brier_score(labels, probabilities),
        expected_calibration_error(labels, probabilities),
    )


def _constant_loss(labels: np.ndarray) -> float:
    """Return the cross-entropy of stating the prevalence for every row: the entropy of the labels."""
    known = labels[~np.isnan(labels)]
    if not len(known):
        return float("nan")
    shares = np.array([known.mean(), 1 - known.mean()], dtype=np.float64)
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
