"""The README's commands, flags, files and findings exist."""

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tools.phantom.casemix import NAMES

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
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


def commands() -> list[str]:
    """Every shell command of the README's code blocks, comments removed, `&&` split."""
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [part.strip() for line in lines if line and not line.startswith("#") for part in line.split("&&")]


def python_commands() -> list[list[str]]:
    """The commands that start one of the project's own programs, as words; `VAR=value` in front is dropped."""
    found = []
    for command in commands():
        words = shlex.split(command)
        while words and "=" in words[0]:
            words = words[1:]
        if words and words[0] == "python" and (words[1] != "-m" or words[2].split(".")[0] in ("tools", "benchmarks")):
            found.append(words[1:])
    return found


def program(words: list[str]) -> tuple[str, ...]:
    """How a program is started, without its arguments: ("app.py",) or ("-m", "tools.make_sample_data")."""
    return tuple(words[:2]) if words[0] == "-m" else (words[0],)


@cache
def help_text(start: tuple[str, ...]) -> str:
    done = subprocess.run([sys.executable, *start, "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_readme_has_the_owners_headings_in_order():
    found = [re.sub(r"^[^A-Za-z]+", "", line) for line in README.splitlines() if line.startswith("## ")]
    assert [heading for heading in found if heading in HEADINGS] == HEADINGS


def test_readme_names_the_two_commands_that_do_everything():
    assert "pip install -r requirements.txt && python main_train.py" in README
    assert "pip install -r requirements-dev.txt && python -m pytest" in README


@pytest.mark.parametrize("words", python_commands(), ids=" ".join)
def test_each_command_exists_with_its_flags(words):
    listed = set(FLAG.findall(help_text(program(words))))
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= listed


def test_each_flag_named_in_the_text_exists():
    programs = {program(words) for words in python_commands()}
    known = set().union(*(FLAG.findall(help_text(start)) for start in programs))
    prose = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    assert set(FLAG.findall(prose)) <= known


def test_each_file_named_in_the_structure_exists():
    tree = re.search(r"```text\n(chest-xray-classifier/.*?)```", README, re.DOTALL).group(1)
    names = re.findall(r"^[│ ]*[├└]── (\S+)", tree, re.MULTILINE)
    assert len(names) > 12
    for name in names:
        assert list(ROOT.glob(f"**/{name.rstrip('/')}")), name


def test_each_link_to_a_file_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_readme_lists_the_findings_of_the_sample():
    for name in NAMES:
        assert name.replace("_", " ") in README


def test_readme_says_what_it_is_not_for_and_what_the_images_are():
    assert "not for clinical use" in README
    assert "synthetic" in README.lower()
