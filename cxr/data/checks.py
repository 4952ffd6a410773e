"""The data check: all problems of the three CSVs and the image folder at once, and the table of what they hold.

Reads nothing of an image unless a decoder is passed in.
"""

import hashlib
import itertools
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxr.data.columns import ColumnRules, name_key
from cxr.data.image_folder import CheckedImages, check_images
from cxr.data.labels import Split, read_split
from cxr.data.leakage import (
    count_shared_images,
    count_shared_patients,
    warn_of_copies,
    warn_of_retyped_patients,
    without_duplicates,
)
from cxr.data.problems import DataProblem, DataProblems, LabelError, listed_names
from cxr.data.vocabulary import CellRules, contradictions

if TYPE_CHECKING:  # whoever reads no image must not wait for image libraries
    from cxr.imaging.radiograph import DecodedPicture

SPLIT_NAMES = ("train", "val", "test")
PAIRS = tuple(itertools.combinations(SPLIT_NAMES, 2))
MAX_TABLE_ROWS = 20  # findings in the table; of more, the most frequent
TABLE_WIDTH = 100  # columns of a terminal
NUM_EXAMPLES = 5  # lines named in a message
UNLABELLED = {"train": "nothing can be learned", "val": "no epoch can be chosen", "test": "nothing can be scored"}
EXIT_BAD_DATA = 2
EXIT_FILE_SYSTEM = 3


@dataclass(frozen=True, eq=False)
class DataCheck:
    """Hold what the check of the three CSVs found.

    Args:
        parts: split name -> what could be read of it; use `splits` for anything but a description of the data.
        problems: faults and warnings in the order found; of one kind and file only the first 20.
        counts: (severity, kind, file) -> how many there are, the unlisted ones included.
        shared_images: (split, split) -> images in both.
        shared_patients: (split, split) -> patients in both.
        num_unlisted: files beside the listed images that no CSV lists.
        found: split name -> listed image name -> name of the file, where the two differ; `parts` hold the latter.
    """

    parts: dict[str, Split]
    problems: tuple[DataProblem, ...]
    counts: dict[tuple[str, str, str], int]
    shared_images: dict[tuple[str, str], int] = field(default_factory=dict)
    shared_patients: dict[tuple[str, str], int] = field(default_factory=dict)
    num_unlisted: int = 0
    found: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def faults(self) -> tuple[DataProblem, ...]:
        """Return the problems that stop a run."""
        return tuple(problem for problem in self.problems if problem.severity == "fault")

    @property
    def warnings(self) -> tuple[DataProblem, ...]:
        """Return the problems that do not stop a run."""
        return tuple(problem for problem in self.problems if problem.severity == "warning")

    @property
    def exit_code(self) -> int:
        """Return 0, 2 (bad data) or 3 (a file or the image folder is missing or unreadable)."""
        if any(problem.kind == "file" for problem in self.faults):
            return EXIT_FILE_SYSTEM
        return EXIT_BAD_DATA if self.faults else 0

    @property
    def splits(self) -> dict[str, Split]:
        """Return the three splits.

        Raises:
            LabelError: the data has faults, so that there is nothing to train on.
        """
        if self.faults:
            raise LabelError(f"The data has faults; correct them first. The first one: {self.faults[0]}")
        return dict(self.parts)

    @property
    def patients_known(self) -> bool:
        """Whether every split names its patients; else a patient may be in two without anybody knowing."""
        return all(part.patients_known for part in self.parts.values())

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 over findings, image names, patients and labels of all three splits, in order."""
        digest = hashlib.sha256()
        for name, split in self.splits.items():
            digest.update(json.dumps([name, split.findings, split.images, split.patients]).encode())
            digest.update(np.ascontiguousarray(split.labels, dtype="<f4").tobytes())
        return digest.hexdigest()

    def as_text(self) -> str:
        """Return the table, the problems and the verdict, at most 100 columns wide."""
        num_faults = sum(count for (severity, *_), count in self.counts.items() if severity == "fault")
        num_warnings = sum(self.counts.values()) - num_faults
        verdict = f"Data check: {_counted(num_faults, 'fault')}, {_counted(num_warnings, 'warning')}. " + (
            f"Correct the faults before training (exit code {self.exit_code})."
            if num_faults
            else "The data can be used."
        )
        paragraphs = [_table(self.parts)] if self.parts else []
        if self.num_unlisted:
            paragraphs.append(f"{self.num_unlisted:,} files in the image folder are in none of the three CSVs.")
        for title, problems in (("Faults", self.faults), ("Warnings", self.warnings)):
            if problems:
                paragraphs.append(f"{title}:\n" + "\n".join(self._problem_lines(problems)))
        return "\n\n".join([*paragraphs, verdict])

    def _problem_lines(self, problems: Sequence[DataProblem]) -> list[str]:
        """Return the lines for faults or warnings, each kind of each file with the count of what is not listed."""
        groups: dict[tuple[str, str, str], list[DataProblem]] = {}
        for problem in problems:
            groups.setdefault((problem.severity, problem.kind, problem.file), []).append(problem)
        lines = []
        for group, members in groups.items():
            for problem in members:
                lines += textwrap.wrap(
                    f"- {problem}", TABLE_WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
                )
            if self.counts[group] > len(members):
                lines.append(f"  ... and {self.counts[group] - len(members):,} more of this kind in {group[2]}")
        return lines


def check_splits(
    train_csv: Path | str,
    val_csv: Path | str,
    test_csv: Path | str,
    image_dir: Path | str | None,
    *,
    findings: Sequence[str] | None = None,
    where: Mapping[str, frozenset[str]] | None = None,
    blank: str | None = None,
    uncertain: str | None = None,
    no_patients: bool = False,
    allow_leakage: bool = False,
    skip_missing: bool = False,
    decode: Callable[[bytes], "DecodedPicture"] | None = None,
) -> DataCheck:
    """Check the three CSVs and the image folder, and collect every problem.

    Args:
        image_dir: folder that the image names are relative to; None leaves all checks of files out.
        findings: the columns to keep; None for every column besides image and patient. Their order is the training
            CSV's in either case.
        where: column name -> values; only rows that have one of them in every such column are read.
        blank: what a blank label means: "unlabelled" (NaN), "zero", or None for a fault.
        uncertain: what the label -1 means: "zero", "one", "blank" (NaN), or None for a fault.
        no_patients: in a table without patient column each image counts as a patient of its own, instead of a fault.
        allow_leakage: a patient in two splits is a warning instead of a fault.
        skip_missing: leave out rows whose image is not there, up to 1 % of a split.
        decode: bytes -> picture, ValueError where that fails. Given, every image is read (a deep check).

    Raises:
        LabelError: `findings` is empty, or `blank` or `uncertain` unknown. Faults of the data are in the result.
    """
    return check_tables(
        dict(zip(SPLIT_NAMES, map(Path, (train_csv, val_csv, test_csv)), strict=True)),
        image_dir,
        findings=findings,
        where=where,
        blank=blank,
        uncertain=uncertain,
        no_patients=no_patients,
        allow_leakage=allow_leakage,
        skip_missing=skip_missing,
        decode=decode,
    )


def check_tables(
    paths: Mapping[str, Path],
    image_dir: Path | str | None,
    *,
    expected: Sequence[str] | None = None,
    findings: Sequence[str] | None = None,
    where: Mapping[str, frozenset[str]] | None = None,
    blank: str | None = None,
    uncertain: str | None = None,
    no_patients: bool = False,
    allow_leakage: bool = False,
    skip_missing: bool = False,
    decode: Callable[[bytes], "DecodedPicture"] | None = None,
) -> DataCheck:
    """Check some of the three CSVs, by the name of their split, as `check_splits` does all of them.

    Args:
        expected: the findings that every CSV must have, in the order that the labels get; by default the first's.
    """
    cell_rules, column_rules = CellRules(blank, uncertain), ColumnRules(findings, where or {}, no_patients=no_patients)
    problems = DataProblems()
    same_names = len({path.name for path in paths.values()}) < len(paths)
    files = {name: str(path) if same_names else path.name for name, path in paths.items()}

    parts: dict[str, Split] = {}
    for name, path in paths.items():
        if expected is None and "train" in parts:
            expected = parts["train"].findings
        rules = {"cell_rules": cell_rules, "column_rules": column_rules}
        part = read_split(name, path, files[name], problems, **rules, expected=expected)
        if part is not None:
            parts[name] = without_duplicates(part, files[name], problems)
            _check_contradictions(parts[name], files[name], problems)

    shared_images, shared_patients = {}, {}
    for pair in PAIRS:
        if pair[0] in parts and pair[1] in parts:
            first, second = parts[pair[0]], parts[pair[1]]
            shared_images[pair] = count_shared_images(first, second, files, problems)
            shared_patients[pair] = count_shared_patients(first, second, files, problems, allow_leakage)
            warn_of_retyped_patients(first, second, files, problems)

    images = CheckedImages(parts)
    if image_dir is not None:
        images = check_images(Path(image_dir), parts, files, problems, skip_missing, decode)
        parts = images.parts
        warn_of_copies(parts, images.digests, files, problems)
    for name, part in parts.items():
        _check_balance(part, files[name], problems)
    shared = {"shared_images": shared_images, "shared_patients": shared_patients}
    found = {"num_unlisted": images.num_unlisted, "found": dict.fromkeys(parts, images.found)}
    return DataCheck(parts, tuple(problems.listed), dict(problems.counts), **shared, **found)


def _check_contradictions(split: Split, file: str, problems: DataProblems) -> None:
    """Warn where "No Finding" stands beside a finding."""
    rows, columns = contradictions([name_key(finding) for finding in split.findings], split.labels)
    if not len(rows):
        return
    lines = ", ".join(str(split.lines[row]) for row in rows[:NUM_EXAMPLES])
    message = (
        f'{len(rows)} of {len(split.images)} rows say "No Finding" and name a finding too '
        f"({listed_names([split.findings[column] for column in columns])}; lines {lines}"
        f"{', ...' if len(rows) > NUM_EXAMPLES else ''}). One of the two is wrong; correct the rows, or leave one out "
        "with --findings."
    )
    problems.warning("contradicting labels", file, message)


def _check_balance(split: Split, file: str, problems: DataProblems) -> None:
    """Warn of findings that cannot be learned (train) or scored (val, test); a split without any label is a fault."""
    if split.labels.size and np.isnan(split.labels).all() and not problems.has_fault(file):
        message = (
            f"every label is blank, so that {UNLABELLED[split.name]}. Fill some in, or give --allow blank-zero if a "
            "blank cell means absent."
        )
        problems.fault("no labels", file, message)
        return
    for column, finding in enumerate(split.findings):
        num_positive, num_negative = _num_positive(split, column), _num_negative(split, column)
        if num_positive and num_negative:
            continue
        found = "no positive" if not num_positive else "no negative"
        outcome = "it cannot be learned" if split.name == "train" else 'its AUROC there is undefined ("n/a")'
        blanks = bool(np.isnan(split.labels[:, column]).any())
        cure = " If a blank cell means absent, give --allow blank-zero." if blanks and num_positive else ""
        problems.warning("one class", file, f"{found} image: {outcome}.{cure}", column=finding)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _num_positive(split: Split, column: int) -> int:
    return int((split.labels[:, column] == 1).sum())


def _num_negative(split: Split, column: int) -> int:
    return int((split.labels[:, column] == 0).sum())


def _table(parts: dict[str, Split]) -> str:
    """Return images, patients and positives of each split and finding as text."""
    blanks = any(np.isnan(part.labels).any() for part in parts.values())
    findings = dict.fromkeys(finding for part in parts.values() for finding in part.findings)
    names = {finding: finding if len(finding) <= 26 else finding[:23] + "..." for finding in findings}
    rows = [f"{'':<28}" + "".join(f"{name:>15}{'':9}" for name in parts)]
    rows.append(f"{'images':<28}" + "".join(f"{len(part.images):>15,}{'':9}" for part in parts.values()))
    num_patients = [
        f"{len(set(part.patients) - {''}):,}" if part.patients_known else "not known" for part in parts.values()
    ]
    rows.append(f"{'patients':<28}" + "".join(f"{number:>15}{'':9}" for number in num_patients))
    rows.append("positives of labelled images" if blanks else "positives (share of images)")
    first = next(iter(parts.values()))
    counts = {finding: _num_positive(first, column) for column, finding in enumerate(first.findings)}
    listed = sorted(findings, key=lambda finding: -counts.get(finding, 0))[:MAX_TABLE_ROWS]
    for finding in filter(set(listed).__contains__, findings):
        cells = [_positives(part, finding, blanks) for part in parts.values()]
        rows.append(f"{names[finding]:<28}" + "".join(f"{cell:>24}" for cell in cells))
    if len(findings) > len(listed):
        rows.append(f"The {len(listed)} most frequent of {len(findings)}; --finding NAME shows any other.")
    return "\n".join(row.rstrip() for row in rows)


def _positives(split: Split, finding: str, blanks: bool) -> str:
    """Return a cell of the table, "12 (1.5 %)", or "12 of 800 (1.5 %)" where some labels are blank."""
    if finding not in split.findings:
        return "-"
    column = split.findings.index(finding)
    num_positive = _num_positive(split, column)
    num_labelled = num_positive + _num_negative(split, column)
    share = f"({100 * num_positive / num_labelled:.1f} %)" if num_labelled else "(n/a)"
    return f"{num_positive:,}{f' of {num_labelled:,}' if blanks else ''}{share:>9}"
