"""Rows of a source's table by column name, from a CSV file, plain or gzipped."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cxr.system.csv_table import TableError, read_table, records
from tools.datasets.collection import PrepareError


class SourceTable:
    """A table whose header is read and whose rows are still to come.

    Attributes:
        names: of the columns.
    """

    def __init__(self, path: Path, needed: Sequence[str] = ()) -> None:
        """Read the header.

        Args:
            needed: columns that must be there; case and blanks around a name do not matter.

        Raises:
            PrepareError: no CSV, no rows, or a needed column is missing. OSError where the file cannot be read.
        """
        self.path = path
        try:
            self._records = records(read_table(path))
            _, header = next(self._records, (1, []))
        except TableError as error:
            raise PrepareError(self._where(error.line) + str(error)) from error
        self.names = tuple(cell.strip() for cell in header)
        missing = [name for name in needed if name.lower() not in self._keys]
        if missing:
            raise PrepareError(
                f"{path.name}: no column {', '.join(missing)}. Expected {', '.join(needed)}; found "
                f"{', '.join(self.names)[:300] or 'an empty file'}. Is it the right file?"
            )

    @property
    def _keys(self) -> list[str]:
        return [name.lower() for name in self.names]

    def _where(self, line: int | None) -> str:
        return f"{self.path.name}{f' line {line}' if line else ''}: "

    def has(self, *names: str) -> bool:
        """Whether all these columns are there."""
        return all(name.lower() in self._keys for name in names)

    def place(self, name: str) -> int:
        """Return a column's position."""
        return self._keys.index(name.lower())

    def getter(self, *names: str) -> Callable[[list[str]], list[str]]:
        """Return a function from a row to the stripped cells of these columns."""
        places = [self.place(name) for name in names]
        return lambda cells: [cells[place].strip() for place in places]

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield (line, cells) of each row.

        Raises: PrepareError where a row is no CSV or has another number of cells than the header.
        """
        num_columns, num_rows = len(self.names), 0
        try:
            for line, cells in self._records:
                if len(cells) != num_columns:
                    raise PrepareError(
                        f"{self._where(line)}expected {num_columns} fields as in the header, found {len(cells)}. "
                        "Download the file again."
                    )
                num_rows += 1
                yield line, cells
        except TableError as error:
            raise PrepareError(self._where(error.line) + str(error)) from error
        if not num_rows:
            raise PrepareError(f"{self.path.name}: no rows below the header. Download the file again.")


def find_file(folder: Path, *names: str) -> Path:
    """Return the first of these files that is there, plain or as .gz; patterns such as "*.csv" are allowed.

    Raises: PrepareError naming what was looked for.
    """
    found = find_optional(folder, *names)
    if found is None:
        raise PrepareError(f"{folder}: none of {', '.join(names)} (or .gz) is there. Correct the path of the folder.")
    return found


def find_optional(folder: Path, *names: str) -> Path | None:
    """Return the first of these files that is there, None where none is."""
    for name in names:
        for pattern in (name, f"{name}.gz"):
            found = sorted(path for path in folder.glob(pattern) if path.is_file())
            if found:
                return found[0]
    return None
