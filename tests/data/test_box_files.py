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


@pytest.mark.fault("C94")
def test_boxes_that_touch_the_border_survive_being_written_in_another_frame(tmp_path):
    """520 and 3479 of 3999 pixels add up to 1024.000000000001 of 1024."""
    path, sides = tmp_path / "boxes.csv", range(100, 4000, 13)
    shares = [(x / side, (side - x) / side) for side in sides for x in (0, side // 3, side // 2, side - 1)]
    numbers = [[f"{1024 * one:.15g}" for one in pair] for pair in shares]
    assert any(float(start) + float(length) > 1024 for start, length in numbers)
    lines = [f"{k}.png,Mass,{a},{a},{b},{b}" for k, (a, b) in enumerate(numbers)]
    path.write_text("\n".join(["Image Index,Finding Label,Bbox [x,y,w,h]", *lines]) + "\n")
    for box, (start, length) in zip(read_boxes(path), shares, strict=True):
        assert (box.left, box.top) == pytest.approx((start, start), abs=1e-12)
        assert (box.width, box.height) == pytest.approx((length, length), abs=1e-12)
    path.write_text("Image Index,Finding Label,Bbox [x,y,w,h]\na.png,Mass,24,0,1000.01,4\n")
    with pytest.raises(BoxError, match="inside a 1024 x 1024 picture"):
        read_boxes(path)


@pytest.mark.fault("C87")
def test_boxes_in_pixels_of_another_picture_say_its_size_and_further_columns_are_passed_over(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],Score,Picture Width,Picture Height\n"
        "a.png,Mass,500,300,1000,150,0.7,2000,600\n"
        '\'=b.png,"Mass, left",0,0,2,1,,4,2\n'
    )
    first, second = read_boxes(path)
    assert (first.image, first.left, first.top, first.width, first.height) == ("a.png", 0.25, 0.5, 0.5, 0.25)
    assert (second.image, second.finding, second.width, second.height) == ("=b.png", "Mass, left", 0.5, 0.5)


@pytest.mark.fault("C87")
@pytest.mark.parametrize(
    ("header", "cells", "message"),
    [
        (",Score", "0.5,7", "expected 6 values"),
        (",,,", "7", "expected 6 values"),
        (",Picture Width,Picture Height", "4", "expected the picture's width and height, received 4, "),
        (",Picture Width,Picture Height", "nan,600", "expected a box inside a nan x 600 picture"),
        (",Picture Width,Picture Height", "200,2", "expected a box inside a 200 x 2 picture"),
        (",Picture Width", "2000", "expected both of Picture Width and Picture Height"),
    ],
)
def test_cells_behind_the_box_must_have_a_name_and_sizes_must_fit(tmp_path, header, cells, message):
    path = tmp_path / "boxes.csv"
    path.write_text(f"Image Index,Finding Label,Bbox [x,y,w,h]{header}\na.png,Mass,1,2,3,4,{cells}\n")
    with pytest.raises(BoxError) as error:
        read_boxes(path)
    assert message in str(error.value)


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
