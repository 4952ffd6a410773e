"""The sample is known by what it is: other paths, line ends, orders and columns change nothing, other pictures do."""

import csv
import io
import shutil
from pathlib import Path

import pytest

import main_train
from cxr.data.checks import check_splits
from cxr.training.arguments import parse_args
from cxr.training.data_sets import is_sample

ROOT = Path(__file__).resolve().parents[2]
NAMES = {"train": "train-small.csv", "val": "val_data.csv", "test": "test_data.csv"}


def read(folder: Path, image_dir: Path | None = None, **choices):
    return check_splits(*(folder / name for name in NAMES.values()), image_dir, **choices)


@pytest.fixture
def copy(tmp_path):
    for name in NAMES.values():
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def with_windows_line_ends(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))


def with_rows_and_columns_turned(path: Path) -> None:
    header, *rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8")))
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([line[::-1] for line in [header, *rows[::-1]]])


@pytest.mark.parametrize("change", [with_windows_line_ends, with_rows_and_columns_turned])
def test_the_sample_written_in_another_way_is_the_sample(copy, change):
    for name in NAMES.values():
        change(copy / name)
    data = read(copy)
    assert all(is_sample(split, ROOT / "images") for split in data.splits.values())


def test_the_sample_with_chosen_findings_is_the_sample():
    data = read(ROOT, findings=["Edema", "Effusion"])
    assert all(is_sample(split, ROOT / "images") for split in data.splits.values())


def test_a_row_less_or_another_patient_is_not_the_sample(copy):
    lines = (copy / "val_data.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (copy / "val_data.csv").write_text("".join(lines[:-1]), encoding="utf-8")
    (copy / "test_data.csv").write_text(
        (copy / "test_data.csv").read_text(encoding="utf-8").replace(",2\n", ",20002\n"), encoding="utf-8"
    )
    found = {name: is_sample(split, ROOT / "images") for name, split in read(copy).splits.items()}
    assert found == {"train": True, "val": False, "test": False}


def test_other_pictures_under_the_samples_names_are_not_the_sample(tmp_path):
    """NIH's own radiographs have such names, and are of patients."""
    test = read(ROOT).splits["test"]
    for image in test.images:
        (tmp_path / image).symlink_to(ROOT / "images" / image)
    assert is_sample(test, tmp_path)
    (tmp_path / test.images[7]).unlink()
    shutil.copy(ROOT / "images" / test.images[8], tmp_path / test.images[7])
    assert not is_sample(test, tmp_path)


@pytest.mark.parametrize("spelling", ["test_data.csv", "./images/../test_data.csv", None])
def test_default_boxes_are_the_samples_however_its_csv_is_named(monkeypatch, copy, spelling):
    monkeypatch.chdir(ROOT)
    path = spelling or str(copy / "test_data.csv")
    args = parse_args(["--test-csv", path], description="", data_dir=ROOT, model_path=ROOT / "model.h5")
    data = main_train.check_data(args)
    assert len(main_train.default_boxes(data.splits["test"], args.image_dir)) == 1385
