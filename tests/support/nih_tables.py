"""NIH's tables in small, and the command that turns them into CSVs."""

import csv

HEADER = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age"


ROWS = [
    ("00000001_000.png", "Cardiomegaly|Emphysema", "1"),
    ("00000001_001.png", "No Finding", "1"),
    ("00000002_000.png", "Hernia", "2"),
    ("00000003_000.png", "Pleural_Thickening", "3"),
    ("00000004_000.png", "No Finding", "4"),
    ("00000004_001.png", "Edema", "4"),
]


def command(folder, *more):
    return [
        "--entries", f"{folder}/entries.csv", "--train-val-list", f"{folder}/train_val.txt",
        "--test-list", f"{folder}/test.txt.gz", "--out", f"{folder}/out", *more,
    ]  # fmt: skip


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
