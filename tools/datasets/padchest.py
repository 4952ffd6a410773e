"""PadChest: a Python list of names per cell -> NIH's 14 findings, or the names as they are.

Columns as in the data set's description (Bustos et al. 2020, "PadChest: a large chest x-ray image dataset with
multi-label annotated reports", doi 10.1016/j.media.2020.101797): ImageID, ImageDir, PatientID, Projection (PA, AP,
AP_horizontal, L, COSTAL, ...), MethodLabel, Labels and others; the pictures are 16-bit PNG. Which of the 193 names
(174 findings, 19 diagnoses) are taken for which of the 14 is in padchest_findings.csv beside this file: exact names,
no words inside names ("subcutaneous emphysema" is no emphysema). It is this project's reading, not the authors'.
"""

import argparse
import ast
from collections import Counter
from pathlib import Path

from tools.datasets.collection import Collection, PrepareError
from tools.datasets.source_table import SourceTable
from tools.nih.tables import FINDINGS

HELP = "PadChest: Labels as a Python list per cell, 174 findings"
MAPPING = Path(__file__).with_name("padchest_findings.csv")
# Reports that say nothing of the picture itself.
USELESS = frozenset({"exclude", "suboptimal study"})
EMPTY = frozenset({"unchanged"})  # alone: as before, whatever that was
NORMAL = "normal"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this source."""
    parser.add_argument("table", type=Path, help="PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv (.gz)")
    parser.add_argument(
        "--projections",
        default="PA,AP",
        metavar="A,B",
        help="values of Projection to take (default: PA,AP); all takes every film",
    )
    parser.add_argument(
        "--names",
        choices=("nih", "own"),
        default="nih",
        help="NIH's 14 findings by the mapping, or PadChest's own names (default: nih)",
    )
    parser.add_argument(
        "--mapping",
        type=Path,
        metavar="FILE",
        default=MAPPING,
        help="table of PadChest,Finding to use instead (several findings of a name: A|B)",
    )
    parser.add_argument(
        "--min-images",
        type=int,
        default=1,
        metavar="N",
        help="with --names own, leave out names of fewer images (default: 1)",
    )
    parser.add_argument(
        "--physicians",
        action="store_true",
        help="take only rows that physicians labelled (MethodLabel), not those of the neural network",
    )


def read(args: argparse.Namespace) -> Collection:
    """Read the table; PadChest has no split of its own."""
    projections = None if args.projections == "all" else {name.strip() for name in args.projections.split(",")}
    rows, left_out = _read_rows(args.table, projections, args.physicians)
    if args.names == "own":
        counts = Counter(name for _, _, names in rows for name in names if name != NORMAL)
        findings = tuple(sorted((name for name in counts if counts[name] >= args.min_images), key=str.lower))
        mapping = {name: (name,) for name in findings}
    else:
        findings, mapping = FINDINGS, read_mapping(args.mapping)
    data = Collection(findings, left_out=left_out)
    unknown: Counter[str] = Counter()
    for image, patient, names in rows:
        present = {finding for name in names for finding in mapping.get(name, ())}
        unknown.update(name for name in names if args.names == "nih" and name not in mapping)
        data.add(image, patient, [int(finding in present) for finding in findings])
    if unknown:
        some = ", ".join(name for name, _ in unknown.most_common(5))
        data.notes.append(f"{len(unknown)} names are not in the mapping and count as no finding, such as {some}.")
    return data


def _read_rows(
    path: Path, projections: set[str] | None, physicians: bool
) -> tuple[list[tuple[str, str, frozenset[str]]], Counter[str]]:
    """Return (image, patient, names) of the rows that are used, and how many are not and why."""
    columns = ("ImageID", "PatientID", "Projection", "Labels", *(("MethodLabel",) if physicians else ()))
    table = SourceTable(path, columns)
    getter = table.getter(*columns)
    rows, left_out, known = [], Counter(), {}
    for _, cells in table.rows():
        image, patient, projection, text, *method = getter(cells)
        names = known.setdefault(text, parse_labels(text)) if text not in known else known[text]
        if projections is not None and projection not in projections:
            left_out["projection not chosen (--projections)"] += 1
        elif method and method[0].lower() != "physician":
            left_out["not labelled by a physician (--physicians)"] += 1
        elif not image or not patient:
            left_out["no image or patient id"] += 1
        elif not names:
            left_out["no labels, or labels that are no list of names"] += 1
        elif names & USELESS:
            left_out["marked as excluded or suboptimal"] += 1
        elif names <= EMPTY:
            left_out['labelled "unchanged" alone'] += 1
        else:
            rows.append((image, patient, names))
    return rows, left_out


def parse_labels(text: str) -> frozenset[str]:
    """Return the names of a cell such as "['pleural effusion', ' cardiomegaly']"; none where it is no such list."""
    if not text.startswith("["):
        return frozenset()
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return frozenset()
    if not all(isinstance(name, str) for name in names):
        return frozenset()
    return frozenset(" ".join(name.split()) for name in names) - {""}


def read_mapping(path: Path) -> dict[str, tuple[str, ...]]:
    """Read PadChest name -> findings, none for a name that is none of the 14.

    Raises: PrepareError where a finding is not one of the 14.
    """
    table = SourceTable(path, ("PadChest", "Finding"))
    mapping = {}
    for line, cells in table.rows():
        name, text = table.getter("PadChest", "Finding")(cells)
        findings = tuple(part for part in text.split("|") if part)
        if unknown := set(findings) - set(FINDINGS):
            raise PrepareError(f"{path.name} line {line}: {sorted(unknown)[0]!r} is none of NIH's 14 findings.")
        mapping[name] = findings
    return mapping
