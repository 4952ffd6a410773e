"""A text file for each radiograph: the report draft."""

from pathlib import Path

from cxr.heatmaps.explanation import Explanation
from cxr.imaging.radiograph import DecodedPicture
from cxr.inference.picture_files import OutputNames
from cxr.inference.report_draft import draft_report
from cxr.network.model_info import ModelInfo
from cxr.outputs.answer_writer import WithoutEnd, write_whole


class DraftFiles(WithoutEnd):
    """Writes `<picture>-report.txt`, UTF-8."""

    def __init__(self, outputs: OutputNames, info: ModelInfo, *, chosen: bool) -> None:
        """Write below the folder of `outputs`; `chosen` as for `draft_report`."""
        self._outputs, self._info, self._chosen = outputs, info, chosen

    def add(self, name: str, file: Path, picture: DecodedPicture, answer: Explanation) -> list[str]:
        """Write the draft of one radiograph; return its line."""
        height, width = picture.radiograph.shape
        draft = draft_report(self._info, answer, picture.notices, width, height, chosen=self._chosen)
        path = self._outputs.claim(name, "report", ".txt")
        write_whole(path, draft.text.encode("utf-8", "replace"))
        return [f"-> {path}"]
