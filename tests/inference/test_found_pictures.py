"""In folders the content decides what is a picture, and nothing is left out without a word."""

import os
from pathlib import Path

import pytest
import radiographs as files

from cxr.imaging.png import is_drawn, mark_as_drawn, source_of_drawn
from cxr.inference.picture_files import (
    DEAD_LINK,
    DIRECTORY,
    DRAWN,
    HIDDEN,
    OTHER,
    PICTURELESS,
    SPECIAL,
    OutputNames,
    find_pictures,
    relative_names,
)
from cxr.inference.table_columns import csv_line, harmless
from cxr.system.terminal import visible

PICTURE = files.radiograph()
UID = "1.2.826.0.1.3680043.8.498.10010"
DICOMDIR = files.dicom_start()[:132] + files.element((2, 2), b"UI", b"1.2.840.10008.1.3.10") + files.element(
    (2, 0x10), b"UI", b"1.2.840.10008.1.2.1\0"
)  # fmt: skip

needs_posix = pytest.mark.skipif(os.name == "nt", reason="POSIX file names and links")


def write(folder: Path, contents: dict[str, bytes]) -> Path:
    for name, data in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def names_in(folder: Path, **options) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in find_pictures([str(folder)], **options).files]


@pytest.mark.fault("I68")
def test_pictures_are_found_by_their_content(tmp_path):
    dicom, implicit = files.dicom(PICTURE), files.dicom(PICTURE, syntax=files.IMPLICIT)
    pictures = {
        UID: dicom,
        f"CR.{UID}": dicom,
        "IM0001": dicom,
        "IM0002.IMA": dicom,
        "IM0003.img": implicit,
        "IM0004.001": dicom[132:],  # without preamble
        "scan.txt": files.png(PICTURE),
        "photo.jpe": files.pillow_bytes(PICTURE),
        "sub.dir/x.y.z": dicom,
        "damaged.png": b"not a picture, but called one",
    }
    others = {"notes.txt": b"text", "LICENSE": b"text" * 200, "viewer.exe": b"MZ" + bytes(900), "empty": b""}
    write(tmp_path, pictures | others | {".DS_Store": b"x", ".a.png": files.png(PICTURE), "DICOMDIR": DICOMDIR})
    found = find_pictures([str(tmp_path)])
    assert [file.relative_to(tmp_path).as_posix() for file in found.files] == sorted(pictures)
    assert found.problems == []
    assert found.left_out == {OTHER: 4, HIDDEN: 2, DIRECTORY: 1}
    assert found.describe_left_out() == (
        "Left out: DICOMDIR (1), files that are no PNG, JPEG or DICOM (4), hidden files (2)."
    )


@pytest.mark.fault("I68")
def test_a_dicomdir_is_taken_where_it_is_named_and_passed_over_where_it_is_found(tmp_path):
    write(tmp_path, {"DICOMDIR": DICOMDIR, "PT0/ST0/IM0": files.dicom(PICTURE)})
    assert names_in(tmp_path) == ["PT0/ST0/IM0"]
    assert find_pictures([str(tmp_path / "DICOMDIR")]).files == [tmp_path / "DICOMDIR"]
    assert find_pictures([str(tmp_path / "*")]).files == [tmp_path / "PT0/ST0/IM0"]


@pytest.mark.fault("I68")
@pytest.mark.parametrize("branch", ["11.1", "88.59", "88.33", "104.1", "9.1.1"])
def test_reports_and_the_like_are_passed_over_where_they_are_found(tmp_path, branch):
    report = files.dicom_dataset(PICTURE, PixelData=None)
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID = f"1.2.840.10008.5.1.4.1.1.{branch}"
    write(tmp_path, {"SR0": files.dicom_bytes(report), "IM0": files.dicom(PICTURE)})
    found = find_pictures([str(tmp_path)])
    assert [file.name for file in found.files] == ["IM0"]
    assert found.left_out == {PICTURELESS: 1}
    assert find_pictures([str(tmp_path / "SR0")]).files == [tmp_path / "SR0"]


@pytest.mark.fault("I68")
def test_a_folder_without_pictures_says_how_many_files_it_has(tmp_path):
    write(tmp_path, {"a.txt": b"x", "b.txt": b"x"})
    assert "no PNG, JPEG or DICOM file found among its 2 files" in find_pictures([str(tmp_path)]).problems[0]


@pytest.mark.fault("I99")
def test_a_file_beside_the_results_is_read_where_it_is_named_and_else_the_reason_is_said(tmp_path, monkeypatch):
    """`gradcam.py film.png --out .`"""
    write(tmp_path, {"film.png": files.png(PICTURE), "sub/film.png": files.png(PICTURE)})
    monkeypatch.chdir(tmp_path)
    named = find_pictures(["film.png", "sub/film.png"], exclude=[tmp_path])
    assert (named.files, named.problems) == ([Path("film.png"), Path("sub/film.png")], [])
    for path, results in ((".", tmp_path), ("sub", tmp_path), ("sub", tmp_path / "sub"), ("*.png", tmp_path)):
        found = find_pictures([path], exclude=[results])
        assert found.files == []
        assert found.problems == [
            f"{path}: results go to this folder, so no file in it was read. Choose another one for them."
        ]
    assert find_pictures(["."], exclude=[tmp_path / "sub"]).files == [Path("./film.png")]
    assert "no PNG, JPEG or DICOM file found" in find_pictures(["other*.png"], exclude=[tmp_path]).problems[0]


@pytest.mark.fault("I69")
def test_own_pictures_are_left_out_by_their_mark_wherever_they_lie(tmp_path):
    drawn = mark_as_drawn(files.png(PICTURE))
    write(tmp_path, {"a.png": files.png(PICTURE), "out/a-Mass.png": drawn, "renamed": drawn})
    found = find_pictures([str(tmp_path)])
    assert [file.name for file in found.files] == ["a.png"]
    assert found.left_out == {DRAWN: 2}
    assert find_pictures([str(tmp_path / "out/a-Mass.png")]).files == [tmp_path / "out/a-Mass.png"]  # named
    assert find_pictures([str(tmp_path / "*")]).files == [tmp_path / "a.png"]
    assert is_drawn(drawn)
    assert not is_drawn(files.png(PICTURE, before=files.chunk(b"tEXt", b"Comment\x00Drawn by hand")))
    assert not is_drawn(files.pillow_bytes(PICTURE))
    of_a_file = mark_as_drawn(files.png(PICTURE), "0123abcd")
    assert is_drawn(of_a_file)
    assert [source_of_drawn(one) for one in (of_a_file, drawn, files.png(PICTURE))] == ["0123abcd", "", ""]


@needs_posix
@pytest.mark.fault("I70")
def test_links_are_followed_once_and_dead_ones_are_counted(tmp_path):
    write(tmp_path, {"in/a.png": files.png(PICTURE), "elsewhere/b.png": files.png(PICTURE)})
    folder = tmp_path / "in"
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "twice").symlink_to(tmp_path / "elsewhere")
    (folder / "again.png").symlink_to(folder / "a.png")
    (folder / "up").symlink_to(tmp_path)
    (folder / "self").symlink_to("self")
    (folder / "one").symlink_to("other")
    (folder / "other").symlink_to("one")
    (folder / "dead.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "pipe.png")
    found = find_pictures([str(folder)])
    assert sorted(os.path.realpath(file) for file in found.files) == [
        str(tmp_path / "elsewhere/b.png"),
        str(tmp_path / "in/a.png"),
    ]
    assert {name.split("/")[0] for name in relative_names(found.files)} <= {
        "linked",
        "twice",
        "up",
        "a.png",
        "again.png",
    }
    assert found.problems == []
    assert found.left_out == {DEAD_LINK: 4, SPECIAL: 1}


@needs_posix
@pytest.mark.fault("I70")
@pytest.mark.parametrize("name", ["dead", "loop", "*"])
def test_dead_links_and_loops_that_are_named_are_a_line_each(tmp_path, name):
    (tmp_path / "dead").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    found = find_pictures([str(tmp_path / name)])
    assert found.files == []
    assert len(found.problems) == 1
    assert ("leads nowhere" in found.problems[0]) == (name != "*")


@needs_posix
@pytest.mark.fault("I70")
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root opens every folder")
def test_a_folder_that_cannot_be_opened_is_a_line(tmp_path):
    write(tmp_path, {"closed/a.png": files.png(PICTURE), "b.png": files.png(PICTURE)})
    (tmp_path / "closed").chmod(0)
    found = find_pictures([str(tmp_path)])
    (tmp_path / "closed").chmod(0o700)
    assert [file.name for file in found.files] == ["b.png"]
    assert "closed: cannot be opened: Permission denied" in found.problems[0]


@needs_posix
@pytest.mark.fault("I71")
def test_names_are_made_visible_and_stay_distinct(tmp_path):
    odd = [
        b"\xff.png",
        b"\\xff.png",
        b"\xc3\xbf.png",
        b"a\nb.png",
        b"\x1b[31mred.png",
        b"\xe2\x80\xaegnp.png",
        b"\xc2\x80.png",
    ]
    for name in odd:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(files.png(PICTURE))
    found = find_pictures([str(tmp_path)]).files
    names = relative_names(found)
    assert len(set(names)) == len(odd)
    assert all(name.isprintable() for name in names)
    assert set(names) == {
        r"\xff.png",
        r"\\xff.png",
        "ÿ.png",
        r"a\nb.png",
        r"\x1b[31mred.png",
        r"\u202egnp.png",
        r"\u0080.png",
    }
    assert visible("plain (1).png") == "plain (1).png"


@pytest.mark.fault("I71")
def test_output_names_keep_what_tells_uids_apart_and_fit_the_file_system(tmp_path):
    names = OutputNames(tmp_path, {"k.png": "0a1b2c3d"})
    assert names.claim(f"{UID}.1", "Hernia").name == f"{UID}.1-Hernia.png"
    assert names.claim(f"{UID}.2", "Hernia").name == f"{UID}.2-Hernia.png"
    assert names.claim("IM1.IMA", "Hernia").name == "IM1-Hernia.png"
    assert names.claim("k.png", "Hernia").name == "k~0a1b2c3d-Hernia.png"
    long = [
        "é" * 120 + "a.png",
        "é" * 120 + "b.png",
        "x" * 250,
        "sub/" + "y" * 255,
        "w" * 250 + ".png",
        "z" * 239 + ".png",
    ]
    claimed = [names.claim(name, "Pleural_Thickening") for name in long]
    assert len({path.name for path in claimed}) == len(long)
    for path in claimed:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
        assert path.name.endswith("-Pleural_Thickening.png")
    assert names.claim(long[0], "Pleural_Thickening") not in claimed


@pytest.mark.fault("I72")
def test_cells_that_a_spreadsheet_would_run_are_guarded_and_distinct():
    names = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\tx", "\uff1d1", "'=1", "=1", " =1", "\u00a0+1"]
    names += ["plain.png", "a=b.png"]
    cells = [harmless(name) for name in names]
    assert len(set(cells)) == len(names)
    assert all(cell.startswith("'") for cell in cells[:-2])
    assert cells[-2:] == names[-2:]


@pytest.mark.fault("I72")
def test_a_cell_with_another_programs_separator_is_quoted():
    assert csv_line(["a;=1", 'say "x"', "a,b", "plain", ""]) == '"a;=1","say ""x""","a,b",plain,\r\n'
