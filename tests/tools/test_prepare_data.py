"""Each source's own layout in small, through the command and the data check; the numbers are worked out by hand."""

import csv
import shlex
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from data_sources import (
    any_table,
    chexpert_files,
    class_folders,
    mimic_files,
    padchest_file,
    rsna_files,
    vindr_files,
    write_picture,
    write_table,
)

import main_train
from cxr.data.boxes import read_boxes
from tools import prepare_data
from tools.datasets.boxes import framed_box
from tools.datasets.chexpert_labels import FINDINGS as CHEXPERT_FINDINGS
from tools.datasets.padchest import MAPPING, parse_labels, read_mapping
from tools.datasets.splitting import draw_patients
from tools.nih.tables import FINDINGS as NIH_FINDINGS

NAMES = {"train": "train-small.csv", "val": "val_data.csv", "test": "test_data.csv"}


def run(capsys, *arguments: object) -> str:
    """Run the command; return what it printed."""
    code = prepare_data.main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return printed.out


def refused(capsys, *arguments: object) -> str:
    """Run a command that must end with 2; return what it said."""
    assert prepare_data.main([str(argument) for argument in arguments]) == 2
    return capsys.readouterr().err


def rows_in(folder: Path) -> dict[str, dict[str, dict[str, str]]]:
    """Return split -> image -> row."""
    splits = {}
    for split, name in NAMES.items():
        with (folder / name).open(newline="") as file:
            splits[split] = {row["Image"]: row for row in csv.DictReader(file)}
    return splits


def check_passes(capsys, printed: str) -> str:
    """Run the command that the last line names; return what it printed."""
    words = shlex.split(printed.splitlines()[-1].removeprefix("Next: "))
    assert words[:2] == ["python", "main_train.py"]
    code = main_train.main(words[2:])
    text = capsys.readouterr().out
    assert code == 0, text
    assert "0 faults" in text
    return text


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


@pytest.mark.parametrize(("min_readers", "num_positive"), [(1, 10), (2, 5), (3, 0)])
def test_vindr_takes_as_many_readers_as_wanted(tmp_path, capsys, min_readers, num_positive):
    folder = vindr_files(tmp_path / "vindr", with_test=False)
    run(capsys, "vindr", folder, "--out", tmp_path / "out", "--min-readers", min_readers)
    rows = [row for part in rows_in(tmp_path / "out").values() for row in part.values()]
    assert sum(row["Cardiomegaly"] == "1" for row in rows) == num_positive


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


# Class folders


@pytest.mark.fault("C75")
def test_class_folders_become_columns_and_keep_their_splits(tmp_path, capsys):
    folder, out = class_folders(tmp_path / "chest_xray"), tmp_path / "out"
    printed = run(capsys, "folders", folder, "--out", out)
    splits = rows_in(out)
    assert {split: len(part) for split, part in splits.items()} == {"train": 12, "val": 4, "test": 6}
    assert list(splits["val"]["val/NORMAL/IM-val-0000.jpeg"].items()) == [
        ("Image", "val/NORMAL/IM-val-0000.jpeg"), ("PNEUMONIA", "0"),
    ]  # fmt: skip
    assert splits["test"]["test/PNEUMONIA/testperson0_bacteria_1.jpeg"]["PNEUMONIA"] == "1"
    assert "left out: 1 rows, files that are no pictures" in printed
    check_passes(capsys, printed)


@pytest.mark.fault("C75")
def test_class_folders_without_splits_are_drawn_by_the_patients_in_the_names(tmp_path, capsys):
    for number in range(40):
        write_picture(tmp_path / "set" / ("Healthy", "TB", "Mass")[number % 3] / f"p{number // 4:02}_{number}.png")
    out = tmp_path / "out"
    printed = run(capsys, "folders", tmp_path / "set", "--out", out, "--patient-pattern", r"^(p\d+)_")
    splits = rows_in(out)
    patients = [{row["Patientid"] for row in part.values()} for part in splits.values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 10
    assert set(splits["train"][next(iter(splits["train"]))]) == {"Image", "Mass", "TB", "Patientid"}
    check_passes(capsys, printed)
    assert "expected class folders" in refused(capsys, "folders", tmp_path / "set" / "TB", "--out", out)


# Any table


@pytest.mark.fault("C76")
def test_any_table_is_read_with_its_columns_named(tmp_path, capsys):
    table, out = any_table(tmp_path / "t.csv"), tmp_path / "out"
    printed = run(
        capsys, "table", table, "--out", out, "--image-column", "file", "--patient-column", "person", "--label-column",
        "what", "--where", "view=PA", "--where", "view=AP", "--rename", "Pleural Effusion=Effusion of the pleura",
    )  # fmt: skip
    everything = {image: row for part in rows_in(out).values() for image, row in part.items()}
    assert set(everything) == {f"x{number}.png" for number in range(20) if number % 3 != 2}
    row = everything["x4.png"]
    assert {name for name, cell in row.items() if cell == "1"} == {"Effusion", "Effusion of the pleura", "Edema"}
    assert row["Patientid"] == "2"
    assert {name for name, cell in everything["x1.png"].items() if cell == "1" and name != "Patientid"} == set()
    assert "left out: 6 rows, not chosen (--where)" in printed


@pytest.mark.fault("C76")
def test_tables_with_label_columns_lists_and_splits(tmp_path, capsys):
    rows = [
        f"x{k}.png,{('train', 'valid', 'test')[k % 3]},{('yes', 'no')[k % 2]},{('1', '', '-1')[k % 3]}"
        for k in range(12)
    ]
    write_table(tmp_path / "t.csv", "Image,part,Mass,Edema", rows)
    common = ("table", tmp_path / "t.csv", "--finding", "Mass", "--finding", "Edema", "--split-column", "part")
    assert "--blank zero" in refused(capsys, *common, "--out", tmp_path / "out")
    run(capsys, *common, "--out", tmp_path / "out", "--blank", "zero", "--uncertain", "one")
    splits = rows_in(tmp_path / "out")
    assert list(splits["val"]) == ["x1.png", "x4.png", "x7.png", "x10.png"]
    assert splits["val"]["x4.png"] == {"Image": "x4.png", "Mass": "1", "Edema": "0"}
    assert splits["test"]["x5.png"] == {"Image": "x5.png", "Mass": "0", "Edema": "1"}
    write_table(tmp_path / "l.csv", "Image,names", [f"x{k}.png,\"['Edema', 'Mass']\"" for k in range(12)])
    run(capsys, "table", tmp_path / "l.csv", "--label-column", "names", "--out", tmp_path / "lists")
    assert next(iter(rows_in(tmp_path / "lists")["train"].values())).keys() == {"Image", "Edema", "Mass"}


@pytest.mark.fault("C76")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--image-column", "Image", "--label-column", "what"),
            "no column Image. Expected Image, what; found file, person",
        ),
        (("--image-column", "file", "--label-column", "what", "--where", "sex=M"), "no column sex"),
        (("--image-column", "file", "--label-column", "what", "--rename", "Mas=Mass"), "no finding is called 'Mas'"),
        (
            ("--image-column", "file", "--label-column", "what", "--rename", "Edema=Hernia"),
            "two findings get the same name",
        ),
        (("--image-column", "file", "--finding", "what"), "line 2: expected 0 or 1, received 'Effusion|Pleural"),
        (("--image-column", "file", "--label-column", "what", "--split-column", "view"), "expected train, val or test"),
        (("--image-column", "file", "--label-column", "what", "--val-share", "0.97"), "no image for train"),
    ],
)
def test_choices_that_do_not_fit_the_table_are_refused(tmp_path, capsys, arguments, message):
    table = any_table(tmp_path / "t.csv")
    assert message in refused(capsys, "table", table, "--out", tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


# What all sources share


@pytest.mark.fault("C77")
def test_a_patient_in_two_of_the_sources_splits_is_refused_or_drawn_anew(tmp_path, capsys):
    rows = [f"x{k}.png,{k % 5},{('train', 'val', 'test')[k % 3]},{k % 2}" for k in range(30)]
    write_table(tmp_path / "t.csv", "Image,p,part,Mass", rows)
    common = ("table", tmp_path / "t.csv", "--finding", "Mass", "--split-column", "part", "--patient-column", "p")
    assert "5 patients are in more than one" in refused(capsys, *common, "--out", tmp_path / "out")
    run(capsys, *common, "--out", tmp_path / "out", "--draw")
    patients = [{row["Patientid"] for row in part.values()} for part in rows_in(tmp_path / "out").values()]
    assert sum(map(len, patients)) == 5


@pytest.mark.fault("C77")
def test_draws_depend_on_patients_and_seed_alone():
    patients = [str(number % 200) for number in range(1000)]
    drawn = draw_patients(patients, 0.2, seed=3)
    assert sum(Counter(patients)[patient] for patient in drawn) == 200
    assert draw_patients(patients[::-1], 0.2, seed=3) == drawn
    assert draw_patients(patients, 0.2, seed=4) != drawn


@pytest.mark.fault("C77")
def test_images_that_are_not_there_are_left_out_and_counted(tmp_path, capsys):
    table = any_table(tmp_path / "t.csv")
    for number in range(15):
        write_picture(tmp_path / "pictures" / "deep" / f"X{number}.PNG")
    common = ("table", table, "--image-column", "file", "--label-column", "what", "--out", tmp_path / "out")
    printed = run(capsys, *common, "--image-dir", tmp_path / "pictures")
    assert "left out: 5 rows, no image file in --image-dir" in printed
    assert all(image.startswith("deep/X") for part in rows_in(tmp_path / "out").values() for image in part)
    check_passes(capsys, printed)
    (tmp_path / "empty").mkdir()
    assert "none of the 20 images" in refused(capsys, *common, "--image-dir", tmp_path / "empty")
    assert "is not a folder" in refused(capsys, *common, "--image-dir", tmp_path / "nowhere")


def test_files_of_another_kind_are_named(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    assert "none of train.csv (or .gz) is there" in refused(capsys, "chexpert", tmp_path / "empty", "--out", out)
    write_table(tmp_path / "empty" / "train.csv", "Image,Mass", ["a.png,1"])
    assert "no column Path" in refused(capsys, "chexpert", tmp_path / "empty", "--out", out)
    (tmp_path / "empty" / "train.csv").write_bytes(b"PK\x03\x04")
    assert "Excel workbook" in refused(capsys, "chexpert", tmp_path / "empty", "--out", out)
    assert prepare_data.main(["padchest", str(tmp_path / "nothing.csv"), "--out", str(out)]) == 3
