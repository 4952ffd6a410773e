"""Many files through one model: a few are answered ahead in threads, and a table grows with every answer and resumes.

Owns predictions.csv and the note beside it that says which job an unfinished table belongs to.
"""

import csv
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from cxr.imaging.limits import ImageError

TABLE_NAME = "predictions.csv"
NOTE_NAME = ".predictions-unfinished.json"  # there only while a job is going on, or after it was killed
NUM_AHEAD = 4  # radiographs in memory for each thread

T = TypeVar("T")


def work_ahead(files: Sequence[Path], work: Callable[[Path], T]) -> Iterator[tuple[int, T | ImageError | OSError]]:
    """Yield (position, result or why the file has none) in order, a few files worked on ahead in threads."""
    workers = os.cpu_count() or 1

    def attempt(file: Path) -> T | ImageError | OSError:
        try:
            return work(file)
        except (ImageError, OSError) as error:
            return error

    with ThreadPoolExecutor(workers, thread_name_prefix="ahead") as pool:
        pending: deque[Future] = deque()
        waiting = iter(files)
        try:
            for position in range(len(files)):
                while len(pending) < NUM_AHEAD * workers and (file := next(waiting, None)) is not None:
                    pending.append(pool.submit(attempt, file))
                yield position, pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


class AnswerTable:
    """predictions.csv, one row per answered file, written through at once.

    A job that was killed goes on when it is started again with the same model and options: `finished` then names the
    files that need no second answer. A finished job leaves no note behind and starts anew.

    Attributes:
        finished: names whose row is there and whose file has not changed since the job began.
    """

    def __init__(self, folder: Path, findings: Sequence[str], job: dict[str, Any], files: dict[str, Path]) -> None:
        """Open the table, with the rows of an unfinished job of the same kind.

        Args:
            job: JSON values that determine the answers and the pictures; another job starts anew.
            files: name in the table -> file, in the order wanted.
        Raises:
            OSError: the folder cannot be written.
        """
        self._path, self._note = folder / TABLE_NAME, folder / NOTE_NAME
        self._header, self._order = ["Image", *findings], {name: position for position, name in enumerate(files)}
        folder.mkdir(parents=True, exist_ok=True)
        rows = self._unfinished_rows(job, files)
        self.finished = frozenset(row[0] for row in rows)
        if rows:
            self._rewrite(rows)
        else:
            self._note.unlink(missing_ok=True)
            self._rewrite([])
            self._note.write_text(json.dumps(job), encoding="utf-8")
        self._file = self._path.open("a", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)

    def _unfinished_rows(self, job: dict[str, Any], files: dict[str, Path]) -> list[list[str]]:
        """Read the rows that an unfinished job of the same kind left and that still hold."""
        try:
            if json.loads(self._note.read_text(encoding="utf-8")) != job:
                return []
            began = self._note.stat().st_mtime_ns
            with self._path.open(newline="", encoding="utf-8") as file:
                lines = [line for line in file if line.endswith("\n")]  # a kill may have cut the last one
        except (FileNotFoundError, ValueError):
            return []
        rows = list(csv.reader(lines))
        if not rows or rows[0] != self._header:
            return []
        # Pictures of files that share a stem are numbered in the files' order: such files are all done again.
        stems = Counter(_stem(name) for name in files)
        return [
            row
            for row in rows[1:]
            if len(row) == len(self._header)
            and row[0] in files
            and stems[_stem(row[0])] == 1
            and _last_change(files[row[0]]) < began
        ]

    def add(self, name: str, probabilities: np.ndarray) -> None:
        """Write one answer, float (findings,), through to the file."""
        self._writer.writerow([name, *(f"{probability:.6f}" for probability in probabilities)])
        self._file.flush()

    def finish(self) -> None:
        """Bring the rows into the files' order, and let the next job start anew."""
        self._file.close()
        if self.finished:
            with self._path.open(newline="", encoding="utf-8") as file:
                _, *rows = csv.reader(file)
            self._rewrite(sorted(rows, key=lambda row: self._order[row[0]]))
        self._note.unlink(missing_ok=True)

    def _rewrite(self, rows: list[list[str]]) -> None:
        temp = self._path.with_name(f".{TABLE_NAME}.tmp")
        with temp.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([self._header, *rows])
        temp.replace(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self._file.close()


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix("")).casefold()


def _last_change(file: Path) -> int:
    """Time of the last change of a file's content or of its place, in nanoseconds."""
    try:
        status = file.stat()
    except OSError:
        return 2**63  # gone: whoever asks will hear so
    return max(status.st_mtime_ns, status.st_ctime_ns)
