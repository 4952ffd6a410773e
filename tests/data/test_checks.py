"""Check what the three CSVs say together, the image folder, the printed table, and main_train.py's exit codes."""

import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path
from time import process_time

import numpy as np
import pytest

from cxr.data import checks
from cxr.data.checks import DataCheck, check_splits
from cxr.imaging.radiograph import DecodedPicture

MAIN_TRAIN = Path(__file__).parents[2] / "main_train.py"
CSV_NAMES = {"train": "train-small.csv", "val": "val_data.csv", "test": "test_data.csv"}


def rows_of(split: str, num_rows: int = 4) -> list[list[str]]:
    """Return rows (image, Edema, Hernia, patient) in which both findings have both classes."""
    return [[f"{split}{row}.pgm", str(row % 2), str(1 - row % 2), f"{split}{row}"] for row in range(num_rows)]


class Project:
    """Write three CSVs and one small file per image below a folder, and check them."""

    def __init__(self, folder: Path, num_rows: int = 4):
        self.folder = folder
        self.images = folder / "images"
        self.images.mkdir()
        self.rows = {name: rows_of(name, num_rows) for name in CSV_NAMES}
        for image in (row[0] for rows in self.rows.values() for row in rows):
            (self.images / image).write_bytes(b"radiograph " + image.encode())

    def write(self) -> list[Path]:
        for name, rows in self.rows.items():
            lines = [",".join(cells) for cells in (["Image", "Edema", "Hernia", "Patientid"], *rows)]
            (self.folder / CSV_NAMES[name]).write_text("\n".join(lines) + "\n")
        return [self.folder / file for file in CSV_NAMES.values()]

    def check(self, **options) -> DataCheck:
        return check_splits(*self.write(), self.images, **options)


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path)


def decode_text(data: bytes) -> DecodedPicture:
    """Stand in for the decoder: refuse files that are not "radiograph ..."."""
    if not data.startswith(b"radiograph"):
        raise ValueError("not an image")
    return DecodedPicture(np.frombuffer(data, np.uint8).reshape(1, -1), (), "png")


def described(result: DataCheck, severity: str = "fault") -> set[tuple[str, str, int | None]]:
    return {(p.kind, p.file, p.line) for p in result.problems if p.severity == severity}


def test_check_accepts_clean_project(project):
    result = project.check(decode=decode_text)
    assert (result.exit_code, result.problems, result.num_unlisted) == (0, (), 0)
    assert result.splits["val"].images == ("val0.pgm", "val1.pgm", "val2.pgm", "val3.pgm")
    assert result.splits["val"].patients == ("val0", "val1", "val2", "val3")
    np.testing.assert_array_equal(result.splits["val"].labels, [[0, 1], [1, 0], [0, 1], [1, 0]])
    assert re.fullmatch("[0-9a-f]{64}", result.fingerprint)


@pytest.mark.fault("C01")
@pytest.mark.parametrize("kind", ["missing", "directory", "fifo"])
def test_csv_that_is_no_file_exits_3(project, kind):
    paths = project.write()
    paths[1].unlink()
    if kind == "directory":
        paths[1].mkdir()
    elif kind == "fifo":
        os.mkfifo(paths[1])  # reading it would wait for ever
    result = check_splits(*paths, project.images)
    assert result.exit_code == 3
    assert described(result) == {("file", "val_data.csv", None)}
    assert str(paths[1]) in result.faults[0].message
    assert "--val-csv" in result.faults[0].message


@pytest.mark.fault("C01")
def test_unreadable_csv_exits_3(project, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    result = project.check()
    assert result.exit_code == 3
    assert "Permission denied" in result.as_text()


def test_missing_image_folder_exits_3(project):
    result = check_splits(*project.write(), project.folder / "nowhere")
    assert result.exit_code == 3
    assert "--image-dir" in result.faults[0].message


@pytest.mark.fault("C15")
def test_same_row_twice_is_a_warning_and_used_once(project):
    project.rows["train"].append(project.rows["train"][1])
    result = project.check()
    assert described(result, "warning") == {("duplicate row", "train-small.csv", 3)}
    assert result.exit_code == 0
    assert result.splits["train"].images == ("train0.pgm", "train1.pgm", "train2.pgm", "train3.pgm")


@pytest.mark.fault("C16")
def test_same_image_in_two_splits_is_a_fault_for_each_pair(project):
    for pair in (("train", "val"), ("train", "test"), ("val", "test")):
        project.rows = {name: rows_of(name) for name in CSV_NAMES}
        project.rows[pair[1]].append([project.rows[pair[0]][2][0], "0", "1", "somebody"])
        result = project.check(allow_leakage=True)
        assert described(result) == {("shared images", CSV_NAMES[pair[0]], None)}
        assert {shared: count for shared, count in result.shared_images.items() if count} == {pair: 1}
        assert f"'{pair[0]}2.pgm' on lines 4 and 6" in result.faults[0].message


@pytest.mark.fault("C17")
def test_same_patient_in_two_splits_is_a_fault_unless_allowed(project):
    for row in (0, 1, 2):
        project.rows["test"][row][3] = "secret-7"
    project.rows["train"][3][3] = "secret-7"
    refused, allowed = project.check(), project.check(allow_leakage=True)
    assert described(refused) == {("shared patients", "train-small.csv", None)}
    assert refused.shared_patients == {("train", "val"): 0, ("train", "test"): 1, ("val", "test"): 0}
    assert "on lines 5 and 2" in refused.faults[0].message
    assert refused.exit_code == 2
    assert allowed.exit_code == 0
    assert described(allowed, "warning") == {("shared patients", "train-small.csv", None)}
    assert "secret-7" not in refused.as_text() + allowed.as_text()


@pytest.mark.fault("C14")
def test_patients_are_compared_as_text(project):
    project.rows["train"][0][3], project.rows["val"][0][3] = "007", "7"
    result = project.check()
    assert result.exit_code == 0
    assert result.splits["train"].patients[0] == "007"
    assert described(result, "warning") == {("retyped patients", "train-small.csv", None)}


@pytest.mark.fault("C18")
def test_deep_check_warns_of_same_pixels_across_splits(project):
    (project.images / "test3.pgm").write_bytes(b"radiograph train1.pgm")
    (project.images / "val1.pgm").write_bytes(b"radiograph val0.pgm")  # within one split: nothing leaks
    assert project.check().problems == ()
    result = project.check(decode=decode_text)
    assert result.exit_code == 0
    assert described(result, "warning") == {("same pixels", "test_data.csv", 5)}
    assert "'train1.pgm' in train-small.csv line 3" in result.warnings[0].message


def test_deep_check_names_unreadable_image(project):
    (project.images / "val2.pgm").write_bytes(b"half a radiograph")
    result = project.check(decode=decode_text)
    assert described(result) == {("unreadable image", "val_data.csv", 4)}
    assert "not an image" in result.faults[0].message


@pytest.mark.fault("C19", "C20")
@pytest.mark.parametrize("kind", ["link", "linked-folder", "fifo", "folder", "missing", "dangling"])
def test_image_that_must_not_be_opened_is_a_fault(project, kind):
    outside = project.folder / "outside"
    outside.mkdir()
    (outside / "x.pgm").write_bytes(b"radiograph x")
    image = project.images / "val1.pgm"
    image.unlink()
    expected = {"fifo": "no regular file", "folder": "no regular file", "missing": "missing image"}
    expected = expected.get(kind, "image outside the folder")
    if kind == "link":
        image.symlink_to(outside / "x.pgm")
    elif kind == "linked-folder":
        (project.images / "part").symlink_to(outside)
        project.rows["val"][1][0] = "part/x.pgm"
    elif kind == "fifo":
        os.mkfifo(image)
    elif kind == "folder":
        image.mkdir()
    elif kind == "dangling":
        image.symlink_to(project.images / "nothing.pgm")
        expected = "missing image"
    opened = []
    result = project.check(decode=lambda data: opened.append(data) or decode_text(data))
    assert described(result) == {(expected, "val_data.csv", 3)}
    assert result.exit_code == 2
    assert b"radiograph x" not in opened


def test_links_and_subfolders_inside_the_image_folder_are_accepted(project):
    (project.images / "part").mkdir()
    (project.images / "val1.pgm").rename(project.images / "part" / "v.pgm")
    (project.images / "val2.pgm").rename(project.images / "part" / "w.pgm")
    (project.images / "val2.pgm").symlink_to(project.images / "part" / "w.pgm")
    project.rows["val"][1][0] = "part/v.pgm"
    assert project.check(decode=decode_text).exit_code == 0


@pytest.mark.fault("C20")
def test_missing_images_are_counted_and_twenty_listed(tmp_path):
    project = Project(tmp_path, num_rows=60)
    for row in range(25):
        (project.images / f"train{row}.pgm").unlink()
    result = project.check()
    assert [problem.line for problem in result.faults] == list(range(2, 22))
    assert result.counts[("fault", "missing image", "train-small.csv")] == 25
    assert "... and 5 more of this kind" in result.as_text()


@pytest.mark.fault("C20")
@pytest.mark.parametrize(("num_missing", "exit_code"), [(2, 0), (3, 2)])
def test_skip_missing_leaves_out_up_to_one_percent(tmp_path, num_missing, exit_code):
    project = Project(tmp_path, num_rows=200)
    for row in range(num_missing):
        (project.images / f"train{row}.pgm").unlink()
    result = project.check(skip_missing=True)
    assert result.exit_code == exit_code
    assert f"{num_missing} of 200 images are not in the image folder" in result.as_text().replace("\n  ", " ")
    if exit_code == 0:
        assert result.splits["train"].images == tuple(f"train{row}.pgm" for row in range(2, 200))
        np.testing.assert_array_equal(result.splits["train"].labels, [[row % 2, 1 - row % 2] for row in range(2, 200)])
        assert result.splits["train"].lines[0] == 4


@pytest.mark.fault("C21")
def test_unlisted_images_are_counted(project):
    for name in ("more1.pgm", "more2.pgm", ".hidden"):
        (project.images / name).touch()
    assert project.check().num_unlisted == 2
    assert "2 files in the image folder are in none of the three CSVs" in project.check().as_text()


@pytest.mark.fault("C22")
@pytest.mark.parametrize("split", CSV_NAMES)
@pytest.mark.parametrize("label", ["0", "1"])
def test_finding_with_one_class_is_a_warning(project, split, label):
    for row in project.rows[split]:
        row[2] = label
    result = project.check()
    assert result.exit_code == 0
    assert [(p.kind, p.file, p.column) for p in result.warnings] == [("one class", CSV_NAMES[split], "Hernia")]
    assert ("no positive" if label == "0" else "no negative") in result.warnings[0].message


@pytest.mark.fault("C89")
@pytest.mark.parametrize(("split", "words"), checks.UNLABELLED.items())
def test_a_split_without_any_label_is_a_fault(project, split, words):
    """Without a validation label no epoch is the best: the start weights were saved as the trained ones."""
    for row in project.rows[split]:
        row[1:3] = "", ""
    result = project.check(blank="unlabelled")
    assert [(p.kind, p.file) for p in result.faults] == [("no labels", CSV_NAMES[split])]
    assert words in result.faults[0].message
    assert result.warnings == ()
    project.rows[split][0][2] = "1"
    assert project.check(blank="unlabelled").exit_code == 0


@pytest.mark.fault("C23")
def test_one_row_each_runs(project):
    project.rows = {name: rows[:1] for name, rows in project.rows.items()}
    result = project.check()
    assert result.exit_code == 0
    assert {name: len(split.images) for name, split in result.splits.items()} == {"train": 1, "val": 1, "test": 1}


@pytest.mark.fault("C24")
def test_two_hundred_thousand_rows(tmp_path):
    findings = [f"F{number:02}" for number in range(14)]
    labels = np.random.default_rng(0).integers(0, 2, (200_000, 14)).astype("U1")
    paths = []
    for split, rows in (("train", labels), ("val", labels[:10]), ("test", labels[:10])):
        lines = [",".join(["Image", *findings, "Patientid"])]
        lines += [f"{split}{row:08}.png,{','.join(cells)},{split}{row // 2}" for row, cells in enumerate(rows)]
        paths.append(tmp_path / f"{split}.csv")
        paths[-1].write_text("\n".join(lines))
    start = process_time()  # others may use the machine
    result = check_splits(*paths, None)
    assert process_time() - start < 10  # seconds
    np.testing.assert_array_equal(result.splits["train"].labels, labels.astype(np.float32))
    # Memory grows with the rows, and tracing it is slow: a tenth of the rows must keep to a tenth of 1 GiB.
    paths[0].write_text("\n".join(paths[0].read_text().splitlines()[:20_001]))
    tracemalloc.start()
    check_splits(*paths, None)
    assert tracemalloc.get_traced_memory()[1] < 2**30 / 10  # bytes
    tracemalloc.stop()


def test_text_counts_images_patients_and_positives(project):
    project.rows["train"][3][3] = project.rows["train"][0][3]
    project.rows["train"][0][1] = "1"
    lines = project.check().as_text().splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["train", "val", "test"],
        ["images", "4", "4", "4"],
        ["patients", "3", "4", "4"],
    ]
    assert re.findall(r"\d+", lines[4]) == ["3", "75", "0", "2", "50", "0", "2", "50", "0"]
    assert re.findall(r"\d+", lines[5]) == ["2", "50", "0", "2", "50", "0", "2", "50", "0"]
    assert lines[4].startswith("Edema ")
    assert lines[5].startswith("Hernia ")


def test_text_counts_blank_labels_apart(project):
    project.rows["val"][0][1] = ""
    text = project.check(blank="unlabelled").as_text()
    assert re.search(r"Edema +2 of 4 \(50.0 %\) +2 of 3 \(66.7 %\) +2 of 4 \(50.0 %\)", text)


def test_text_fits_a_hundred_columns(project):
    project.rows["train"][0][1] = "x" * 500
    project.rows["test"] = project.rows["train"]
    assert max(map(len, project.check().as_text().splitlines())) <= 100


def run_main(*arguments: str, folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(MAIN_TRAIN), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_main_train_check_prints_table_and_exits_with_code(project):
    files = [f"--{name}-csv={path}" for name, path in zip(CSV_NAMES, project.write(), strict=True)]
    arguments = [*files, f"--image-dir={project.images}", "--check"]
    passed = run_main(*arguments, folder=project.folder)
    assert (passed.returncode, passed.stderr) == (0, "")
    assert "Data check: 0 faults, 0 warnings." in passed.stdout
    project.rows["val"][0][3] = project.rows["train"][0][3]
    project.write()
    leaking = run_main(*arguments, folder=project.folder)
    assert leaking.returncode == 2
    assert "patients who are also in val_data.csv: 1 (" in leaking.stdout
    assert run_main(*arguments, "--allow", "leakage,missing", folder=project.folder).returncode == 0
    (project.folder / "val_data.csv").unlink()
    assert run_main(*arguments, folder=project.folder).returncode == 3


@pytest.mark.parametrize("allow", ["everything", "", "uncertain-zero,uncertain-one"])
def test_main_train_refuses_bad_arguments(tmp_path, allow):
    refused = run_main("--check", "--allow", allow, folder=tmp_path)
    assert refused.returncode == 2
    assert "error: argument --allow: expected" in refused.stderr


@pytest.mark.fault("C17")
def test_mutation_a_check_that_finds_no_shared_patient_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "count_shared_patients", lambda *_: 0)
    with pytest.raises(AssertionError):
        test_same_patient_in_two_splits_is_a_fault_unless_allowed(Project(tmp_path))
