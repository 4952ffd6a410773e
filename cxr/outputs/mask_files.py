"""A PNG for each radiograph: the outlines of lungs and heart as grey levels, in the radiograph's own size."""

import errno
from dataclasses import replace
from pathlib import Path

from cxr.anatomy.outlines import credible_labels, labels_at
from cxr.heatmaps.explanation import Explanation
from cxr.heatmaps.overlay import encode_png
from cxr.imaging.png import is_drawn, mark_as_drawn, source_of_drawn
from cxr.imaging.radiograph import DecodedPicture
from cxr.inference.answer_table import place_digest
from cxr.inference.picture_files import START_BYTES, OutputNames
from cxr.outputs.answer_writer import WithoutEnd, claim_beside, write_whole

LABEL_STEP = 80  # grey levels from label to label: 0 outside, 80 right lung, 160 left lung, 240 heart


class MaskFiles(WithoutEnd):
    """Writes `<picture>.png`: 0 outside, 80 right lung, 160 left lung, 240 heart; all 0 without credible lungs."""

    def __init__(self, outputs: OutputNames) -> None:
        self._outputs = outputs

    def add(self, name: str, file: Path, picture: DecodedPicture, answer: Explanation) -> list[str]:
        """Write the mask of one radiograph, whose answer has outlines; return its line, and one for each that stays.

        Raises:
            FileExistsError: a file of its name is there that is no mask, such as the radiograph itself.
        """
        place = place_digest(file)
        path, lines = claim_beside(self._outputs, lambda path: _source_of(path) != place, name)
        credible = replace(answer.outlines, labels=credible_labels(answer.outlines))
        labels = labels_at(credible, *picture.radiograph.shape)
        write_whole(path, mark_as_drawn(encode_png(LABEL_STEP * labels), place))
        said = answer.outlines.reason or "Outlines of lungs and heart."
        return [*lines, f"{said} -> {path}"]


def _source_of(path: Path) -> str:
    """Return which radiograph a mask is of, "" where it does not say. Raises: FileExistsError for what is no mask."""
    with path.open("rb") as file:
        start = file.read(START_BYTES)
    if not is_drawn(start):
        raise FileExistsError(errno.EEXIST, "a file that this program did not draw has that name", str(path))
    return source_of_drawn(start)
