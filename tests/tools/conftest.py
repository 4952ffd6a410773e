"""Fixtures of the tests of the tools."""

import gzip

import pytest
from nih_tables import HEADER, ROWS


@pytest.fixture
def tables(tmp_path):
    """NIH's three tables for six images: patients 1 to 3 to train on, patient 4 to test."""
    lines = [HEADER, *(f"{image},{labels},0,{patient},58" for image, labels, patient in ROWS)]
    (tmp_path / "entries.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "train_val.txt").write_text("\n".join(image for image, _, patient in ROWS if patient != "4"))
    (tmp_path / "test.txt.gz").write_bytes(gzip.compress(b"00000004_000.png\n00000004_001.png"))
    return tmp_path
