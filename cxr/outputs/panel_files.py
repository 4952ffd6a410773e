"""A PNG for each radiograph: the radiograph, its overlays and all probabilities. Imports Matplotlib."""

from pathlib import Path

import numpy as np

from cxr.anatomy.cardiothoracic import cardiothoracic_ratio
from cxr.anatomy.polygons import polygons_of
from cxr.heatmaps.explanation import INPUT_CHECK_WARNING, Explanation, common_peak, describe_heatmap
from cxr.heatmaps.overlay import overlay_heatmap
from cxr.heatmaps.panel import CaptionedOverlay, Lines, draw_panel
from cxr.imaging.png import mark_as_drawn
from cxr.imaging.radiograph import DecodedPicture
from cxr.inference.picture_files import OutputNames
from cxr.network.model_info import ModelInfo
from cxr.outputs.answer_writer import Choice, WithoutEnd, write_whole


class PanelFiles(WithoutEnd):
    """Writes `<picture>-panel.png`."""

    def __init__(self, outputs: OutputNames, info: ModelInfo, choose: Choice, *, own_peak: bool) -> None:
        """Write below the folder of `outputs`; `own_peak` as for the overlays alone."""
        self._outputs, self._info, self._choose, self._own_peak = outputs, info, choose, own_peak

    def add(self, name: str, file: Path, picture: DecodedPicture, answer: Explanation) -> list[str]:
        """Write the panel of one radiograph; return its line."""
        peak = None if self._own_peak else common_peak(answer.heatmaps)
        captioned = [
            CaptionedOverlay(
                overlay_heatmap(picture.radiograph, answer.heatmaps[k], peak=peak),
                k,
                describe_heatmap(answer.heatmaps[k], float(answer.logits[k])),
                "" if answer.places[k] is None else f"most heat: {answer.places[k].words}",
            )
            for k in self._choose(answer)
        ]
        warning = INPUT_CHECK_WARNING if answer.fails_input_check else ""
        lines = _lines(answer, *picture.radiograph.shape)
        panel_png = draw_panel(
            name, picture.radiograph, captioned, answer.probabilities, self._info, warning, peak, lines
        )
        path = self._outputs.claim(name, "panel")
        write_whole(path, mark_as_drawn(panel_png))
        return [f"-> {path}"]


def _lines(answer: Explanation, height: int, width: int) -> Lines:
    """Return what the panel draws of lungs and heart, as far as they are credible."""
    if answer.outlines is None:
        return Lines()
    outlines = [polygon for polygons in polygons_of(answer.outlines).values() for polygon in polygons]
    ratio = cardiothoracic_ratio(answer.outlines, width, height)
    if ratio is None:
        return Lines(outlines, (), answer.outlines.reason or "")
    size = np.array([width, height])
    widths = [np.array([[left, y], [right, y]]) / size for left, right, y in (ratio.heart, ratio.thorax)]
    return Lines(outlines, widths, f"heart {ratio.ratio:.2f} of the thorax's width")
