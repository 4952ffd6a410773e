"""How far probabilities can be taken at their word: Brier score, calibration error, and Platt scaling.

A calibration is fitted on the validation split alone and stored with the model as plain floats. Its slopes are
positive, so it changes no ranking.
"""

from dataclasses import dataclass

import numpy as np

NUM_BINS = 10
MIN_CASES = 5  # known positives and negatives that a finding needs for a calibration (or a threshold) of its own
SLOPE_PRECISION = 10.0  # Gaussian prior on the slope, about 1: one shared fit, then a small correction per finding
BIAS_PRECISION = 1.0  # and on the bias, about 0
MIN_SLOPE = 0.05  # a finding ranked backwards on few validation cases is flattened, never turned round


@dataclass(frozen=True)
class Calibration:
    """Calibrated logit = slope * logit + bias, one pair per finding in the model's order."""

    slopes: tuple[float, ...]
    biases: tuple[float, ...]


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of a reliability diagram: what was said and what was seen."""

    mean_probability: float
    observed_rate: float
    num_cases: int


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Map logits to probabilities in float64 without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(logits, dtype=np.float64)))


def calibrate_logits(logits: np.ndarray, calibration: Calibration) -> np.ndarray:
    """Return calibrated logits (n, findings), float64; their `sigmoid` are the calibrated probabilities."""
    return np.asarray(logits, np.float64) * np.array(calibration.slopes) + np.array(calibration.biases)


def fit_calibration(labels: np.ndarray, logits: np.ndarray) -> Calibration:
    """Fit Platt scaling (Platt 1999) per finding, held close to one fit shared by all findings.

    The shared fit repairs what findings have in common (overconfidence, a weighted loss); the prior of the second fit
    keeps a finding with few positives near it. On simulated validation splits of 60 to 1000 rows this gave a lower test
    loss than Platt scaling alone, and than one shared temperature wherever findings differ. A finding with fewer than
    MIN_CASES positives or negatives takes the shared fit; with one class in all cells, the identity.

    Args:
        labels: (n, findings) of the validation split; NaN where blank.
        logits: (n, findings) finite.
    """
    logits = np.asarray(logits, np.float64)
    known = ~np.isnan(labels)
    shared_slope, shared_bias = 1.0, 0.0
    if len(np.unique(labels[known])) == 2:
        shared_slope, shared_bias = _fit_platt(logits[known], labels[known])
    slopes, biases = [], []
    for k in range(labels.shape[1]):
        slope, bias = 1.0, 0.0
        column_labels = labels[known[:, k], k]
        if min((column_labels == 1).sum(), (column_labels == 0).sum()) >= MIN_CASES:
            slope, bias = _fit_platt(shared_slope * logits[known[:, k], k] + shared_bias, column_labels)
        slopes.append(float(slope * shared_slope))
        biases.append(float(slope * shared_bias + bias))
    return Calibration(tuple(slopes), tuple(biases))


def _fit_platt(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Minimise the penalised cross-entropy over slope >= MIN_SLOPE and bias; the prior makes it strictly convex, so
    separable data has a finite answer too."""
    from scipy.optimize import minimize  # fitting alone needs it; serving starts without

    precisions, prior = np.array([SLOPE_PRECISION, BIAS_PRECISION]), np.array([1.0, 0.0])
    design = np.stack([logits, np.ones_like(logits)], axis=1)  # (n, 2)

    def loss_and_gradient(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scores, distance = design @ parameters, parameters - prior
        loss = (np.logaddexp(0.0, scores) - labels * scores).sum() + 0.5 * (precisions * distance**2).sum()
        return float(loss), design.T @ (sigmoid(scores) - labels) + precisions * distance

    fitted = minimize(
        loss_and_gradient,
        prior,
        jac=True,
        method="L-BFGS-B",
        bounds=[(MIN_SLOPE, None), (None, None)],
        options={"ftol": 1e-15, "gtol": 1e-9},  # the default stops at the fourth digit
    )
    return float(fitted.x[0]), float(fitted.x[1])


def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean squared difference of probability and label over the known cells; NaN if there are none."""
    known = ~np.isnan(labels)
    return float(np.mean((probabilities[known] - labels[known]) ** 2)) if known.any() else float("nan")


def binary_cross_entropy(labels: np.ndarray, logits: np.ndarray) -> float:
    """Return the mean loss over the known cells, from logits and so finite where a probability rounds to 0 or 1."""
    known = ~np.isnan(labels)
    if not known.any():
        return float("nan")
    scores = np.asarray(logits, np.float64)[known]
    return float(np.mean(np.logaddexp(0.0, scores) - labels[known] * scores))


def reliability_bins(labels: np.ndarray, probabilities: np.ndarray, num_bins: int = NUM_BINS) -> list[ReliabilityBin]:
    """Group the known cells into bins of about equal numbers, by quantiles of the probability.

    Equal numbers rather than equal widths: with rare findings nearly all probabilities fall into the lowest width.
    Equal probabilities share a bin, so the order of rows does not matter; empty bins are left out.
    """
    known = ~np.isnan(labels)
    truth, stated = labels[known], np.asarray(probabilities, np.float64)[known]
    if not len(stated):
        return []
    inner_edges = np.quantile(stated, np.linspace(0, 1, num_bins + 1)[1:-1])
    bin_of_cell = np.searchsorted(inner_edges, stated, side="right")
    groups = [bin_of_cell == index for index in range(num_bins)]
    return [
        ReliabilityBin(float(stated[group].mean()), float(truth[group].mean()), int(group.sum()))
        for group in groups
        if group.any()
    ]


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, num_bins: int = NUM_BINS) -> float:
    """Return the mean gap between stated probability and observed rate over `reliability_bins`, weighted by cases.

    Above zero even for a perfect model: with few cases per bin the observed rate is noisy. NaN without known cells.
    """
    bins = reliability_bins(labels, probabilities, num_bins)
    if not bins:
        return float("nan")
    total = sum(group.num_cases for group in bins)
    return sum(group.num_cases * abs(group.mean_probability - group.observed_rate) for group in bins) / total
