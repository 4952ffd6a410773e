"""docs/architecture.md and the files say the same: every module has its line, every line its module."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
FOLDERS = ("cxr", "tools", "benchmarks")
PACKAGES = (
    "system",
    "imaging",
    "decoding",
    "data",
    "network",
    "metrics",
    "anatomy",
    "heatmaps",
    "inference",
    "dicom_out",
    "outputs",
    "training",
    "distillation",
    "report",
    "site",
)


def listed(page: str) -> list[str]:
    """The files of the page's tree as paths below the root, in its order."""
    tree = re.search(r"## The tree\n.*?```text\n(.*?)```", page, re.DOTALL).group(1)
    found, folders = [], []
    for line in tree.splitlines():
        indent, name, words = re.match(r"( *)(\S+)(.*)", line).groups()
        del folders[len(indent) // 2 :]
        if name.endswith("/"):
            folders.append(name.rstrip("/"))
        else:
            assert words.strip(), f"{name}: the page says nothing about it"
            found.append("/".join([*folders, name]))
    return found


def modules() -> set[str]:
    """Every Python file of the project but the tests and what only marks a package."""
    files = [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix() for path in files if path.name != "__init__.py"}


def test_the_tree_lists_every_module_once():
    found = listed(PAGE)
    assert len(found) == len(set(found))
    assert set(found) == modules()


def test_the_rooms_stand_in_their_order():
    packages = [path.split("/")[1] for path in listed(PAGE) if path.startswith("cxr/")]
    assert tuple(dict.fromkeys(packages)) == PACKAGES


def test_every_file_that_the_page_names_exists():
    """`data/labels.py` means a module of a package, `labels.py` one of those named before it in the cell."""
    known = {path.name for path in ROOT.rglob("*.py")}
    for name in re.findall(r"`((?:[\w-]+/)*[\w-]+\.(?:py|html|js|json))`", PAGE):
        if "/" in name:
            assert (ROOT / name).is_file() or (ROOT / "cxr" / name).is_file(), name
        else:
            assert name in known, name
