"""Each source's own layout in small, through the command and the data check; the numbers are worked out by hand."""

import itertools

import numpy as np
import pytest
import radiographs as files
from data_sources import (
    chexpert_files,
    mimic_files,
    padchest_file,
    rsna_files,
    vindr_files,
    write_table,
)
from prepared_data import check_passes, refused, rows_in, run

from cxr.data.boxes import read_boxes
from cxr.imaging.orientation import Turn
from tools.datasets.boxes import framed_box
from tools.datasets.chexpert_labels import FINDINGS as CHEXPERT_FINDINGS
from tools.datasets.padchest import MAPPING, parse_labels, read_mapping
from tools.nih.tables import FINDINGS as NIH_FINDINGS

# CheXpert


@pytest.mark.fault("C70")
@pytest.mark.parametrize(
    ("blank", "uncertain"), [("zero", "unlabelled"), ("zero", "one"), ("unlabelled", "zero"), ("zero", "zero")]
)
def test_chexpert_blank_and_uncertain_labels_mean_what_is_said(tmp_path, capsys, blank, uncertain):
    chexpert = chexpert_files(tmp_path / "small")
    out = chexpert.parent / "out"
    printed = run(capsys, "chexpert", chexpert, "--out", out, "--blank", blank, "--uncertain", uncertain)
    everything = {image: row for part in rows_in(out).values() for image, row in part.items()}
    assert len(everything) == 46
    meanings = {"zero": "0", "one": "1", "unlabelled": ""}
    for image, row in everything.items():
        patient = int(row["Patientid"].removeprefix("patient"))
        expected = ("1", "0", meanings[uncertain], meanings[blank])[patient % 4]
        assert row["Cardiomegaly"] == expected, image
        assert row["Edema"] == ("1" if patient % 2 else meanings[blank])
    assert "left out: 46 rows, view not chosen (--view)" in printed
    # 13 of 14 cells are blank but for Edema's and Cardiomegaly's.
    num_blank = 12 * 46 + 23 + sum(patient % 4 == 3 for patient in (*range(40), *range(100, 106)))
    assert f"{num_blank:,} blank labels taken as {blank}" in printed


def test_chexpert_keeps_its_validation_split_and_draws_a_test_split_by_patient(tmp_path, capsys):
    chexpert = chexpert_files(tmp_path / "small")
    out = chexpert.parent / "out"
    printed = run(capsys, "chexpert", chexpert, "--out", out, "--image-dir", chexpert, "--view", "all")
    splits = rows_in(out)
    assert {row["Patientid"] for row in splits["val"].values()} == {f"patient{number:05}" for number in range(100, 106)}
    assert len(splits["test"]) == 16  # a fifth of the 80 training images, two per patient
    patients = [{row["Patientid"] for row in part.values()} for part in splits.values()]
    assert not patients[0] & patients[2]
    assert "valid/patient00100/study1/view1_frontal.jpg" in splits["val"]
    assert "--allow blank" in printed
    check_passes(capsys, printed)


# MIMIC-CXR-JPG


@pytest.mark.fault("C71")
def test_mimic_joins_three_gzipped_tables_and_keeps_the_official_split(tmp_path, capsys):
    mimic = mimic_files(tmp_path / "mimic")
    out = mimic.parent / "out"
    printed = run(capsys, "mimic-cxr-jpg", mimic, "--out", out, "--image-dir", mimic / "files")
    splits = rows_in(out)
    assert {split: len(part) for split, part in splits.items()} == {"train": 4, "val": 4, "test": 3}
    row = splits["val"]["p10/p10000037/s50000001/00000001-pa.jpg"]
    assert row["Patientid"] == "10000037"
    assert [name for name in CHEXPERT_FINDINGS if row[name] == "1"] == [CHEXPERT_FINDINGS[1]]
    assert "left out: 12 rows, view not chosen (--views)" in printed
    assert "left out: 1 rows, its study has no labels" in printed
    check_passes(capsys, printed)


# VinDr-CXR


@pytest.mark.fault("C72")
def test_vindr_readers_vote_and_boxes_get_nihs_frame(tmp_path, capsys):
    folder = vindr_files(tmp_path / "vindr", with_test=True)
    out = tmp_path / "out"
    printed = run(capsys, "vindr", folder, "--out", out, "--image-dir", folder, "--val-share", "0.2")
    splits = rows_in(out)
    assert list(splits["test"]) == ["test/b0.dicom", "test/b1.dicom", "test/b2.dicom"]
    assert (len(splits["train"]), len(splits["val"])) == (8, 2)
    for image, row in {**splits["train"], **splits["val"]}.items():
        assert row["Cardiomegaly"] == str(int(int(image[len("train/a")]) % 2 == 0))
        assert "Patientid" not in row
    assert splits["test"]["test/b2.dicom"]["Other lesion"] == "1"
    boxes = {(box.image, box.finding): box for box in read_boxes(out / "boxes.csv")}
    assert len(read_boxes(out / "boxes.csv")) == 12  # two readers' on five images, and two of the test split
    box = boxes["train/a4.dicom", "Cardiomegaly"]  # 50 to 150 of 200, 25 to 75 of 104
    np.testing.assert_allclose([box.left, box.width], [0.25, 0.5], atol=1e-9)
    np.testing.assert_allclose([box.top, box.height], [25 / 104, 50 / 104], atol=1 / 8192)
    assert "names no patients" in printed
    assert "no-patients" in printed
    check_passes(capsys, printed)


@pytest.mark.fault("I96")
@pytest.mark.parametrize("turn", [Turn(*steps) for steps in itertools.product((False, True), (1, -1), (1, -1))])
@pytest.mark.parametrize("sizes_known", [False, True])
def test_vindr_boxes_follow_a_picture_that_is_brought_upright(tmp_path, capsys, turn, sizes_known):
    """Readers drew them on the picture as it is stored."""
    directions = ["H" if turn.rows < 0 else "F", "R" if turn.columns < 0 else "L"]  # of columns, of rows
    folder, stored = vindr_files(tmp_path / "vindr", with_test=False), files.radiograph(160, 200)
    (folder / "train" / "a0.dicom").write_bytes(
        files.dicom(stored, PatientOrientation=directions if turn.transposed else directions[::-1])
    )
    (tmp_path / "meta.csv").write_text("image_id,dim0,dim1\na0,160,200\n")
    sizes = ("--sizes", tmp_path / "meta.csv") if sizes_known else ()
    run(capsys, "vindr", folder, "--out", tmp_path / "out", "--image-dir", folder, *sizes)
    box = next(box for box in read_boxes(tmp_path / "out" / "boxes.csv") if box.image == "train/a0.dicom")
    drawn = np.zeros_like(stored)
    drawn[25:75, 50:150] = 1
    rows, columns = np.nonzero(turn.apply(drawn))
    height, width = turn.apply(drawn).shape
    found = [box.left * width, box.top * height, (box.left + box.width) * width, (box.top + box.height) * height]
    expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(found, expected, atol=0.05)


@pytest.mark.parametrize(("min_readers", "num_positive"), [(1, 10), (2, 5), (3, 0)])
def test_vindr_takes_as_many_readers_as_wanted(tmp_path, capsys, min_readers, num_positive):
    folder = vindr_files(tmp_path / "vindr", with_test=False)
    run(capsys, "vindr", folder, "--out", tmp_path / "out", "--min-readers", min_readers)
    rows = [row for part in rows_in(tmp_path / "out").values() for row in part.values()]
    assert sum(row["Cardiomegaly"] == "1" for row in rows) == num_positive


@pytest.mark.fault("C83")
@pytest.mark.parametrize("min_readers", [0, -1])
def test_vindr_without_any_reader_is_refused(tmp_path, capsys, min_readers):
    """No reader needed would give every image every finding."""
    folder = vindr_files(tmp_path / "vindr", with_test=False)
    with pytest.raises(SystemExit, match="2"):
        run(capsys, "vindr", folder, "--out", tmp_path / "out", "--min-readers", min_readers)
    assert "expected --min-readers of at least 1" in capsys.readouterr().err


@pytest.mark.fault("C72")
def test_vindr_without_sizes_says_that_boxes_are_left_out(tmp_path, capsys):
    folder = vindr_files(tmp_path / "vindr", with_test=False)
    printed = run(capsys, "vindr", folder, "--out", tmp_path / "out")
    assert "10 boxes are left out: the sizes of their pictures are not known (--sizes)" in printed
    assert not (tmp_path / "out" / "boxes.csv").exists()
    # Kaggle's: rows first.
    write_table(tmp_path / "meta.csv", "image_id,dim0,dim1", [f"a{number},{100 + number},200" for number in range(10)])
    run(capsys, "vindr", folder, "--out", tmp_path / "with", "--sizes", tmp_path / "meta.csv")
    boxes = read_boxes(tmp_path / "with" / "boxes.csv")
    assert len(boxes) == 10
    assert boxes[0].left == 0.25
    assert boxes[0].top == 0.25


@pytest.mark.fault("C72")
def test_boxes_that_do_not_fit_their_picture_are_refused(tmp_path, capsys):
    folder = vindr_files(tmp_path / "vindr", with_test=False)
    write_table(tmp_path / "meta.csv", "image_id,width,height", [f"a{number},120,100" for number in range(10)])
    said = refused(capsys, "vindr", folder, "--out", tmp_path / "out", "--sizes", tmp_path / "meta.csv")
    assert "is not in a picture of 120 x 100" in said


def test_framed_boxes_never_leave_the_frame(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(500):
        width, height = rng.integers(3, 5000, 2)
        left, right = np.sort(rng.random(2)) * width
        top, bottom = np.sort(rng.random(2)) * height
        box = framed_box("a", "Mass", (left, top, right, max(bottom, top + 1e-6)), (int(width), int(height)))
        assert abs(box.x - left / width * 1024) <= 1 / 16 + 1e-9
        rows.append(f"a.png,Mass,{box.x:.15g},{box.y:.15g},{box.width:.15g},{box.height:.15g},,,")
    write_table(tmp_path / "boxes.csv", "Image Index,Finding Label,Bbox [x,y,w,h],,,", rows)
    assert len(read_boxes(tmp_path / "boxes.csv")) == 500


# RSNA


@pytest.mark.fault("C73")
def test_rsna_becomes_one_row_per_image_with_its_boxes_as_they_are(tmp_path, capsys):
    folder, out = rsna_files(tmp_path / "rsna"), tmp_path / "out"
    printed = run(capsys, "rsna", folder, "--out", out, "--image-dir", folder / "stage_2_train_images")
    everything = {image: row for part in rows_in(out).values() for image, row in part.items()}
    assert len(everything) == 20
    assert sum(row["Pneumonia"] == "1" for row in everything.values()) == 5
    boxes = read_boxes(out / "boxes.csv")
    assert len(boxes) == 10
    assert (boxes[0].left * 1024, boxes[0].top * 1024, boxes[0].width * 1024, boxes[0].height * 1024) == (
        100,
        152,
        213,
        379,
    )
    assert boxes[0].image in everything
    assert "names an image, not a person" in printed
    check_passes(capsys, printed)
    printed = run(capsys, "rsna", folder, "--out", tmp_path / "normal", "--negatives", "normal")
    assert "left out: 5 rows, neither opacity nor normal" in printed


# PadChest


def test_padchests_mapping_names_193_labels_and_all_14_findings():
    mapping = read_mapping(MAPPING)
    assert len(mapping) == 193
    assert {finding for findings in mapping.values() for finding in findings} == set(NIH_FINDINGS)
    assert mapping["subcutaneous emphysema"] == ()  # a word inside a name is not the finding
    assert mapping["hydropneumothorax"] == ("Effusion", "Pneumothorax")


@pytest.mark.fault("C74")
@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("['pleural effusion', ' cardiomegaly ']", {"pleural effusion", "cardiomegaly"}),
        ("['COPD  signs','']", {"COPD signs"}),
        ("[]", set()),
        ("", set()),
        ("nan", set()),
        ("['open", set()),
        ("[1, 2]", set()),
        ("[__import__('os').getcwd()]", set()),
        ("[" * 500, set()),
    ],
)
def test_padchest_cells_are_read_as_lists_of_names_and_never_run(text, names):
    assert parse_labels(text) == names


@pytest.mark.fault("C74")
def test_padchest_names_become_nihs_findings(tmp_path, capsys):
    table, out = padchest_file(tmp_path), tmp_path / "out"
    printed = run(capsys, "padchest", table, "--out", out, "--image-dir", tmp_path / "pictures")
    everything = {image: row for part in rows_in(out).values() for image, row in part.items()}

    def present(image):
        return {name for name in NIH_FINDINGS if everything[image][name] == "1"}

    assert len(everything) == 12
    assert present("0/a1.png") == {"Effusion", "Cardiomegaly"}
    assert present("1/a2.png") == present("2/a3.png") == set()
    assert present("1/a8.png") == {"Atelectasis"}
    assert everything["1/a8.png"]["Patientid"] == "7"
    for reason in (
        "projection not chosen",
        "excluded or suboptimal",
        'labelled "unchanged" alone',
        "no labels, or labels",
    ):
        assert f"left out: 1 rows, {reason}" in printed or f"left out: 1 rows, marked as {reason}" in printed
    check_passes(capsys, printed)


def test_padchests_own_names_are_findings_too(tmp_path, capsys):
    table, out = padchest_file(tmp_path), tmp_path / "out"
    run(capsys, "padchest", table, "--out", out, "--names", "own", "--min-images", "2", "--physicians")
    rows = [row for part in rows_in(out).values() for row in part.values()]
    assert set(rows[0]) == {"Image", "nodule", "Patientid"}
    assert sum(row["nodule"] == "1" for row in rows) == 8
    assert "a2.png" not in {row["Image"] for row in rows}
