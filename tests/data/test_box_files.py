"""Box files are read by the reader of the CSVs: gzip, byte order marks and line ends are no faults, lines are true."""

import gzip

import pytest

from cxr.data.boxes import BoxError, read_boxes

TEXT = "Image Index,Finding Label,Bbox [x,y,w,h],,,\na.png,Mass,0,256,512,128\n\nb.png,Infiltrate,1,2,3,4,,,\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode(),
        gzip.compress(TEXT.encode()),
        b"sep=,\n" + TEXT.encode(),
        TEXT.replace("Image Index,Finding Label", "image_index,FINDING\u00a0LABEL").encode(),
    ],
    ids=["plain", "Windows", "gzip", "sep=", "spelling"],
)
def test_boxes_are_read_however_the_file_is_written(tmp_path, content):
    path = tmp_path / "boxes.csv"
    path.write_bytes(content)
    first, second = read_boxes(path)
    assert (first.image, first.finding, first.left, first.top) == ("a.png", "Mass", 0.0, 0.25)
    assert (first.width, first.height) == (0.5, 0.125)
    assert second.finding == "Infiltrate"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TEXT.encode().replace(b"512", b"5\xff2"), "boxes.csv line 2: byte 0xff at offset"),
        (TEXT.encode() + b'"c.png,Mass\n', "boxes.csv line 5: the record that starts here is not valid CSV"),
        (TEXT.encode().replace(b"128", b"x"), "boxes.csv line 2: expected four numbers"),
        (TEXT.encode().replace(b"3,4", b"3,4000"), "boxes.csv line 4: expected a box inside"),
        (b"", "boxes.csv line 1: expected the header"),
        (b"PK\x03\x04", "boxes.csv line 1: this is an Excel workbook"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, content, message):
    path = tmp_path / "boxes.csv"
    path.write_bytes(content)
    with pytest.raises(BoxError) as error:
        read_boxes(path)
    assert message in str(error.value)
