"""NIH's table and lists, damaged: a line that says what and where, whatever was done to the file."""

import gzip

import pytest

from tools.datasets.collection import PrepareError
from tools.nih.tables import read_entries, read_list

TABLE = "Image Index,Finding Labels,Patient ID\n00000001_000.png,Edema|Mass,1\n00000002_000.png,No Finding,2\n"
PACKED = gzip.compress(TABLE.encode() * 50)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            TABLE.encode() + b'00000003_000.png,"' + b"x" * 140_000 + b'",3\n',
            "line 4: .*field larger than field limit",
        ),
        (PACKED[:-9], "damaged gzip file"),
        (PACKED[:20] + b"\xff" * 8 + PACKED[28:], "damaged gzip file"),
        (TABLE.encode().replace(b"Edema", b"\xff\xfe\x00"), "line 2: byte 0x00|line 2: byte 0xff"),
        (TABLE.encode() + b'"00000003_000.png,Edema,3\n', "line 4: .* not valid CSV"),
        (b"PK\x03\x04rest", "line 1: this is an Excel workbook"),
    ],
    ids=["long field", "cut gzip", "rotten gzip", "no text", "open quote", "another format"],
)
def test_a_damaged_table_ends_with_one_line(tmp_path, content, message):
    path = tmp_path / "Data_Entry.csv"
    path.write_bytes(content)
    with pytest.raises(PrepareError, match=rf"^Data_Entry\.csv.*?(?:{message})"):
        read_entries(path)


def test_a_damaged_list_ends_with_one_line(tmp_path):
    path = tmp_path / "test_list.txt"
    path.write_bytes(gzip.compress(b"00000001_000.png\n" * 9)[:-5])
    with pytest.raises(PrepareError, match=r"^test_list.txt: damaged gzip file .* Download the file again\."):
        read_list(path)


def test_whole_files_are_read_plain_and_packed(tmp_path):
    for content in (
        TABLE.encode(),
        gzip.compress(TABLE.encode()),
        b"\xef\xbb\xbf" + TABLE.replace("\n", "\r\n").encode(),
    ):
        (tmp_path / "table").write_bytes(content)
        entries = read_entries(tmp_path / "table")
        assert {name: entry.findings for name, entry in entries.items()} == {
            "00000001_000.png": {"Edema", "Mass"},
            "00000002_000.png": set(),
        }
