"""docs/reliability.md and the tests say the same: every fault has its proof, every proof its line."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
NUM_ROWS = {"C": 25, "I": 39, "M": 13, "H": 23, "T": 21, "L": 12}


def rows_of(document: str) -> dict[str, tuple[str, str, str]]:
    """Return id -> fault, behaviour, proof."""
    rows = {}
    for line in document.splitlines():
        if re.match(r"\| [A-Z]\d\d \|", line):
            row, fault, behaviour, proof = (cell.strip() for cell in line[1:-1].split("|"))
            assert row not in rows, f"{row} is there twice"
            rows[row] = fault, behaviour, proof
    return rows


def faults_of(function: ast.FunctionDef) -> list[str]:
    """Return the ids in a test's `@pytest.mark.fault("C06", ...)`."""
    marks = [mark for mark in function.decorator_list if isinstance(mark, ast.Call)]
    return [one.value for mark in marks if ast.unparse(mark.func) == "pytest.mark.fault" for one in mark.args]


def proofs_in(folder: Path) -> dict[str, set[str]]:
    """Return id -> the files that hold a test marked with that id."""
    found: dict[str, set[str]] = {}
    for path in folder.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for row in faults_of(node) if isinstance(node, ast.FunctionDef) else ():
                found.setdefault(row, set()).add(path.name)
    return found


def differences(document: str, tests: dict[str, set[str]]) -> list[str]:
    """Return what the document and the tests disagree about."""
    rows, found = rows_of(document), []
    for row in sorted(rows.keys() | tests.keys()):
        if row not in rows:
            found.append(f"{row}: tested, but not in the document")
            continue
        named = set(re.findall(r"test_\w+\.py", rows[row][2]))
        excused = rows[row][1].startswith("No test: ")
        if excused == bool(named):
            found.append(f"{row}: needs either a proof or a reason")
        if named - tests.get(row, set()):
            found.append(f"{row}: no test of this id in {', '.join(sorted(named - tests.get(row, set())))}")
        if tests.get(row, set()) - named:
            found.append(f"{row}: also tested in {', '.join(sorted(tests[row] - named))}")
    return found


def test_every_fault_has_a_line():
    expected = {f"{group}{number:02}" for group, count in NUM_ROWS.items() for number in range(1, count + 1)}
    assert expected <= set(rows_of(DOCUMENT))  # those that were found later have numbers of their own


def test_document_and_tests_agree():
    assert differences(DOCUMENT, proofs_in(ROOT / "tests")) == []


@pytest.mark.parametrize(
    ("line", "tests", "expected"),
    [
        ("| C01 | a | b | test_x.py |", {"C01": {"test_x.py"}}, []),
        ("| C01 | a | No test: why | |", {}, []),
        ("| C01 | a | b | test_x.py |", {}, ["C01: no test of this id in test_x.py"]),
        ("| C01 | a | b | |", {}, ["C01: needs either a proof or a reason"]),
        ("| C01 | a | b | test_x.py |", {"C01": {"test_x.py", "test_y.py"}}, ["C01: also tested in test_y.py"]),
        ("", {"C01": {"test_x.py"}}, ["C01: tested, but not in the document"]),
    ],
)
def test_the_comparison_notices_each_difference(line, tests, expected):
    assert differences(line, tests) == expected


def test_a_fault_is_a_marker_and_no_name():
    for path in (ROOT / "tests").rglob("test_*.py"):
        assert not re.findall(r"def test_[A-Z]\d\d_\w+", path.read_text(encoding="utf-8")), path


def test_files_of_tests_have_names_of_their_own():
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted(set(names)) == sorted(names)


def test_option_runs_the_proof_of_one_fault():
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "--fault",
        "C09",
        "tests/data/test_label_order.py",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (test,) = [line for line in done.stdout.splitlines() if "::" in line]
    assert test.endswith("::test_permuted_columns_give_identical_labels")
