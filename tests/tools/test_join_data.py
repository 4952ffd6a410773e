"""Joining data sets: names, rows and boxes against tables written by hand."""

import argparse
import csv

import numpy as np
import pytest

from cxr.data.boxes import read_boxes
from cxr.data.checks import check_splits
from tools import join_data
from tools.join_data import JoinError, Source, join, read_source

HEADERS = {"a": "Image,Mass,Edema,Patientid", "b": "Image,Patientid,Edema,Mass"}


def write_source(folder, kind="a", boxes=True):
    """Write a set of two images per split; the splits of kind "b" list the findings the other way round."""
    import cv2

    (folder / "images").mkdir(parents=True)
    for k, name in enumerate(("train-small.csv", "val_data.csv", "test_data.csv")):
        rows = [HEADERS[kind]]
        for j in range(2):
            image = f"{k}{j}.png"
            cv2.imwrite(str(folder / "images" / image), np.full((40, 40), 10 * k + j, np.uint8))
            rows.append(f"{image},1,{j},{k}" if kind == "a" else f"{image},{k},{j},1")
        (folder / name).write_text("\n".join(rows) + "\n")
    if boxes:
        (folder / "sample_boxes.csv").write_text("Image Index,Finding Label,Bbox [x,y,w,h],,,\n00.png,Mass,1,2,3,4\n")
    return folder


def table(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_images_and_patients_carry_their_source_and_columns_go_by_name(tmp_path):
    sources = [Source("x", write_source(tmp_path / "1")), Source("y", write_source(tmp_path / "2", "b"), (1, 2, 0))]
    lines = join(sources, tmp_path / "out")

    assert table(tmp_path / "out" / "train-small.csv") == [
        ["Image", "Patientid", "Mass", "Edema"],
        ["x/00.png", "x-0", "1", "0"],
        ["x/01.png", "x-0", "1", "1"],
        ["y/00.png", "y-0", "1", "0"],
    ]
    assert [row[0] for row in table(tmp_path / "out" / "test_data.csv")[1:]] == ["x/20.png", "x/21.png"]
    assert {box.image for box in read_boxes(tmp_path / "out" / "boxes.csv")} == {"x/00.png", "y/00.png"}
    assert "y: 1 rows of train-small.csv" in lines


def test_the_joint_set_passes_the_data_check(tmp_path):
    join([Source("x", write_source(tmp_path / "1")), Source("y", write_source(tmp_path / "2", "b"))], tmp_path / "out")
    names = [tmp_path / "out" / name for name in ("train-small.csv", "val_data.csv", "test_data.csv")]
    checked = check_splits(*names, tmp_path / "out" / "images")

    assert not checked.faults, checked.as_text()
    assert len(checked.splits["train"].images) == 4


@pytest.mark.fault("C84")
@pytest.mark.parametrize("linked", [True, False])
def test_pictures_of_an_earlier_join_make_room_for_the_ones_of_their_names(tmp_path, monkeypatch, linked):
    """Else the new table's labels would stand beside the old pictures."""
    if not linked:
        monkeypatch.setattr(join_data.os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    first, second = write_source(tmp_path / "1"), write_source(tmp_path / "2")
    kept = (first / "images" / "00.png").read_bytes()
    (second / "images" / "00.png").write_bytes(b"another picture")
    for source in (first, second, second):
        join([Source("x", source)], tmp_path / "out")
        for image in (source / "images").iterdir():
            assert (tmp_path / "out" / "images" / "x" / image.name).read_bytes() == image.read_bytes()
    assert (first / "images" / "00.png").read_bytes() == kept  # which the earlier join had linked
    (second / "images" / "00.png").unlink()
    with pytest.raises(JoinError, match=r"00\.png: no such image"):
        join([Source("x", second)], tmp_path / "out")


def test_boxes_of_images_that_are_not_taken_are_left_out(tmp_path):
    join(
        [Source("x", write_source(tmp_path / "1"), (0, 2, 2)), Source("y", write_source(tmp_path / "2"))],
        tmp_path / "o",
    )

    assert [box.image for box in read_boxes(tmp_path / "o" / "boxes.csv")] == ["y/00.png"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nih=/data/n", Source("nih", read_source("a=/data/n").folder)),
        ("p=d:10,5,0", Source("p", read_source("a=d").folder, (10, 5, 0))),
        ("p=d:e", Source("p", read_source("a=d:e").folder)),  # a colon in a folder's name
    ],
)
def test_sources_are_read_from_the_command_line(text, expected):
    assert read_source(text) == expected


@pytest.mark.parametrize("text", ["nih", "=d", "a/b=d", "a=", "a=d:1,2"])
def test_what_is_no_source_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected NAME=FOLDER"):
        read_source(text)


def test_sets_that_cannot_be_joined_are_refused(tmp_path):
    good, other = write_source(tmp_path / "1"), write_source(tmp_path / "2")
    with pytest.raises(JoinError, match="same name"):
        join([Source("x", good), Source("x", other)], tmp_path / "out")
    (other / "val_data.csv").write_text("Image,Patientid,Mass\n10.png,1,0\n")
    with pytest.raises(JoinError, match="same findings"):
        join([Source("x", good), Source("y", other)], tmp_path / "out")
    (other / "val_data.csv").write_text("Image,Patientid,Mass,Edema\nnone.png,1,0,0\n")
    with pytest.raises(JoinError, match=r"none\.png: no such image"):
        join([Source("x", good), Source("y", other)], tmp_path / "out")
    (other / "val_data.csv").unlink()
    with pytest.raises(JoinError, match="no such file"):
        join([Source("x", good), Source("y", other)], tmp_path / "out")


def test_sources_may_spell_their_headers_as_the_data_check_accepts_them(tmp_path):
    """A byte order mark, Windows line ends, NIH's "Image Index" and other spellings of a finding are one header."""
    other = write_source(tmp_path / "2", "b", boxes=False)
    for name in ("train-small.csv", "val_data.csv", "test_data.csv"):
        text = (other / name).read_text().replace("Image,Patientid", "Image Index,Patient ID").replace("Mass", "MASS")
        (other / name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    join([Source("x", write_source(tmp_path / "1")), Source("y", other)], tmp_path / "out")
    header, *rows = table(tmp_path / "out" / "train-small.csv")
    assert header == ["Image", "Patientid", "Mass", "Edema"]
    assert rows[2:] == [["y/00.png", "y-0", "1", "0"], ["y/01.png", "y-0", "1", "1"]]
