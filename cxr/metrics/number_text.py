"""How probabilities, thresholds and shares are written wherever people read them: shell, pages, pictures, reports.

As few decimals as show on which side of its threshold a probability lies, and nothing is written as certain.
"""

import numpy as np

MAX_DIGITS = 9  # decimals that tell any two probabilities in single precision apart


def shortest_decimal(value: float) -> float:
    """Return the shortest decimal that stands for the same float32: whatever is compared by it, or sorted, stays so."""
    return float(str(np.float32(value)))


def fixed(value: float, digits: int = 2) -> str:
    """Write a number with this many decimals."""
    return f"{value:.{digits}f}"


def exact(value: float) -> str:
    """Write a number as the list of what a sentence comes from has it."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def probability_by(value: float, *limits: float | None) -> str:
    """Write a probability with as many decimals as show on which side of each limit it lies, and with two at least."""
    digits = max((num_decimals(value, limit) for limit in limits if limit is not None), default=2)
    return probability(value) if digits == 2 else fixed(value, digits)


def probability_beside(value: float, limit: float) -> tuple[str, str]:
    """Write a probability and its threshold with as many decimals as show which is larger, and with two at least."""
    digits = num_decimals(value, limit)
    return probability(value) if digits == 2 else fixed(value, digits), fixed(limit, digits)


def threshold_beside(limit: float, value: float) -> str:
    """Write a threshold as it stands beside a probability."""
    return probability_beside(value, limit)[1]


def threshold(value: float) -> str:
    """Write a threshold; never as 0 or 1, unless it is."""
    return fixed(value, num_decimals(value, value))


def num_decimals(value: float, limit: float) -> int:
    """Return how many decimals tell a value from its limit, and the limit from 0 and 1."""
    value, limit = float(value), float(limit)  # rounded, a float32 would differ from the same float64
    for digits in range(2, MAX_DIGITS):
        shown, shown_limit = round(value, digits), round(limit, digits)
        told_apart = (shown > shown_limit) == (value > limit) and (shown < shown_limit) == (value < limit)
        if told_apart and (shown_limit in (0, 1)) == (limit in (0, 1)):
            return digits
    return MAX_DIGITS


def probability(value: float) -> str:
    """Write a probability with two decimals; never as a bare 0 or 1, which would claim to be certain."""
    return "<0.01" if value < 0.005 else ">0.99" if value >= 0.995 else fixed(value)


def percent(share: float) -> str:
    """Write a share of 1; what is almost nothing or almost all is not written as nothing or all."""
    whole = round(100 * share)
    if whole == 0 and share > 0:
        return "<1 %"
    if whole == 100 and share < 1:
        return ">99 %"
    return f"{whole} %"
