"""Many files through one model: a few are answered ahead in threads, and a table grows with every answer and resumes.

Owns predictions.csv and the two notes beside it: which job an unfinished table belongs to, and of which files it is.
"""

import csv
import errno
import hashlib
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from cxr.imaging.limits import ImageError
from cxr.inference.picture_files import stem_of
from cxr.inference.table_columns import csv_line, harmless
from cxr.system.atomic_files import free_name, replacing
from cxr.system.file_search import SPECIAL_FILE, is_special

TABLE_NAME = "predictions.csv"
NOTE_NAME = ".predictions-unfinished.json"  # there only while a job is going on, or after it was killed
SOURCES_NAME = ".predictions-files.json"  # name in the table -> digest of the file's place
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
    files that need no second answer. A finished job leaves its table, to which a job for other files adds; where the
    two do not go together, or the table holds what no job wrote, it gets another name. Files that are answered again
    are replaced.

    Attributes:
        finished: names whose row is there and whose file is the one that was answered.
        marks: name -> what tells its pictures from those of another file that must stay; only where that is needed.
        remark: a sentence on what became of an older table, "" where there is nothing to say.
    """

    def __init__(self, folder: Path, header: Sequence[str], job: dict[str, Any], files: dict[str, Path]) -> None:
        """Open the table, with the rows of an unfinished job of the same kind and those of other files.

        Args:
            header: of the columns; the first names the file, the last the model.
            job: JSON values that determine the answers and the pictures; another job starts anew.
            files: name in the table -> file, in the order wanted.
        Raises:
            OSError: the folder cannot be written, or the table's name belongs to a pipe or a device.
        """
        self._path, self._note = folder / TABLE_NAME, folder / NOTE_NAME
        self._header, self._cells = list(header), {harmless(name): name for name in files}
        self._order = {cell: position for position, cell in enumerate(self._cells)}
        self.remark, self._kept = "", []
        folder.mkdir(parents=True, exist_ok=True)
        # Taken once: a file that changes between two looks would be noted as the one that was answered.
        entries = {name: _entry_digest(file) for name, file in files.items()}
        rows = self._unfinished_rows(job, entries)
        self.finished = frozenset(self._cells[row[0]] for row in rows if row[0] in self._cells)
        if not rows:
            self._note.unlink(missing_ok=True)
            rows = self._rows_of_others(folder / SOURCES_NAME, job["model"], files)
        kept_stems = set(map(_stem, self._kept))
        self.marks = {name: place_digest(file) for name, file in files.items() if _stem(name) in kept_stems}
        self._rewrite(rows)
        # Behind the table: where the note is missing after a kill, all is answered again.
        _write_json(self._note, {"job": job, "kept": self._kept, "entries": entries})
        self._file = self._path.open("a", newline="", encoding="utf-8")

    def _unfinished_rows(self, job: dict[str, Any], entries: dict[str, str]) -> list[list[str]]:
        """Read the rows that an unfinished job of the same kind left and that still hold, and those of other files.

        Args:
            entries: name -> `_entry_digest` of its file, as it is now.
        """
        note = _read_json(self._note)
        header, rows, _ = self._read()
        if note.get("job") != job or header != self._header:
            return []
        self._kept, answered = note["kept"], note.get("entries", {})
        # Pictures of files that share a stem are numbered in the files' order: such files are all done again.
        stems = Counter(map(_stem, entries))

        def holds(row: list[str]) -> bool:
            name = self._cells.get(row[0])
            return name is None or (stems[_stem(name)] == 1 and answered.get(name) == entries[name])

        return [row for row in rows if holds(row)]

    def _rows_of_others(self, sources_path: Path, model: str, files: dict[str, Path]) -> list[list[str]]:
        """Return the rows of an older table that are of other files; an older table that does not fit is renamed."""
        old_header, rows, only_answers = self._read()
        if not only_answers:
            self._put_aside("other things than answers of this program")
            rows = []
        old_sources = _read_json(sources_path)
        sources = {harmless(name): place_digest(file) for name, file in files.items()}

        def is_of_another(cell: str) -> bool:
            """Names begin below the folder that a job's files share: the same one may stand for another file."""
            return cell not in sources or old_sources.get(cell, sources[cell]) != sources[cell]

        others = [row for row in rows if is_of_another(row[0])]
        self._kept = [row[0].removeprefix("'") for row in others]
        fits = old_header == self._header and all(row[0] not in sources and row[-1] == model for row in others)
        if others and fits:
            self.remark = f"{self._path} holds answers for {len(others)} other files; they stay in it."
            sources |= {row[0]: old_sources[row[0]] for row in others if row[0] in old_sources}
        elif others:
            self._put_aside("answers for other files")
            others = []
        _write_json(sources_path, sources)
        return others

    def _put_aside(self, held: str) -> None:
        aside = free_name(self._path)
        self._path.rename(aside)
        self.remark = f"{self._path} held {held}; it is now {aside}."

    def _read(self) -> tuple[list[str], list[list[str]], bool]:
        """Read header and rows of the table, and whether nothing but answers is in it; empty where there is none."""
        try:
            if is_special(self._path):
                raise OSError(errno.EINVAL, f"{SPECIAL_FILE} has that name", str(self._path))
            with self._path.open(newline="", encoding="utf-8") as file:
                lines = file.readlines()
            if lines[1:] and not lines[-1].endswith("\n"):
                lines.pop()  # cut by a kill; the header is never, which is written together with a file
            header, *rows = list(csv.reader(lines)) or [[]]
        except FileNotFoundError:
            return [], [], True
        except (ValueError, csv.Error):  # no UTF-8, no CSV
            return [], [], False
        ends = (header[0], header[-1]) if header else None
        only_answers = not lines or (ends == (self._header[0], self._header[-1]))
        whole = [row for row in rows if len(row) == len(header)]
        return header, whole, only_answers and len(whole) == len(rows)

    def add(self, row: Sequence[str]) -> None:
        """Write one answer through to the file."""
        self._file.write(csv_line(row))
        self._file.flush()

    def finish(self) -> None:
        """Bring the rows into the files' order, behind those of other files, and let the next job start anew."""
        self._file.close()
        if self.finished:
            self._rewrite(sorted(self._read()[1], key=lambda row: self._order.get(row[0], -1)))
        self._note.unlink(missing_ok=True)

    def _rewrite(self, rows: list[list[str]]) -> None:
        with replacing(self._path, durable=False) as temp, temp.open("w", newline="", encoding="utf-8") as file:
            file.writelines(map(csv_line, [self._header, *rows]))

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
    return stem_of(name).casefold()


def place_digest(file: Path) -> str:
    """Tell files apart by where they lie, without writing it down."""
    return hashlib.blake2b(os.fsencode(os.path.realpath(file)), digest_size=4).hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with replacing(path, durable=False) as temp:
        temp.write_text(json.dumps(content), encoding="utf-8")


def _entry_digest(file: Path) -> str:
    """Hash what the system knows of a file; it differs after a change of the content or the place, by any clock."""
    try:
        status = file.stat()
    except OSError:  # gone: whoever asks will hear so
        return ""
    entry = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return hashlib.blake2b(repr(entry).encode(), digest_size=8).hexdigest()
