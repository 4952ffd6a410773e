"""Any CSV table: labels as text in one column or as 0 and 1 in several; rows and names by flags."""

import argparse
import ast
from collections import Counter
from pathlib import Path

from cxr.data.vocabulary import CellRules
from tools.datasets.collection import ABSENT, PRESENT, UNLABELLED, Collection, PrepareError
from tools.datasets.source_table import SourceTable

HELP = "any other CSV table"
SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validate": "val", "dev": "val"}
SPLIT_NAMES |= {"validation": "val", "test": "test", "testing": "test"}
NONE_NAMES = "No Finding,Normal,None"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this source."""
    parser.add_argument("table", type=Path, help="CSV file, plain or gzipped")
    parser.add_argument("--image-column", default="Image", metavar="NAME", help="column of file names (default: Image)")
    parser.add_argument("--patient-column", metavar="NAME", help="column of patients (default: each image is one)")
    parser.add_argument("--split-column", metavar="NAME", help="column of train, val and test (default: drawn)")
    labels = parser.add_mutually_exclusive_group(required=True)
    labels.add_argument("--label-column", metavar="NAME", help="column that names the findings of an image")
    labels.add_argument(
        "--finding",
        action="append",
        metavar="NAME",
        help="column of one finding, 1 and 0 or true and false; repeatable",
    )
    parser.add_argument(
        "--separator", default="|", metavar="TEXT", help="what stands between two findings of a cell (default: |)"
    )
    parser.add_argument(
        "--none", default=NONE_NAMES, metavar="A,B", help=f"names that mean no finding (default: {NONE_NAMES})"
    )
    parser.add_argument(
        "--where", action="append", default=[], metavar="COLUMN=VALUE", type=_pair,
        help="take only rows with this value; repeated for one column, any of its values",
    )  # fmt: skip
    parser.add_argument(
        "--rename", action="append", default=[], metavar="NAME=FINDING", type=_pair, help="call a finding otherwise"
    )
    parser.add_argument("--blank", choices=("zero", "unlabelled"), help="what a blank cell of a finding's column means")
    parser.add_argument("--uncertain", choices=("zero", "one", "blank"), help="what -1 in a finding's column means")


def _pair(text: str) -> tuple[str, str]:
    """Split "NAME=VALUE", for argparse."""
    name, separator, value = (part.strip() for part in text.partition("="))
    if not separator or not name:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE; received {text!r}")
    return name, value


def read(args: argparse.Namespace) -> Collection:
    """Read the table; several rows of one image are put together, a finding of any of them being the image's."""
    rows = _Rows(args)
    if args.finding:
        return rows.with_label_columns()
    return rows.with_label_text()


class _Rows:
    """Read the rows that --where chooses."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        where: dict[str, set[str]] = {}
        for name, value in args.where:
            where.setdefault(name, set()).add(value)
        fixed = [args.image_column, args.patient_column, args.split_column, args.label_column, *(args.finding or ())]
        self.table = SourceTable(args.table, [name for name in (*fixed, *where) if name])
        self.where = [(self.table.place(name), values) for name, values in where.items()]
        self.left_out: Counter[str] = Counter()
        self.rename = dict(args.rename)

    def _chosen(self):
        """Yield (line, cells, image, patient, split) of the rows that are used."""
        args = self.args
        image_of = self.table.getter(args.image_column)
        patient_of = self.table.getter(args.patient_column) if args.patient_column else image_of
        split_of = self.table.getter(args.split_column) if args.split_column else lambda cells: [""]
        for line, cells in self.table.rows():
            if not all(cells[place].strip() in values for place, values in self.where):
                self.left_out["not chosen (--where)"] += 1
                continue
            (image,), (patient,), (split,) = image_of(cells), patient_of(cells), split_of(cells)
            if not image or not patient:
                raise PrepareError(f"{args.table.name} line {line}: blank image name or patient.")
            if split and split.lower() not in SPLIT_NAMES:
                raise PrepareError(
                    f"{args.table.name} line {line}: expected train, val or test, received {split!r:.40}."
                )
            yield line, cells, image, patient, SPLIT_NAMES.get(split.lower(), "")

    def _collection(self, findings: list[str]) -> Collection:
        renamed = [self.rename.get(name, name) for name in findings]
        data = Collection(tuple(renamed), self.args.patient_column is not None, left_out=self.left_out)
        unused = set(self.rename) - set(findings)
        if unused or len(set(renamed)) < len(renamed):
            found = f"no finding is called {sorted(unused)[0]!r}" if unused else "two findings get the same name"
            raise PrepareError(f"--rename: {found}. Findings: {', '.join(findings)[:300]}.")
        if not data.patients_known:
            data.notes.append(
                "No --patient-column: each image counts as a patient. If one has several, scores may be too good."
            )
        return data

    def with_label_columns(self) -> Collection:
        """Return the images of a table with a column per finding."""
        rules = CellRules(self.args.blank, self.args.uncertain)
        data, seen = self._collection(self.args.finding), {}
        cells_of = self.table.getter(*self.args.finding)
        for line, cells, image, patient, split in self._chosen():
            labels = [self._label(rules, cell, line) for cell in cells_of(cells)]
            if image not in seen:
                seen[image] = labels, patient, split
                data.add(image, patient, labels, split)
            elif seen[image] == (labels, patient, split):
                self.left_out["the same image again"] += 1
            else:
                raise PrepareError(
                    f"{self.args.table.name} line {line}: image {image!r:.80} again, with other labels, of another "
                    "patient or in another split. Keep one of its rows."
                )
        return data

    def _label(self, rules: CellRules, cell: str, line: int) -> int:
        value = rules.value(cell)
        if value is None:
            reason = (
                rules.explain(cell)
                .replace("--allow blank-zero", "--blank zero")
                .replace("--allow blank", "--blank unlabelled")
            )
            raise PrepareError(f"{self.args.table.name} line {line}: {reason}")
        return UNLABELLED if value != value else PRESENT if value else ABSENT

    def with_label_text(self) -> Collection:
        """Return the images of a table whose cells name the findings."""
        none = {name.strip().lower() for name in self.args.none.split(",")}
        images: dict[str, tuple[str, str, set[str]]] = {}
        label_of = self.table.getter(self.args.label_column)
        for line, cells, image, patient, split in self._chosen():
            if not label_of(cells)[0] and "" not in none:
                self.left_out[f"blank {self.args.label_column} (--none 'Normal,' takes it as no finding)"] += 1
                continue
            names = {name for name in _names(label_of(cells)[0], self.args.separator) if name.lower() not in none}
            known = images.setdefault(image, (patient, split, set()))
            if known[:2] != (patient, split):
                raise PrepareError(
                    f"{self.args.table.name} line {line}: image {image!r:.80} again, of another patient or in another "
                    "split. Keep rows of one."
                )
            known[2].update(names)
        findings = sorted({name for _, _, names in images.values() for name in names}, key=str.lower)
        if not findings:
            raise PrepareError(f"{self.args.table.name}: no finding in column {self.args.label_column!r}.")
        data = self._collection(findings)
        for image, (patient, split, names) in images.items():
            data.add(image, patient, [int(name in names) for name in findings], split)
        return data


def _names(cell: str, separator: str) -> list[str]:
    """Split a cell that names findings; a Python list of names is understood too."""
    if cell.startswith("[") and cell.endswith("]"):
        try:
            parts = [str(part) for part in ast.literal_eval(cell)]
        except (ValueError, SyntaxError):
            parts = cell.strip("[]").split(separator)
    else:
        parts = cell.split(separator)
    return [part.strip() for part in parts if part.strip()]
