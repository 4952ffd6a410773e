"""Between which values the measures of known outlines lie: what the limits of credible outlines are fitted to."""

import numpy as np

from cxr.anatomy.credibility import LUNG_LIMITS, MIN_CELLS, WIDENING, measure_heart, measure_lungs
from cxr.anatomy.outlines import LEFT_LUNG, RIGHT_LUNG
from tools.anatomy.examples import HEART, LEFT, NO_HEART_KNOWN, RIGHT, Examples, Guess


def limits_of(examples: Examples) -> dict[str, tuple[float, float]]:
    """Return smallest and largest value of each measure of outlined lungs, or hearts, widened on both sides."""
    found = []
    for flags, aspect in zip(examples.flags, examples.aspects, strict=True):
        right, left, heart = (flags & flag > 0 for flag in (RIGHT, LEFT, HEART))
        hearts_known = not flags[0, 0] & NO_HEART_KNOWN
        measure = measure_heart(heart, right, left, aspect) if hearts_known else measure_lungs(right, left, aspect)
        found.append(measure)
    limits = {}
    for name in found[0]:
        values = [one[name] for one in found]
        margin = WIDENING * (max(values) - min(values))
        limits[name] = (min(values) - margin, max(values) + margin)
    return limits


def otherwise_credible(guesses: list[Guess]) -> dict[str, tuple[float, float]]:
    """Return smallest and largest value of each measure of a network's lungs whose other measures are within limits.

    Where a limit refuses what the others accept, the value says how far it would have to move.
    """
    found: dict[str, list[float]] = {name: [] for name in LUNG_LIMITS}
    for guess in guesses:
        right, left = (guess.outlines.labels == label for label in (RIGHT_LUNG, LEFT_LUNG))
        if min(np.count_nonzero(right), np.count_nonzero(left)) < MIN_CELLS:
            continue
        measures = measure_lungs(right, left, guess.aspect)
        outside = {name for name, limits in LUNG_LIMITS.items() if not limits.low <= measures[name] <= limits.high}
        for name in LUNG_LIMITS:
            if outside <= {name}:
                found[name].append(measures[name])
    return {name: (min(values), max(values)) for name, values in found.items() if values}
