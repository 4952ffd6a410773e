"""Read comma-separated tables: bytes of a file -> UTF-8 text -> records with their line numbers.

Plain or gzipped, with or without a byte order mark and Excel's first line `sep=,`. Knows nothing of columns.
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from cxr.system.file_search import SPECIAL_FILE, is_special

MAX_TABLE_BYTES = 2**29  # of text; 500,000 rows of 174 findings are 190 MB. Stops a gzip bomb
GZIP_MARK = b"\x1f\x8b"
SEPARATOR_LINE = re.compile(rb'"?sep=(.)"?[\r\n]', re.IGNORECASE)
LINE_END = re.compile(rb"\r\n|\r|\n")
SAVE_AS_CSV = "In Excel: Save as, CSV UTF-8 (comma delimited); pandas: read_excel(...).to_csv(..., index=False)."
# First bytes of files that are no text, what they are and what to do.
OTHER_FORMATS = (
    (b"PK\x03\x04", "an Excel workbook (.xlsx) or a ZIP archive", f"Unpack it, or save it as CSV. {SAVE_AS_CSV}"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)", f"Save it as CSV. {SAVE_AS_CSV}"),
    (b"PAR1", "a Parquet file", "Save it as CSV (pandas: read_parquet(...).to_csv(..., index=False))."),
    (b"\x89HDF", "an HDF5 file", "Save the table as CSV."),
    (b"BZh", "a bzip2 file", "Unpack it (bunzip2), or give it gzipped."),
    (b"\xfd7zXZ", "an xz file", "Unpack it (unxz), or give it gzipped."),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", "Unpack it (unzstd), or give it gzipped."),
    (b"\xff\xfe\0\0", "UTF-32 text (byte order mark at offset 0)", "Save the file as UTF-8."),
    (b"\0\0\xfe\xff", "UTF-32 text (byte order mark at offset 0)", "Save the file as UTF-8."),
    (b"\xff\xfe", "UTF-16 text (byte order mark at offset 0)", "Save the file as UTF-8."),
    (b"\xfe\xff", "UTF-16 text (byte order mark at offset 0)", "Save the file as UTF-8."),
)


class TableError(ValueError):
    """A file that is no comma-separated UTF-8 text, or a record of it that is no CSV.

    Attributes:
        kind: "encoding", "separator" or "syntax".
        line: where in the file, None where no line is meant.
    """

    def __init__(self, kind: str, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.kind, self.line = kind, line


def read_table(path: Path) -> bytes:
    """Return a table's text as UTF-8 without byte order mark, unpacked where it is gzipped.

    Raises:
        TableError: it is a pipe or a device, no UTF-8 text, a damaged gzip file, or larger than MAX_TABLE_BYTES.
        OSError: it cannot be read.
    """
    if is_special(path):
        raise TableError("encoding", f"this is {SPECIAL_FILE}, expected comma-separated text. Save it as a file.")
    data = path.read_bytes() if path.stat().st_size <= MAX_TABLE_BYTES else b""
    if data.startswith(GZIP_MARK):
        data = _unpacked(data)
    if len(data) > MAX_TABLE_BYTES or (not data and path.stat().st_size):
        limit = f"{MAX_TABLE_BYTES // 2**20} MiB"
        raise TableError("encoding", f"the table is larger than {limit} of text. Split it, or drop columns.")
    for mark, what, cure in OTHER_FORMATS:
        if data.startswith(mark):
            raise TableError("encoding", f"this is {what}, expected comma-separated text. {cure}", 1)
    _check_utf8(data)
    return data.removeprefix(b"\xef\xbb\xbf")


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return column -> cell for each record of a table whose columns are known to be there.

    Raises:
        TableError: as `read_table` and `records`.
        OSError: it cannot be read.
    """
    header, *rows = [cells for _, cells in records(read_table(path))] or [[]]
    return [dict(zip(header, row, strict=False)) for row in rows]


def _unpacked(data: bytes) -> bytes:
    """Unpack a gzip file, at most one byte more than is allowed."""
    try:
        with gzip.open(io.BytesIO(data)) as file:
            return file.read(MAX_TABLE_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TableError("encoding", f"damaged gzip file ({error}). Fetch or pack it again.") from error


def _check_utf8(data: bytes) -> None:
    """Refuse what is no UTF-8 text, with line and offset of its first faulty byte."""
    try:
        data.decode("utf-8")
        offset = data.find(b"\0")
    except UnicodeDecodeError as error:
        offset = error.start
    if offset >= 0:
        line = len(LINE_END.findall(data[:offset])) + 1
        found = f"byte 0x{data[offset]:02x} at offset {offset} is not UTF-8 text"
        raise TableError("encoding", f"{found}. Save the file as UTF-8 without binary data.", line)


def records(data: bytes) -> Iterator[tuple[int, list[str]]]:
    """Yield (first line, cells) of each record that is not blank.

    Args:
        data: of `read_table`.

    Raises:
        TableError: a record is no CSV, or the file says that its cells are not separated by commas.
    """
    num_skipped = 0
    if match := SEPARATOR_LINE.match(data):
        if match[1] != b",":
            separator = match[1].decode("latin-1")
            message = f"the first line says that cells are separated by {separator!r}. Save the file with commas."
            raise TableError("separator", message, 1)
        num_skipped = 1
    # newline="" leaves line ends inside quoted cells as they are, and takes LF, CRLF and bare CR alike.
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline="")
    for _ in range(num_skipped):
        text.readline()
    reader = csv.reader(text, strict=True, skipinitialspace=True)
    while True:
        line = reader.line_num + num_skipped + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            message = f"the record that starts here is not valid CSV ({error}). Check its quotes; reading stopped."
            raise TableError("syntax", message, line) from error
        if len(cells) > 1 or (cells and cells[0].strip()):
            yield line, cells
