"""Images under another name or in another folder than the table says."""

from pathlib import Path

import pytest
from tables import HEADER, check, messages

from cxr.data.boxes import Box, with_file_names
from cxr.data.checks import DataCheck
from cxr.system.file_search import search

# Image names


def spelled_otherwise(folder: Path, files: str, listed: str, **options) -> DataCheck:
    """Check a project whose files are called `files` and listed as `listed`, {} being a1, a2, b1 and so on."""
    for letter in "abc":
        for number in (1, 2):
            path = folder / "images" / files.format(f"{letter}{number}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")

    def text(letter, patient):
        names = [listed.format(f"{letter}{row}") for row in (1, 2)]
        return HEADER + f"{names[0]},0,1,{patient}1\n{names[1]},1,0,{patient}2\n"

    return check(folder, everywhere=text, image_dir=folder / "images", **options)


@pytest.mark.fault("C63")
@pytest.mark.parametrize(
    ("files", "listed", "difference"),
    [
        ("images_001/images/{}.png", "{}.png", "images_001/images and are read from there: give --image-dir"),
        ("p10/{}/x.jpg", "files/p10/{}/x.jpg", "in other folders than the CSV says"),
        ("set1/{}.png", "set1\\{}.png", "back-slashes"),
        ("{}.png", "C:\\data\\{}.png", "back-slashes instead of / in the CSV; another folder"),
        ("{}.png", "{}", "no extension in the CSV, .png in the folder"),
        ("{}.dicom", "{}", "no extension in the CSV, .dicom in the folder"),
        ("{}.jpg", "{}.png", ".png in the CSV, .jpg in the folder"),
        ("{}.png", "{}.PNG", "other upper and lower case"),
        ("Train/{}.jpeg", "train/{}.jpeg", "other upper and lower case"),
        ("deep/er/{}.PNG", "{}", "no extension in the CSV, .PNG in the folder; another folder"),
    ],
)
def test_images_under_another_name_are_found_and_the_difference_said_once(tmp_path, files, listed, difference):
    result = spelled_otherwise(tmp_path, files, listed)
    assert result.exit_code == 0, result.as_text()
    assert result.splits["test"].images == (files.format("c1"), files.format("c2"))
    found = messages(result, "found elsewhere")
    assert len(found) == 3
    assert all(message.startswith("2 of 2 images") and difference in message for message in found)
    assert not any("\\\\" in message for message in found)  # a back-slash is shown as one
    assert result.num_unlisted == 0
    # Boxes are named as the CSV names the pictures.
    boxes = [Box(listed.format("c1"), "Edema", 0.1, 0.2, 0.3, 0.4), Box("other.png", "Edema", 0.1, 0.2, 0.3, 0.4)]
    assert [box.image for box in with_file_names(boxes, result.found["train"])] == [files.format("c1"), "other.png"]


@pytest.mark.fault("C63")
def test_a_name_that_two_files_could_mean_stays_missing(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / "images" / folder).mkdir(parents=True)
        (tmp_path / "images" / folder / "a1.png").write_bytes(b"")
    result = spelled_otherwise(tmp_path, "set/{}.png", "set/{}.png")
    assert result.problems == ()
    (tmp_path / "images" / "set" / "a1.png").unlink()
    result = spelled_otherwise(tmp_path, "set/b{}.png", "set/{}.png")
    assert "missing image" in {problem.kind for problem in result.faults}


@pytest.mark.fault("C63")
def test_one_file_is_not_two_images(tmp_path):
    result = check(
        tmp_path, HEADER + "x.png,0,1,11\nx.jpg,1,0,12\ny,0,1,13\nY,1,0,14\n", image_dir=image_folder(tmp_path)
    )
    assert [(problem.kind, problem.line) for problem in result.faults] == [
        ("missing image", 3), ("missing image", 4), ("missing image", 5),
    ]  # fmt: skip


def image_folder(folder: Path) -> Path:
    (folder / "images").mkdir()
    for name in ("x.png", "y.png", "b1.png", "b2.png", "c1.png", "c2.png"):
        (folder / "images" / name).write_bytes(b"")
    return folder / "images"


@pytest.mark.fault("C63")
def test_files_behind_links_that_lead_outside_are_not_taken(tmp_path):
    images = image_folder(tmp_path)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a1.png").write_bytes(b"")
    (images / "sub").mkdir()
    (images / "sub" / "a1.png").symlink_to(tmp_path / "outside" / "a1.png")
    (images / "linked").symlink_to(tmp_path / "outside")
    result = check(tmp_path, HEADER + "a1.png,0,1,11\nx.png,1,0,12\n", image_dir=images)
    assert [(problem.kind, problem.line) for problem in result.faults] == [("missing image", 2)]


@pytest.mark.fault("C63")
def test_files_of_one_name_in_many_folders_are_told_apart_by_their_folders(tmp_path):
    """CheXpert's files are all called view1_frontal.jpg."""
    names = [f"patient{number:03}/study{number % 3}/view1_frontal.jpg" for number in range(60)]
    for name in names:
        (tmp_path / "deep" / "down" / name).parent.mkdir(parents=True)
        (tmp_path / "deep" / "down" / name).write_bytes(b"")
    found = search(tmp_path, names, ())
    assert {name: one.path for name, one in found.items()} == {name: f"deep/down/{name}" for name in names}
    assert search(tmp_path, ["patient999/study1/view1_frontal.jpg"], ()) == {}
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "patient000" / "study1").mkdir(parents=True)
    (tmp_path / "only" / "patient000" / "study1" / "view1_frontal.jpg").write_bytes(b"")
    listed = [f"patient{number:03}/study1/view1_frontal.jpg" for number in (7, 8)]
    assert search(tmp_path / "only", listed, ()) == {}  # one patient's picture is not another's
    assert search(tmp_path / "only", listed[:1], ["patient003/study1/view1_frontal.jpg"]) == {}
    for extension in ("png", "jpg"):
        (tmp_path / f"a.{extension}").write_bytes(b"")
    assert search(tmp_path, ["x/a.PNG"], ())["x/a.PNG"].path == "a.png"
    assert search(tmp_path, ["x/a.dcm"], ()) == {}
