"""Which files a command line names, and that no two outputs share a name."""

from pathlib import Path

import pytest

from cxr.inference.picture_files import OutputNames, find_pictures, relative_names


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "in/b.PNG",
        "in/a.jpeg",
        "in/sub/c.dcm",
        "in/notes.txt",
        "in/.hidden.png",
        "out/a-Mass.png",
        "odd.bin",
    ):
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    Path("in/sub/IM0001").write_bytes(bytes(128) + b"DICM")
    Path("in/sub/LICENSE").write_bytes(b"text " * 50)
    return tmp_path


@pytest.mark.parametrize(
    ("paths", "expected", "num_problems"),
    [
        (["in"], ["in/a.jpeg", "in/b.PNG", "in/sub/IM0001", "in/sub/c.dcm"], 0),
        (["in/sub/c.dcm", "in/sub", "in/../in/sub/c.dcm"], ["in/sub/c.dcm", "in/sub/IM0001"], 0),
        (["in/*.PNG", "in/*/*.dcm"], ["in/b.PNG", "in/sub/c.dcm"], 0),
        (["**/*.dcm"], ["in/sub/c.dcm"], 0),
        (["odd.bin", "in/notes.txt"], ["odd.bin", "in/notes.txt"], 0),
        (["."], ["in/a.jpeg", "in/b.PNG", "in/sub/IM0001", "in/sub/c.dcm"], 0),
        (["missing.png", "in/b.PNG", "*.none"], ["in/b.PNG"], 2),
        (["out"], [], 1),
    ],
    ids=[
        "folder",
        "each file once",
        "patterns",
        "recursive pattern",
        "named files",
        "without outputs",
        "missing",
        "own",
    ],
)
def test_find_pictures(folder, paths, expected, num_problems):
    found = find_pictures(paths, exclude=[Path("out"), Path("elsewhere")])
    assert [file.as_posix() for file in found.files] == expected
    assert len(found.problems) == num_problems


def test_find_pictures_takes_a_name_with_pattern_characters_literally(folder):
    Path("x[1].png").write_bytes(b"x")
    assert find_pictures(["x[1].png"]).files == [Path("x[1].png")]


def test_relative_names_are_short_and_distinct(folder):
    assert relative_names([Path("in/a.jpeg")]) == ["a.jpeg"]
    assert relative_names([Path("in/a.jpeg"), folder / "in/sub/c.dcm", Path("odd.bin")]) == [
        "in/a.jpeg",
        "in/sub/c.dcm",
        "odd.bin",
    ]


def test_output_names_never_collide():
    names = OutputNames(Path("out"))
    claimed = [
        names.claim("a/x.png", "Mass"),
        names.claim("b/x.png", "Mass"),
        names.claim("a/x.dcm", "Mass"),
        names.claim("a/X.png", "Mass"),
        names.claim("a/x-Mass-2.png", "y"),
        names.claim("a/x.png", "Mass-2"),
        names.claim("a/x.png", "../Pleural Thickening"),
        names.claim("a.b.png", "Mass"),
    ]
    assert [path.as_posix() for path in claimed] == [
        "out/a/x-Mass.png",
        "out/b/x-Mass.png",
        "out/a/x-Mass-2.png",
        "out/a/X-Mass-3.png",
        "out/a/x-Mass-2-y.png",
        "out/a/x-Mass_2.png",
        "out/a/x-.._Pleural_Thickening.png",
        "out/a.b-Mass.png",
    ]
    assert len({path.as_posix().casefold() for path in claimed}) == len(claimed)
