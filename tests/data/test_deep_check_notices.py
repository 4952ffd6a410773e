"""What is unusual about a picture is counted by the deep check of the training data."""

import csv

import pytest
import radiographs as files

from cxr.data.checks import check_splits
from cxr.imaging.radiograph import decode_with_notices

PICTURE = files.radiograph()
LATERAL = "The file is marked as a lateral view; frontal views (PA or AP) are expected."
RAW = "The file is marked as raw detector data, which looks different from a picture for reading."


@pytest.mark.fault("I67")
def test_notices_are_counted_by_split_and_stop_nothing(tmp_path):
    pictures = {
        "train": [
            files.dicom(PICTURE),
            files.dicom(files.radiograph(seed=1), ViewPosition="LL"),
            files.dicom(files.radiograph(seed=2), ViewPosition="RL", PresentationIntentType="FOR PROCESSING"),
        ],
        "val": [files.png(files.radiograph(seed=3))],
        "test": [files.dicom(files.radiograph(seed=4), ViewPosition="LATERAL")],
    }
    (tmp_path / "images").mkdir()
    for split, contents in pictures.items():
        rows = [["Image", "Edema", "Patientid"]]
        for number, data in enumerate(contents):
            rows.append([f"{split}{number}.dcm", number % 2, f"{split}{number}"])
            (tmp_path / "images" / rows[-1][0]).write_bytes(data)
        with (tmp_path / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    paths = [tmp_path / f"{split}.csv" for split in pictures]
    check = check_splits(*paths, tmp_path / "images", decode=decode_with_notices)
    found = {(problem.file, problem.message) for problem in check.warnings if problem.kind == "notice"}
    assert found == {
        ("train.csv", f"{LATERAL} (2 of 3 images, the first is 'train1.dcm')"),
        ("train.csv", f"{RAW} (1 of 3 images, the first is 'train2.dcm')"),
        ("test.csv", f"{LATERAL} (1 of 1 images, the first is 'test0.dcm')"),
    }
    assert check.exit_code == 0
    assert "raw detector data" in check.as_text()
    assert not [problem for problem in check_splits(*paths, tmp_path / "images").warnings if problem.kind == "notice"]
