"""Boxes that a program found against boxes that a reader drew: IoU, IoBB and hit rates, with intervals. NumPy only.

Several boxes of a case count as the area that they cover together, on either side, so that further boxes help only
where they are right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cxr.metrics.ranking import MIN_INTERVAL_PATIENTS, NUM_RESAMPLES, Estimate, estimate_of, resample_weights

OVERLAP_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)  # as in Li et al. 2018


class Rectangle(Protocol):
    """An upright rectangle in shares (0 to 1) of the picture's width and height."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, eq=False)
class BoxCase:
    """An image and a finding that has boxes.

    Attributes:
        truth: the boxes drawn for it, at least one.
        found: the boxes of its heatmap; may be none.
        random: the boxes of each random map, found by the same rule.
    """

    finding: str
    patient: str
    truth: Sequence[Rectangle]
    found: Sequence[Rectangle]
    random: Sequence[Sequence[Rectangle]]


@dataclass(frozen=True)
class BoxScore:
    """Means over the cases of one finding; NaN without cases.

    `iou`: shared over joint area. `iobb`: share of the found boxes' area that lies in the drawn ones (intersection over
    the detected bounding box). `iou_hits`, `iobb_hits`: share of cases that reach each threshold. The `random_` values
    are those of random maps; intervals are over patients.
    """

    finding: str
    num_cases: int
    boxes_per_case: float
    iou: Estimate
    random_iou: float
    iobb: Estimate
    random_iobb: float
    iou_hits: tuple[Estimate, ...]
    random_iou_hits: tuple[float, ...]
    iobb_hits: tuple[Estimate, ...]
    random_iobb_hits: tuple[float, ...]


@dataclass(frozen=True)
class BoxLocalisation:
    """Scores per finding that has cases and over all cases; hits are in the order of the thresholds."""

    thresholds: tuple[float, ...]
    findings: tuple[BoxScore, ...]
    overall: BoxScore


def score_boxes(cases: Sequence[BoxCase], findings: Sequence[str], seed: int = 0) -> BoxLocalisation:
    """Score every case, each counting once, and the random boxes beside it.

    Args:
        findings: names in the order wanted.
        seed: of the bootstrap.
    """
    scores = [_measures(case.found, case.truth) for case in cases]
    of_random = [np.mean([_measures(boxes, case.truth) for boxes in case.random], axis=0) for case in cases]

    def mean_score(name: str, rows: list[int]) -> BoxScore:
        part = [cases[row] for row in rows]
        return _mean_score(name, part, [scores[row] for row in rows], [of_random[row] for row in rows], seed)

    rows_of = {finding: [row for row, case in enumerate(cases) if case.finding == finding] for finding in findings}
    return BoxLocalisation(
        OVERLAP_THRESHOLDS,
        tuple(mean_score(finding, rows) for finding, rows in rows_of.items() if rows),
        mean_score("All", list(range(len(cases)))),
    )


def overlap(found: Sequence[Rectangle], truth: Sequence[Rectangle]) -> tuple[float, float]:
    """Return IoU and IoBB of the areas that two groups of rectangles cover; 0 where nothing was found."""
    if not found:
        return 0.0, 0.0
    # Every edge of any rectangle cuts the plane, so that each tile between the cuts lies wholly in or out of each.
    columns, rows = (
        np.unique([edge for box in (*found, *truth) for edge in (start(box), end(box))]) for start, end in _SIDES
    )
    tiles = np.diff(rows)[:, None] * np.diff(columns)[None, :]
    in_found, in_truth = (_covered(boxes, rows, columns) for boxes in (found, truth))
    shared = tiles[in_found & in_truth].sum()
    return float(shared / tiles[in_found | in_truth].sum()), float(shared / tiles[in_found].sum())


_SIDES = (
    (lambda box: box.left, lambda box: box.left + box.width),
    (lambda box: box.top, lambda box: box.top + box.height),
)


def _covered(boxes: Sequence[Rectangle], rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return bool (rows - 1, columns - 1): which tiles between the cuts lie in a box."""
    middle_rows, middle_columns = ((cuts[:-1] + cuts[1:]) / 2 for cuts in (rows, columns))
    covered = np.zeros((len(middle_rows), len(middle_columns)), dtype=bool)
    for box in boxes:
        in_rows = (middle_rows > box.top) & (middle_rows < box.top + box.height)
        in_columns = (middle_columns > box.left) & (middle_columns < box.left + box.width)
        covered |= in_rows[:, None] & in_columns[None, :]
    return covered


def _measures(found: Sequence[Rectangle], truth: Sequence[Rectangle]) -> np.ndarray:
    """Return IoU, IoBB, then for each threshold whether the IoU reaches it, then the same of the IoBB."""
    both = overlap(found, truth)
    return np.array([*both, *(value >= threshold for value in both for threshold in OVERLAP_THRESHOLDS)], float)


def _mean_score(
    name: str, cases: Sequence[BoxCase], scores: Sequence[np.ndarray], of_random: Sequence[np.ndarray], seed: int
) -> BoxScore:
    num_measures = 2 + 2 * len(OVERLAP_THRESHOLDS)
    if cases:
        values, random = np.array(scores), np.mean(of_random, axis=0)
    else:
        values, random = np.full((1, num_measures), np.nan), np.full(num_measures, np.nan)
    patients = [case.patient for case in cases]
    estimates = [Estimate(value, float("nan"), float("nan")) for value in values.mean(axis=0).tolist()]
    if len(set(patients)) >= MIN_INTERVAL_PATIENTS:
        means = [
            weights @ values / weights.sum(axis=1, keepdims=True)
            for weights in resample_weights(patients, NUM_RESAMPLES, seed)
        ]
        resampled = np.concatenate(means)
        estimates = [estimate_of(one.value, resampled[:, k], True) for k, one in enumerate(estimates)]
    iou, iobb, *hits = estimates
    random_iou, random_iobb, *random_hits = random.tolist()
    half = len(OVERLAP_THRESHOLDS)
    return BoxScore(
        name,
        len(cases),
        float(np.mean([len(case.found) for case in cases])) if cases else float("nan"),
        iou,
        random_iou,
        iobb,
        random_iobb,
        tuple(hits[:half]),
        tuple(random_hits[:half]),
        tuple(hits[half:]),
        tuple(random_hits[half:]),
    )
