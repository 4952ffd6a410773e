"""One CSV of boxes around the hot regions of a run's heatmaps, in the format of NIH's BBox_List."""

import csv
import errno
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Self

from cxr.data.boxes import FOUND_BOXES_HEADER
from cxr.heatmaps.boxes_from_heatmaps import boxes_from_heatmap, in_pixels
from cxr.heatmaps.explanation import Explanation
from cxr.imaging.radiograph import DecodedPicture
from cxr.inference.table_columns import csv_line, harmless
from cxr.network.model_info import ModelInfo
from cxr.outputs.answer_writer import Choice
from cxr.system.atomic_files import free_name, is_in_use, replacing, use


class BoxFile:
    """Writes rows of image, finding, x, y, w, h in pixels of the upright picture, score, and the picture's size.

    The score is the finding's probability, for weaker regions times their share of the map's peak. A job that goes on
    adds to its own file. An older one of other pictures gets another name; one that is no such list is left alone.
    """

    def __init__(
        self,
        path: Path,
        info: ModelInfo,
        choose: Choice,
        *,
        finished: Collection[str] = (),
        replaced: Collection[str] = (),
    ) -> None:
        """Touch nothing yet.

        Args:
            finished: names of pictures whose boxes an unfinished job has written; not empty where it goes on.
            replaced: names of pictures that are answered, or answered again.
        """
        self._path, self._info, self._choose = path, info, choose
        self._finished, self._replaced = set(map(harmless, finished)), set(map(harmless, replaced))
        self._remarks: list[str] = []

    def __enter__(self) -> Self:
        """Open the file. Raises: OSError; FileExistsError where something else is there; EBUSY for another run's."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.is_file() and is_in_use(self._path):
            raise OSError(errno.EBUSY, "another run is writing there", str(self._path))
        if self._finished and not self._path.exists():
            missing = f"the boxes of {len(self._finished)} files done before are missing"
            self._remarks.append(f"{self._path} is gone: {missing}.")
        rows = self._older_rows()
        kept = [row for row in rows if row[0] in self._finished]
        if not self._finished and any(row[0] not in self._replaced for row in rows):
            aside = free_name(self._path)
            self._path.rename(aside)
            self._remarks.append(f"{self._path} held boxes of other pictures; it is now {aside}.")
        with replacing(self._path, durable=False) as temp, temp.open("w", newline="", encoding="utf-8") as file:
            file.writelines(map(csv_line, [FOUND_BOXES_HEADER, *kept]))
        self._file = self._path.open("a", newline="", encoding="utf-8")
        use(self._file.fileno())
        return self

    def _older_rows(self) -> list[list[str]]:
        """Read the whole rows of a list that is there already."""
        try:
            with self._path.open(newline="", encoding="utf-8") as file:
                lines = [line for line in file if line.endswith("\n")]  # a kill may have cut the last one
                header, *rows = list(csv.reader(lines)) or [[]]
        except FileNotFoundError:
            return []
        except (ValueError, csv.Error):
            header, rows = ["no CSV"], []
        if tuple(header) != FOUND_BOXES_HEADER:
            reason = "it is there already and is no list of boxes by this program"
            raise FileExistsError(errno.EEXIST, reason, str(self._path))
        return [row for row in rows if len(row) == len(header)]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, name: str, file: Path, picture: DecodedPicture, answer: Explanation) -> list[str]:
        """Write the boxes of one radiograph through to the file; return what to say of them."""
        height, width = picture.radiograph.shape
        lines = [
            csv_line(
                [
                    *(harmless(name), harmless(self._info.findings[k])),
                    *map(str, in_pixels(box, width, height)),
                    *(f"{answer.probabilities[k] * box.strength:.6f}", str(width), str(height)),
                ]
            )
            for k in self._choose(answer)
            for box in boxes_from_heatmap(answer.heatmaps[k])
        ]
        self._file.writelines(lines)
        self._file.flush()
        remarks, self._remarks = self._remarks, []
        return [*remarks, f"boxes: {len(lines)} -> {self._path}"]
