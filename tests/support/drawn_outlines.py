"""Outlines that were drawn, and a stand-in for the outline model that answers with them."""

import numpy as np
from lung_shapes import chest, probabilities

from cxr.anatomy.outlines import Outlines, outlines_from

GRID = 96


def drawn_outlines() -> Outlines:
    """Two lungs and a heart, all credible."""
    outlines = outlines_from(probabilities(chest(GRID)))
    assert outlines.heart_credible
    return outlines


class DrawnOutlines:
    """Stands for the outline model: every radiograph has the same outlines."""

    class info:
        digest = "0a" * 32

    def __init__(self, outlines: Outlines | None = None) -> None:
        self.outlines = outlines or drawn_outlines()

    def outline(self, radiograph: np.ndarray) -> Outlines:
        return self.outlines
