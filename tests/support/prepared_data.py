"""Runs of tools.prepare_data, and the CSVs that come out."""

import csv
import shlex
from pathlib import Path

import main_train
from tools import prepare_data

NAMES = {"train": "train-small.csv", "val": "val_data.csv", "test": "test_data.csv"}


def run(capsys, *arguments: object) -> str:
    """Run the command; return what it printed."""
    code = prepare_data.main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return printed.out


def refused(capsys, *arguments: object) -> str:
    """Run a command that must end with 2; return what it said."""
    assert prepare_data.main([str(argument) for argument in arguments]) == 2
    return capsys.readouterr().err


def rows_in(folder: Path) -> dict[str, dict[str, dict[str, str]]]:
    """Return split -> image -> row."""
    splits = {}
    for split, name in NAMES.items():
        with (folder / name).open(newline="") as file:
            splits[split] = {row["Image"]: row for row in csv.DictReader(file)}
    return splits


def check_passes(capsys, printed: str) -> str:
    """Run the command that the last line names; return what it printed."""
    words = shlex.split(printed.splitlines()[-1].removeprefix("Next: "))
    assert words[:2] == ["python", "main_train.py"]
    code = main_train.main(words[2:])
    text = capsys.readouterr().out
    assert code == 0, text
    assert "0 faults" in text
    return text
