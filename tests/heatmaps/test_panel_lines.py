"""Lines over the panel's pictures: in the place and the number of pictures that were asked for."""

import cv2
import numpy as np
import pytest

from cxr.heatmaps.panel import CaptionedOverlay, Lines, draw_panel
from cxr.network.model_info import ModelInfo

RADIOGRAPH = np.full((100, 100), 90, np.uint8)
SQUARE = np.array([[0.2, 0.4], [0.6, 0.4], [0.6, 0.8], [0.2, 0.8]])
WIDTH = np.array([[0.1, 0.2], [0.9, 0.2]])


def panel(lines):
    overlays = [CaptionedOverlay(np.repeat(RADIOGRAPH[..., None], 3, axis=2), 0, "", "most heat: heart")]
    data = draw_panel("x", RADIOGRAPH, overlays, np.array([0.4]), ModelInfo(("Mass",), 64), lines=lines)
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).astype(int)


def pictures(image):
    """Return (left, top, width, height) of each radiograph, of one grey."""
    grey = (np.abs(image - 90) <= 1).all(axis=2).astype(np.uint8)
    _, _, boxes, _ = cv2.connectedComponentsWithStats(grey)
    return sorted(tuple(box[:4]) for box in boxes[1:] if box[cv2.CC_STAT_AREA] > 10_000)


@pytest.mark.parametrize(
    ("lines", "drawn_in"), [(Lines([SQUARE]), [0, 1]), (Lines((), [WIDTH]), [0])], ids=["outlines", "widths"]
)
def test_lines_are_drawn_in_their_place(lines, drawn_in):
    bare = panel(Lines())
    changed = np.abs(panel(lines) - bare).max(axis=2) > 8
    frames = pictures(bare)
    assert len(frames) == 2
    shape = (lines.outlines or lines.widths)[0]
    for k, (left, top, width, height) in enumerate(frames):
        inside = np.argwhere(changed[top : top + height, left : left + width])[:, ::-1] / (width, height)
        assert (len(inside) > 0) == (k in drawn_in)
        if k in drawn_in:
            # A line's own width and its end marks reach a little further.
            np.testing.assert_allclose(inside.min(axis=0), shape.min(axis=0), atol=0.03)
            np.testing.assert_allclose(inside.max(axis=0), shape.max(axis=0), atol=0.03)
