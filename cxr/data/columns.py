"""The header: which column of a CSV is the image, the patient and each finding.

Columns are found by name, ignoring case, blanks and underscores, and never by position.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cxr.data.problems import DataProblems, LabelError, listed_names, shown
from cxr.data.vocabulary import is_no_finding, is_row_number, known_table

ALIASES = {"infiltrate": "infiltration"}  # the word of NIH's box list: the word of its label table
IMAGE_KEYS = ("image", "imageindex")
PATIENT_KEY = "patientid"
FIXED = {IMAGE_KEYS[0]: "Image", PATIENT_KEY: "Patientid"}  # key: spelling for messages
# What other data sets call the two; used, first come first, where the table has no column of the name above.
OTHER_KEYS = {
    IMAGE_KEYS[0]: ("path", "imagepath", "filepath", "filename", "imagename", "imagefile", "dicomid", "imageid"),
    PATIENT_KEY: ("patient", "subjectid", "patientnumber", "subject"),
}


@dataclass(frozen=True)
class ColumnRules:
    """Say which columns and rows are wanted.

    Args:
        chosen: the findings to keep, None for every column that is neither image nor patient nor, by its name, no
            finding.
        where: column name -> values; a row is kept where every such column has one of its values.
        where_if_there: a column of `where` that a table lacks is a warning instead of a fault, and all rows are kept.
        no_patients: a table without patient column has each image as a patient of its own, instead of a fault.
    """

    chosen: Sequence[str] | None = None
    where: Mapping[str, frozenset[str]] = field(default_factory=dict)
    where_if_there: bool = False
    no_patients: bool = False

    def __post_init__(self) -> None:
        if self.chosen is not None and not any(name.strip() for name in self.chosen):
            raise LabelError("findings must name at least one column, or be None for all. Received no name.")


def name_key(name: str) -> str:
    """Return what two spellings of a name have in common: no case, no white space of any kind, no underscores."""
    key = re.sub(r"[\s_]+", "", name).casefold()
    return ALIASES.get(key, key)


def display_name(name: str) -> str:
    """Return the name as people read it: "Pleural Thickening" for "Pleural_Thickening"."""
    return name.replace("_", " ")


@dataclass(frozen=True)
class Columns:
    """Say where the image, the patient (None: there is none), each finding and each filter stand in a row."""

    image: int
    patient: int | None
    findings: dict[str, int]
    where: dict[int, frozenset[str]]


@dataclass(frozen=True)
class _Header:
    """A header's names and keys, and where problems with it are recorded."""

    names: list[str]
    keys: list[str]
    line: int
    file: str
    problems: DataProblems

    def fault(self, kind: str, message: str) -> None:
        self.problems.fault(kind, self.file, message, self.line)

    def warning(self, kind: str, message: str) -> None:
        self.problems.warning(kind, self.file, message, self.line)


def match_columns(
    cells: list[str],
    line: int,
    file: str,
    problems: DataProblems,
    rules: ColumnRules,
    expected: Sequence[str] | None,
) -> Columns | None:
    """Find the columns by name.

    Args:
        cells: the header's.
        expected: the training CSV's findings in order; None where this is the training CSV.

    Returns:
        The columns, or None after recording what is missing, double or too much.
    """
    names = [cell.strip() for cell in cells]
    header = _Header(names, column_keys(names), line, file, problems)
    if _is_other_table(header, rules.chosen):
        return None
    unknown = [name for name in rules.where if name_key(name) not in header.keys]
    if unknown and not rules.where_if_there:
        header.fault("missing column", f"--where: no column {listed_names(unknown)}. Found {listed_names(names)}.")
        return None
    if unknown:
        header.warning("missing column", f"--where: no column {listed_names(unknown)}; all of its values are taken.")
    where = {header.keys.index(name_key(name)): rules.where[name] for name in rules.where if name not in unknown}
    positions = _finding_positions(header, where, rules.chosen)
    wanted = expected or [names[position] for position in positions.values()]
    required = {name_key(name): name for name in (expected or rules.chosen or wanted)}
    faulty = [
        _miss_columns(header, positions, rules.no_patients),
        _differ_from_required(header, required, positions),
        _misname_columns(header, {*FIXED, *positions}),
    ]
    if any(faulty):
        return None
    findings = {name: positions[name_key(name)] for name in wanted}
    patient = header.keys.index(PATIENT_KEY) if PATIENT_KEY in header.keys else None
    return Columns(header.keys.index(IMAGE_KEYS[0]), patient, findings, where)


def column_keys(names: list[str]) -> list[str]:
    """Return the key of each of a header's names, those of image and patient under the one key each has here."""
    keys = [IMAGE_KEYS[0] if key in IMAGE_KEYS else key for key in map(name_key, names)]
    for fixed, others in OTHER_KEYS.items():
        if fixed not in keys and (found := next((key for key in others if key in keys), None)):
            keys[keys.index(found)] = fixed
    return keys


def _is_other_table(header: _Header, chosen: Sequence[str] | None) -> bool:
    """Record that the file is separated otherwise or is a data set's own table; return whether it is."""
    separator = max(";\t|", key=header.names[0].count)
    if len(header.names) == 1 and separator in header.names[0]:
        header.fault("separator", f"found 1 column, the file looks like {separator!r} separated. Save it with commas.")
        return True
    usable = chosen is not None and {name_key(name) for name in chosen} <= set(header.keys)
    if not usable and (advice := known_table(header.names)):
        header.fault("known table", advice)
        return True
    return False


def _finding_positions(
    header: _Header, where: Mapping[int, frozenset[str]], chosen: Sequence[str] | None
) -> dict[str, int]:
    """Return the places of the findings by key, and warn of the columns that are left out."""
    chosen_keys = None if chosen is None else {name_key(name) for name in chosen}
    positions, ignored, no_findings = {}, [], []
    for position, (name, key) in enumerate(zip(header.names, header.keys, strict=True)):
        if key in FIXED:
            continue
        if chosen_keys is not None:
            if key in chosen_keys:
                positions[key] = position
            elif position not in where:
                ignored.append(name)
        elif is_row_number(name, position):
            what = f"column {shown(name)}" if name else "the first column has no name and"
            header.warning("row number", f"{what} holds row numbers, as pandas writes them; it is left out.")
        elif is_no_finding(name):
            no_findings.append(name)
        elif position not in where:
            positions[key] = position
    if ignored:
        header.warning("ignored column", f"not chosen, therefore ignored: {listed_names(ignored)}.")
    if no_findings:
        message = f"no findings by their names, therefore not trained on: {listed_names(no_findings)}."
        header.warning("no finding", f"{message} To learn one all the same, name all findings with --findings.")
    return positions


def _miss_columns(header: _Header, positions: Mapping[str, int], no_patients: bool) -> bool:
    """Record a missing image or patient column, or that there is nothing else; return whether there was a fault."""
    missing = [name for key, name in FIXED.items() if key not in header.keys]
    if no_patients and FIXED[PATIENT_KEY] in missing:
        missing.remove(FIXED[PATIENT_KEY])
    if not positions and not set(header.keys) - set(FIXED):
        missing.append("one column per finding")
    for name in missing:
        cure = ""
        if name == FIXED[PATIENT_KEY]:
            cure = " Where nobody knows the patients, --allow no-patients takes each image as a patient of its own."
        found = f"Expected Image, Patientid and the findings, found {listed_names(header.names)}."
        header.fault("missing column", f"missing column: {name}. {found}{cure}")
    return bool(missing)


def _differ_from_required(header: _Header, required: Mapping[str, str], positions: Mapping[str, int]) -> bool:
    """Record findings that are missing or that the training CSV does not have; return whether there was a fault."""
    missing = [name for key, name in required.items() if key not in positions]
    extra = [header.names[position] for key, position in positions.items() if key not in required]
    if not missing and not extra:
        return False
    message = f"missing findings: {listed_names(missing)}; findings that the training CSV lacks: {listed_names(extra)}."
    cure = "Make the headers alike, or name findings with --findings."
    with_comma = [name for name in header.names if "," in name and any(part in name for part in missing)]
    if with_comma:
        cure = f"A name with a comma is given whole: {' '.join(f'--finding {shown(name)}' for name in with_comma)}."
    header.fault("findings differ", f"{message} {cure}")
    return True


def _misname_columns(header: _Header, used: set[str]) -> bool:
    """Record used columns that are there twice, unnamed or unprintable; return whether there was a fault."""
    positions: dict[str, list[int]] = {}  # once over the header: a table of genes has 20,000 columns
    for position, key in enumerate(header.keys):
        positions.setdefault(key, []).append(position)
    faulty = False
    for key in sorted(used & positions.keys()):
        same, place = [header.names[position] for position in positions[key]], positions[key][0] + 1
        if len(same) > 1:
            message = f"{len(same)} columns have the same name: {listed_names(same)}. Keep one."
        elif not key:
            message = f"column {place} has no name. Name or remove it (pandas: to_csv(index=False))."
        elif not same[0].isprintable():
            message = f"column {place}: {shown(same[0])} has a line break or control character."
        else:
            continue
        header.fault("column name", message)
        faulty = True
    return faulty
