"""Own the header: which column of a CSV is the image, the patient and each finding.

Columns are found by name, ignoring case, blanks and underscores, and never by position.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cxr.data.problems import ProblemList, listed_names, shown

IMAGE_KEYS = ("image", "imageindex")
PATIENT_KEY = "patientid"
FIXED = {IMAGE_KEYS[0]: "Image", PATIENT_KEY: "Patientid"}  # key: spelling for messages


def name_key(name: str) -> str:
    """Return what two spellings of a column name have in common: no case, no blanks, no underscores."""
    return re.sub(r"[\s_]+", "", name).casefold()


@dataclass(frozen=True)
class Columns:
    """Say where the image, the patient and each finding stand in a row."""

    image: int
    patient: int
    findings: dict[str, int]


def match_columns(
    header: list[str],
    line: int,
    file: str,
    problems: ProblemList,
    chosen: Sequence[str] | None,
    expected: Sequence[str] | None,
) -> Columns | None:
    """Find the columns by name.

    Args:
        chosen: the findings that the user wants; None for every column that is neither image nor patient.
        expected: the training CSV's findings in order; None where this is the training CSV.

    Returns:
        The columns, or None after recording what is missing, double or too much.
    """
    names = [cell.strip() for cell in header]
    separator = max(";\t|", key=header[0].count)
    if len(names) == 1 and separator in header[0]:
        message = f"found 1 column, the file looks like {separator!r} separated. Save it with commas."
        problems.fault("separator", file, message, line)
        return None
    keys = [IMAGE_KEYS[0] if key in IMAGE_KEYS else key for key in map(name_key, names)]
    chosen_keys = None if chosen is None else {name_key(name) for name in chosen}
    positions = {
        key: position
        for position, key in enumerate(keys)
        if key not in FIXED and (chosen_keys is None or key in chosen_keys)
    }
    wanted = expected or [names[position] for position in positions.values()]
    used = {*FIXED, *positions}
    required = {name_key(name): name for name in (expected or chosen or wanted)}
    faulty = [
        _miss_columns(names, keys, line, file, problems),
        _differ_from_required(
            required, {key: names[position] for key, position in positions.items()}, line, file, problems
        ),
        _misname_columns(names, keys, used, line, file, problems),
    ]
    ignored = [name for name, key in zip(names, keys, strict=True) if key not in used]
    if ignored:
        problems.warning("ignored column", file, f"not chosen, therefore ignored: {listed_names(ignored)}.", line)
    if any(faulty):
        return None
    findings = {name: positions[name_key(name)] for name in wanted}
    return Columns(keys.index(IMAGE_KEYS[0]), keys.index(PATIENT_KEY), findings)


def _miss_columns(names: list[str], keys: list[str], line: int, file: str, problems: ProblemList) -> bool:
    """Record a missing image or patient column, or that there is nothing else; return whether there was a fault."""
    missing = [spelling for key, spelling in FIXED.items() if key not in keys]
    if not set(keys) - set(FIXED):
        missing.append("one column per finding")
    for spelling in missing:
        message = (
            f"missing column: {spelling}. Expected Image, Patientid and the findings, found {listed_names(names)}."
        )
        problems.fault("missing column", file, message, line)
    return bool(missing)


def _differ_from_required(
    required: dict[str, str], found: dict[str, str], line: int, file: str, problems: ProblemList
) -> bool:
    """Record findings that are missing or that the training CSV does not have; return whether there was a fault."""
    missing = [name for key, name in required.items() if key not in found]
    extra = [name for key, name in found.items() if key not in required]
    if not missing and not extra:
        return False
    message = f"missing findings: {listed_names(missing)}; findings that the training CSV lacks: {listed_names(extra)}."
    problems.fault(
        "findings differ", file, f"{message} Make the headers alike, or name findings with --findings.", line
    )
    return True


def _misname_columns(
    names: list[str], keys: list[str], used: set[str], line: int, file: str, problems: ProblemList
) -> bool:
    """Record used columns that are there twice, unnamed or unprintable; return whether there was a fault."""
    faulty = False
    for key in sorted(used & set(keys)):
        same = [name for name, other in zip(names, keys, strict=True) if other == key]
        if len(same) > 1:
            message = f"{len(same)} columns have the same name: {listed_names(same)}. Keep one."
        elif not key:
            message = f"column {keys.index(key) + 1} has no name. Name or remove it (pandas: to_csv(index=False))."
        elif not same[0].isprintable():
            message = f"column {keys.index(key) + 1}: {shown(same[0])} has a line break or control character."
        else:
            continue
        problems.fault("column name", file, message, line)
        faulty = True
    return faulty
