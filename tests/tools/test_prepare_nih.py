"""From NIH's files to this project's: tables, splits, downloads over a bad line, and unpacking."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nih_tables import ROWS, command, read_rows

from cxr.data.checks import check_splits
from tools import prepare_nih
from tools.datasets.splitting import draw_patients
from tools.nih.tables import FINDINGS, read_entries, read_list

REAL_DATA = os.environ.get("CXR_REAL_DATA")


# Tables


def test_tables_become_the_three_csvs(tables, capsys):
    assert prepare_nih.main(command(tables, "--val-share", "0.25")) == 0
    rows = {name: read_rows(tables / "out" / f"{name}.csv") for name in ("train-small", "val_data", "test_data")}
    assert [row["Image"] for row in rows["test_data"]] == ["00000004_000.png", "00000004_001.png"]
    everything = {row["Image"]: row for part in rows.values() for row in part}
    assert len(everything) == sum(map(len, rows.values())) == len(ROWS)
    for image, labels, patient in ROWS:
        assert everything[image]["Patientid"] == patient
        assert {name for name in FINDINGS if everything[image][name] == "1"} == set(labels.split("|")) - {"No Finding"}
    val_patients = {row["Patientid"] for row in rows["val_data"]}
    assert len(val_patients) == 1
    assert not val_patients & {row["Patientid"] for row in rows["train-small"]}
    files = [tables / "out" / name for name in ("train-small.csv", "val_data.csv", "test_data.csv")]
    assert check_splits(*files, image_dir=None).faults == ()
    table = capsys.readouterr().out.splitlines()
    assert table[1].split() == ["images", "3", "1", "2"]
    assert table[2].split() == ["patients", "2", "1", "1"]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("entries.csv", "Hernia", "Hernio", "entries.csv line 4: expected 'No Finding' or some of the 14"),
        ("entries.csv", "Hernia", "No Finding|Hernia", "line 4"),
        ("entries.csv", "Patient ID", "Patient", "missing: Patient ID"),
        ("entries.csv", "00000002_000.png,Hernia,0,2,58", "00000002_000.png", "line 4: expected 5 fields, found 1"),
        ("entries.csv", "00000003_000.png", "00000001_000.png", "line 5: image '00000001_000.png' is there twice"),
        ("entries.csv", ",2,", ",,", "line 4: blank"),
        ("train_val.txt", "00000002_000.png", "00000009_000.png", "1 listed images are not in the label table"),
        ("train_val.txt", "00000002_000.png", "00000001_000.png", "each once; found 4, 3 distinct"),
        ("train_val.txt", "00000002_000.png", "00000004_000.png", "1 images are in both lists"),
        ("entries.csv", "00000004_001.png,Edema,0,4", "00000004_001.png,Edema,0,1", "1 patients are in both lists"),
    ],
)
def test_tables_that_are_not_nihs_stop_with_the_line(tables, capsys, file, old, new, message):
    text = (tables / file).read_text()
    assert old in text
    (tables / file).write_text(text.replace(old, new, 1))
    assert prepare_nih.main(command(tables)) == 2
    assert message in capsys.readouterr().err
    assert not (tables / "out").exists()


def test_other_data_is_not_overwritten_unasked(tables, capsys):
    assert prepare_nih.main(command(tables)) == 0
    assert prepare_nih.main(command(tables)) == 0  # the very same: nothing to lose
    before = (tables / "out" / "val_data.csv").read_text()
    assert prepare_nih.main(command(tables, "--val-share", "0.6")) == 2
    assert "exists and holds other data" in capsys.readouterr().err
    assert (tables / "out" / "val_data.csv").read_text() == before
    assert prepare_nih.main(command(tables, "--val-share", "0.6", "--overwrite")) == 0
    assert (tables / "out" / "val_data.csv").read_text() != before


def test_missing_and_damaged_tables(tables, capsys):
    (tables / "test.txt.gz").write_bytes((tables / "test.txt.gz").read_bytes()[:-9])
    assert prepare_nih.main(command(tables)) == 2
    assert "damaged gzip file" in capsys.readouterr().err
    (tables / "test.txt.gz").unlink()
    assert prepare_nih.main(command(tables)) == 3


def test_validation_patients_are_drawn_by_the_seed_alone():
    rng = np.random.default_rng(1)
    patients = [str(rng.integers(200)) for _ in range(1000)]
    drawn = draw_patients(patients, 0.2, seed=3)
    largest = max(Counter(patients).values())
    assert 200 <= sum(patient in drawn for patient in patients) < 200 + largest
    assert draw_patients(patients[::-1], 0.2, seed=3) == drawn
    assert draw_patients(patients, 0.2, seed=4) != drawn


@pytest.mark.skipif(not REAL_DATA, reason="CXR_REAL_DATA names no folder with NIH's tables")
def test_real_tables_give_the_official_split(tmp_path):
    labels = Path(REAL_DATA) / "labels"
    arguments = [
        "--entries", str(labels / "Data_Entry_2017_v2020.csv.gz"), "--out", str(tmp_path),
        "--train-val-list", str(labels / "train_val_list.txt.gz"), "--test-list", str(labels / "test_list.txt.gz"),
        "--boxes", str(labels / "BBox_List_2017.csv"),
    ]  # fmt: skip
    assert prepare_nih.main(arguments) == 0
    parts = {
        name: pd.read_csv(tmp_path / f"{name}.csv", dtype={"Patientid": str})
        for name in ("train-small", "val_data", "test_data")
    }
    assert len(parts["train-small"]) + len(parts["val_data"]) == 86_524
    assert len(parts["test_data"]) == 25_596
    patients = [set(part["Patientid"]) for part in parts.values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 30_805  # NIH's number of patients
    # Counted again with pandas alone, from NIH's files.
    table = pd.read_csv(labels / "Data_Entry_2017_v2020.csv.gz").set_index("Image Index")
    counts = table["Finding Labels"].str.get_dummies("|").drop(columns="No Finding")
    test_list = pd.read_csv(labels / "test_list.txt.gz", header=None)[0]
    train_val_list = pd.read_csv(labels / "train_val_list.txt.gz", header=None)[0]
    both = pd.concat([parts["train-small"], parts["val_data"]])
    for part, names in ((parts["test_data"], test_list), (both, train_val_list)):
        assert set(part["Image"]) == set(names)
        assert part[list(FINDINGS)].sum().to_dict() == counts.loc[names].sum().to_dict()
    assert len(counts.columns) == len(FINDINGS) == 14
    assert len((tmp_path / "boxes.csv").read_text().splitlines()) == 985


def test_readers_name_the_file(tables):
    assert list(read_entries(tables / "entries.csv")) == [image for image, _, _ in ROWS]
    assert read_list(tables / "test.txt.gz") == ["00000004_000.png", "00000004_001.png"]
