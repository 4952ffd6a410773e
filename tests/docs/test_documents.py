"""README and docs: commands, flags, files, links and findings exist, and the README stays short."""

import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

from tools.phantom.casemix import NAMES

ROOT = Path(__file__).resolve().parents[2]
PAGES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
README = PAGES[ROOT / "README.md"]
MAX_README_LINES = 200
HEADINGS = [
    "Project Overview",
    "Project Structure",
    "Features",
    "Medical Conditions Covered",
    "Dataset Description",
    "Technologies Used",
    "How It Works",
    "How to Run",
    "Sample Results",
    "Future Work",
    "Disclaimer",
]
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
# Flags of other programs that the pages name outside of commands.
WITH_SOURCES = ("tools.prepare_data",)
FOREIGN_FLAGS = {"--no-index", "--find-links", "--fault"}


def commands(text: str) -> list[str]:
    """Every shell command of a page's code blocks, comments removed, `&&` split."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [part.strip() for line in lines if line and not line.startswith("#") for part in line.split("&&")]


def python_commands() -> list[list[str]]:
    """The commands that start one of the project's own programs, as words; `VAR=value` in front is dropped."""
    found = []
    for command in dict.fromkeys(command for text in PAGES.values() for command in commands(text)):
        words = shlex.split(command)
        while words and "=" in words[0]:
            words = words[1:]
        own_module = words[1:2] == ["-m"] and words[2].split(".")[0] in ("tools", "benchmarks")
        if words[:1] == ["python"] and (own_module or words[1].endswith(".py")):
            found.append(words[1:])
    return found


def named_programs() -> set[tuple[str, ...]]:
    """Programs that a page starts in a sentence, such as `python -m benchmarks.bench_site`."""
    return {
        ("-m", name) for text in PAGES.values() for name in re.findall(r"python -m ((?:tools|benchmarks)\.\w+)", text)
    }


def program(words: list[str]) -> tuple[str, ...]:
    """How a program is started, without its arguments: ("app.py",) or ("-m", "tools.make_sample_data").

    A command with sources of their own flags is one program for each: ("-m", "tools.prepare_data", "nih").
    """
    if words[0] != "-m":
        return (words[0],)
    return tuple(words[: 3 if words[1] in WITH_SOURCES and words[2:] else 2])


@cache
def help_text(start: tuple[str, ...]) -> str:
    done = subprocess.run([sys.executable, *start, "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives a page's headings: lower case, blanks to hyphens, other signs dropped."""
    without_code = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", without_code, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_readme_has_the_owners_headings_in_order():
    found = [re.sub(r"^[^A-Za-z]+", "", line) for line in README.splitlines() if line.startswith("## ")]
    assert [heading for heading in found if heading in HEADINGS] == HEADINGS


def test_readme_can_be_read_in_five_minutes():
    assert len(README.splitlines()) <= MAX_README_LINES


def test_readme_names_the_two_commands_that_do_everything():
    assert "pip install -r requirements.txt && python main_train.py" in README
    assert "pip install -r requirements-dev.txt && python -m pytest" in README


@pytest.mark.parametrize("words", python_commands(), ids=" ".join)
def test_each_command_exists_with_its_flags(words):
    listed = set(FLAG.findall(help_text(program(words))))
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= listed


def test_each_program_named_in_a_sentence_exists():
    for _, module in named_programs():
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_flag_named_in_the_text_exists(page):
    programs = {program(words) for words in python_commands()} | named_programs()
    with ThreadPoolExecutor(2) as side_by_side:
        known = set().union(*map(FLAG.findall, side_by_side.map(help_text, programs)))
    prose = re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)
    assert set(FLAG.findall(prose)) - FOREIGN_FLAGS <= known


def test_each_file_named_in_the_structure_exists():
    tree = re.search(r"```text\n(chest-xray-classifier/.*?)```", README, re.DOTALL).group(1)
    rows = re.findall(r"^├── (.+?)(?:  +.*)?$|^└── (.+?)(?:  +.*)?$", tree, re.MULTILINE)
    names = [name for row in rows for name in "".join(row).split(", ")]
    assert len(names) > 12
    for name in names:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_link_leads_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", PAGES[page]):
        if target.startswith("http"):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(PAGES[path] if path in PAGES else path.read_text("utf-8")), anchor


def test_readme_leads_to_every_page():
    assert set(re.findall(r"\]\((docs/[\w-]+\.md)\)", README)) == {
        page.relative_to(ROOT).as_posix() for page in PAGES if page.parent != ROOT
    }


def test_readme_lists_the_findings_of_the_sample():
    for name in NAMES:
        assert name.replace("_", " ") in README


def test_readme_says_what_it_is_not_for_and_what_the_images_are():
    assert "not for clinical use" in README
    assert "synthetic" in README.lower()


def test_the_row_shown_is_one_of_the_sample():
    for page in (README, PAGES[ROOT / "docs" / "data.md"]):
        header, row = re.search(r"```csv\n(.+)\n(.+)\n```", page).groups()
        lines = (ROOT / "test_data.csv").read_text(encoding="utf-8").splitlines()
        start, _, end = row.partition("...,")
        first, _, last = header.partition("...,")
        assert lines[0].startswith(first) and lines[0].endswith(last)
        assert any(line.startswith(start) and line.endswith(end) for line in lines)


def test_anchors_are_made_as_github_makes_them():
    assert anchors("## What lands where\n# Model card\n### `--allow`: a b\n```\n# code\n```") == {
        "what-lands-where",
        "model-card",
        "--allow-a-b",
    }
