"""A PNG for each radiograph: the outlines of lungs and heart as grey levels, in the radiograph's own size."""

import errno
from dataclasses import replace
from pathlib import Path

from cxr.anatomy.outlines import credible_labels, labels_at
from cxr.heatmaps.overlay import encode_png
from cxr.imaging.png import is_drawn, mark_as_drawn
from cxr.imaging.radiograph import DecodedPicture
from cxr.inference.explanation import Explanation
from cxr.inference.picture_files import START_BYTES, OutputNames
from cxr.outputs.answer_writer import WithoutEnd, write_whole

LABEL_STEP = 80  # grey levels from label to label: 0 outside, 80 right lung, 160 left lung, 240 heart


class MaskFiles(WithoutEnd):
    """Writes `<picture>.png`: 0 outside, 80 right lung, 160 left lung, 240 heart; all 0 without credible lungs."""

    def __init__(self, outputs: OutputNames) -> None:
        self._outputs = outputs

    def add(self, name: str, file: Path, picture: DecodedPicture, answer: Explanation) -> list[str]:
        """Write the mask of one radiograph, whose answer has outlines; return its line.

        Raises:
            FileExistsError: a file of its name is there that is no mask, such as the radiograph itself.
        """
        path = self._outputs.claim(name)
        if path.exists() and not _was_drawn(path):
            reason = "a file that this program did not draw has that name"
            raise FileExistsError(errno.EEXIST, reason, str(path))
        credible = replace(answer.outlines, labels=credible_labels(answer.outlines))
        labels = labels_at(credible, *picture.radiograph.shape)
        write_whole(path, mark_as_drawn(encode_png(LABEL_STEP * labels)))
        said = answer.outlines.reason or "Outlines of lungs and heart."
        return [f"{said} -> {path}"]


def _was_drawn(path: Path) -> bool:
    with path.open("rb") as file:
        return is_drawn(file.read(START_BYTES))
