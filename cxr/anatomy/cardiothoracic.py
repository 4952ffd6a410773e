"""The cardiothoracic ratio: how wide the heart is beside the thorax, from the outlines of a frontal radiograph.

Defined by Danzer (1919, "The cardiothoracic ratio: an index of cardiac enlargement", Am J Med Sci 157:513): the
greatest transverse diameter of the heart, from its rightmost to its leftmost point wherever these lie, over the
greatest internal diameter of the thorax, here from outer edge to outer edge of the lungs on one level. An AP view and a
shallow breath both enlarge it.
"""

from dataclasses import dataclass

import numpy as np

from cxr.anatomy.outlines import LEFT_LUNG, RIGHT_LUNG, Outlines


@dataclass(frozen=True)
class CardiothoracicRatio:
    """A ratio and the two horizontal lines that it is measured along.

    Attributes:
        ratio: heart's width over the thorax's.
        heart, thorax: (left, right, y) of each line, in pixels of the picture from its upper left corner.
    """

    ratio: float
    heart: tuple[float, float, float]
    thorax: tuple[float, float, float]


def cardiothoracic_ratio(outlines: Outlines, width: int, height: int) -> CardiothoracicRatio | None:
    """Measure the ratio on a picture of `width` x `height` pixels.

    Returns: None where lungs or heart are not credible, or where the thorax goes on beyond a side of the picture.
    """
    if not (outlines.lungs_credible and outlines.heart_credible):
        return None
    labels = outlines.labels
    heart_columns, heart_rows = np.flatnonzero(outlines.heart.any(axis=0)), _span(outlines.heart)
    lungs = _span(labels == RIGHT_LUNG), _span(labels == LEFT_LUNG)
    across = lungs[1][1] - lungs[0][0]  # from the right lung's outer edge to the left lung's; NaN without both
    if len(heart_columns) == 0 or np.isnan(across).all():
        return None
    left, right = float(heart_columns[0]), float(heart_columns[-1] + 1)
    # The line lies between the levels of the two outermost points; each is the middle of the rows that reach as far.
    levels = [_middle(heart_rows[0] == left), _middle(heart_rows[1] == right)]
    widest = np.flatnonzero(across == np.nanmax(across))
    row = int(widest[len(widest) // 2])
    if lungs[0][0][row] == 0 or lungs[1][1][row] == labels.shape[1]:
        return None
    x, y = width / labels.shape[1], height / labels.shape[0]
    return CardiothoracicRatio(
        ratio=(right - left) / float(across[row]),
        heart=(left * x, right * x, (sum(levels) / 2) * y),
        thorax=(float(lungs[0][0][row]) * x, float(lungs[1][1][row]) * x, (row + 0.5) * y),
    )


def _span(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's first and behind its last column in a mask, (h,) each; NaN where a row has none."""
    some = mask.any(axis=1)
    first, last = mask.argmax(axis=1), mask.shape[1] - mask[:, ::-1].argmax(axis=1)
    return np.where(some, first, np.nan), np.where(some, last, np.nan)


def _middle(rows: np.ndarray) -> float:
    """Return the middle of the rows that are marked, as a distance from the upper edge."""
    return float(np.flatnonzero(rows).mean() + 0.5)
