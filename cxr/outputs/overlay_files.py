"""A PNG for each finding that a run shows: its heatmap over the radiograph."""

from pathlib import Path

from cxr.heatmaps.explanation import Explanation, common_peak, describe_heatmap
from cxr.heatmaps.overlay import encode_png, overlay_heatmap
from cxr.imaging.png import mark_as_drawn
from cxr.imaging.radiograph import DecodedPicture
from cxr.inference.picture_files import OutputNames
from cxr.metrics.number_text import probability_beside
from cxr.network.model_info import ModelInfo
from cxr.outputs.answer_writer import Choice, WithoutEnd, write_whole


class OverlayFiles(WithoutEnd):
    """Writes `<picture>-<finding>.png`, the radiograph's own size."""

    def __init__(self, outputs: OutputNames, info: ModelInfo, choose: Choice, *, own_peak: bool) -> None:
        """Write below the folder of `outputs`.

        Args:
            own_peak: stretch the colours of each heatmap to its own peak; else all of a picture share one scale.
        """
        self._outputs, self._info, self._choose, self._own_peak = outputs, info, choose, own_peak

    def add(self, name: str, file: Path, picture: DecodedPicture, answer: Explanation) -> list[str]:
        """Write the overlays of one radiograph; return a line for each."""
        info, lines = self._info, []
        peak = None if self._own_peak else common_peak(answer.heatmaps)
        for k in self._choose(answer):
            overlay = overlay_heatmap(picture.radiograph, answer.heatmaps[k], peak=peak)
            path = self._outputs.claim(name, info.findings[k])
            write_whole(path, mark_as_drawn(encode_png(overlay)))
            scale = describe_heatmap(answer.heatmaps[k], float(answer.logits[k]))
            probability, threshold = probability_beside(answer.probabilities[k], info.threshold)
            lines.append(f"{info.findings[k]} {probability} (threshold {threshold}), {scale} -> {path}")
        return lines
