"""A clone has the same bytes on every system: text with LF whatever git is set to, pictures and models untouched."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = (".png", ".ico", ".h5", ".dcm")


def eol_of_files() -> dict[str, tuple[str, str]]:
    """File -> line ends in the repository ("lf", "crlf", "mixed", "none", "-text"), and its attributes."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    listed = subprocess.run(["git", "ls-files", "--eol", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    found = {}
    for line in filter(None, listed.stdout.split("\0")):
        columns, name = line.split("\t")
        stored, _, attributes = columns.split(maxsplit=2)
        found[name] = stored.removeprefix("i/"), attributes.strip().removeprefix("attr/")
    return found


def test_text_is_stored_and_checked_out_with_lf():
    for name, (stored, attributes) in eol_of_files().items():
        if not name.endswith(BINARY):
            assert stored in ("lf", "none", "-text"), name
            assert attributes.endswith("eol=lf"), name


def test_pictures_and_models_are_never_touched():
    binaries = {name: one for name, one in eol_of_files().items() if name.endswith(BINARY)}
    assert len(binaries) > 800
    assert {attributes for _, attributes in binaries.values()} == {"-text"}


def test_nothing_but_known_kinds_is_binary():
    binary = {name for name, (stored, _) in eol_of_files().items() if stored == "-text"}
    assert {name for name in binary if not name.endswith(BINARY)} == set(), "give its kind a line in .gitattributes"
