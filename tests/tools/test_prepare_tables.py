"""Any table and class folders, and rules that hold for every source of tools.prepare_data."""

from collections import Counter

import pytest
from data_sources import (
    any_table,
    class_folders,
    write_picture,
    write_table,
)
from prepared_data import check_passes, refused, rows_in, run

from tools import prepare_data
from tools.datasets.splitting import draw_patients

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


@pytest.mark.fault("C81")
def test_an_image_without_split_goes_where_its_patients_others_are(tmp_path, capsys):
    """Else it would be trained on, and its patient tested."""
    rows = [f"x{k}.png,{k},{('train', 'val', 'test', '')[k % 4]},{k % 2}" for k in range(40)]
    rows += [f"y{k}.png,{k},,{k % 2}" for k in range(40)]
    write_table(tmp_path / "t.csv", "Image,p,part,Mass", rows)
    common = ("table", tmp_path / "t.csv", "--finding", "Mass", "--split-column", "part", "--patient-column", "p")
    run(capsys, *common, "--out", tmp_path / "out")
    splits = rows_in(tmp_path / "out")
    patients = [{row["Patientid"] for row in part.values()} for part in splits.values()]
    assert sum(map(len, patients)) == 40
    for k, split in enumerate(("train", "val", "test")):
        own = {f"{name}{number}.png" for number in range(k, 40, 4) for name in "xy"}
        assert own <= splits[split].keys()


@pytest.mark.fault("C82")
@pytest.mark.parametrize("row", ["x0.png,other,train,1", "x0.png,0,test,1", "x0.png,0,train,0"])
@pytest.mark.parametrize("labels", [("--finding", "Mass"), ("--label-column", "Mass", "--none", "0")])
def test_an_image_twice_with_another_patient_split_or_label_is_refused(tmp_path, capsys, row, labels):
    rows = [f"x{k}.png,{k},{('train', 'val', 'test')[k % 3]},1" for k in range(9)]
    write_table(tmp_path / "t.csv", "Image,p,part,Mass", [*rows, row])
    common = ("table", tmp_path / "t.csv", "--split-column", "part", "--patient-column", "p", *labels)
    if labels[0] == "--label-column" and row.endswith("0"):  # a finding of any row is the image's
        run(capsys, *common, "--out", tmp_path / "out")
    else:
        assert "line 11: image 'x0.png' again, " in refused(capsys, *common, "--out", tmp_path / "out")
        assert not (tmp_path / "out").exists()
    write_table(tmp_path / "t.csv", "Image,p,part,Mass", [*rows, rows[0]])
    run(capsys, *common, "--out", tmp_path / "twice")
    assert len([image for part in rows_in(tmp_path / "twice").values() for image in part]) == 9


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
