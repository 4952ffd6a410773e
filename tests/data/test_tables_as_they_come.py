"""Tables as people have them: other spellings of labels, files, names and ids are read, or get one line."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from cxr.data.boxes import Box, with_file_names
from cxr.data.checks import DataCheck, check_splits
from cxr.data.leakage import patient_key
from cxr.data.vocabulary import is_no_finding, is_row_number
from cxr.system.csv_table import TableError, read_table, records
from cxr.system.file_search import search

HEADER = "Image,Edema,Hernia,Patientid\n"
SPLITS = {"train": ("a", 1), "val": ("b", 2), "test": ("c", 3)}


def table(letter: str, patient: int, header: str = HEADER, cells=("0,1", "1,0")) -> str:
    """Return a CSV of two images of two patients."""
    rows = [f"{letter}{row}.png,{labels},{patient}{row}" for row, labels in enumerate(cells, start=1)]
    return header + "\n".join(rows) + "\n"


def check(folder: Path, train: str | bytes | None = None, *, image_dir=None, everywhere=None, **options) -> DataCheck:
    """Check three CSVs, the training one or (`everywhere`: letter, patient -> text) all of them being special."""
    paths = []
    for name, (letter, patient) in SPLITS.items():
        text = everywhere(letter, patient) if everywhere else table(letter, patient)
        if name == "train" and train is not None:
            text = train
        paths.append(folder / f"{name}.csv")
        paths[-1].write_bytes(text if isinstance(text, bytes) else text.encode())
    return check_splits(*paths, image_dir, **options)


def messages(result: DataCheck, kind: str) -> list[str]:
    return [problem.message for problem in result.problems if problem.kind == kind]


@pytest.mark.fault("C60")
@pytest.mark.parametrize("words", ["True,False", "TRUE,false", "yes,No", "Y,n", "t,F", " true ,FALSE", "1.0,no"])
def test_words_for_true_and_false_are_labels(tmp_path, words):
    result = check(tmp_path, HEADER + f"a1.png,{words},11\na2.png,0,1,12\n")
    assert result.exit_code == 0
    np.testing.assert_array_equal(result.splits["train"].labels, [[1, 0], [0, 1]])


@pytest.mark.fault("C61")
@pytest.mark.parametrize(
    "make",
    [
        lambda text: gzip.compress(text),
        lambda text: gzip.compress(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n")),
        lambda text: b"sep=,\r\n" + text.replace(b"\n", b"\r\n"),
        lambda text: b"\xef\xbb\xbfsep=,\n" + text,
        lambda text: b'"sep=,"\r' + text.replace(b"\n", b"\r"),
    ],
    ids=["gzip", "gzip-bom-crlf", "sep", "bom-sep", "sep-cr"],
)
def test_packed_tables_and_excels_first_line_are_read(tmp_path, make):
    result = check(tmp_path, make(table(*SPLITS["train"]).encode()))
    assert result.exit_code == 0
    assert result.fingerprint == check(tmp_path).fingerprint


@pytest.mark.fault("C61")
def test_line_numbers_count_excels_first_line(tmp_path):
    result = check(tmp_path, "sep=,\n" + HEADER + "a1.png,0,1,11\na2.png,2,1,12\n")
    assert [(problem.kind, problem.line) for problem in result.faults] == [("label value", 4)]


@pytest.mark.fault("C61")
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04\x14\x00\x06\x00", "Excel workbook (.xlsx) or a ZIP archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Excel workbook (.xls)"),
        (b"PAR1\x15\x04", "Parquet"),
        (b"BZh91AY&SY", "bzip2"),
        (b"\xfd7zXZ\x00", "an xz file"),
        (gzip.compress(b"PK\x03\x04\x14\x00\x06\x00"), "Excel workbook"),
        (gzip.compress(HEADER.encode())[:-9], "damaged gzip file"),
        (b"sep=;\n" + HEADER.encode(), "separated by ';'. Save the file with commas"),
    ],
)
def test_other_formats_are_named_with_the_cure(tmp_path, data, message):
    result = check(tmp_path, data)
    assert result.exit_code == 2
    faults = [problem for problem in result.faults if problem.file == "train.csv"]
    assert len(faults) == 1
    assert message in faults[0].message


@pytest.mark.fault("C61")
def test_a_gzip_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("cxr.system.csv_table.MAX_TABLE_BYTES", 1000)
    (tmp_path / "bomb.csv").write_bytes(gzip.compress(b"0," * 501))
    (tmp_path / "good.csv").write_bytes(gzip.compress(b"0," * 500))
    (tmp_path / "plain.csv").write_bytes(b"0," * 501)
    assert len(read_table(tmp_path / "good.csv")) == 1000
    for name in ("bomb.csv", "plain.csv"):
        with pytest.raises(TableError, match="larger than"):
            read_table(tmp_path / name)


def test_records_name_the_first_line_of_each():
    found = list(records(b'a,b\r\n\r\n"x\ny",1\nz,2'))
    assert found == [(1, ["a", "b"]), (3, ["x\ny", "1"]), (5, ["z", "2"])]


@pytest.mark.fault("C62")
@pytest.mark.parametrize(
    ("header", "source"),
    [
        ("Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
         "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],", "nih"),
        ("Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Cardiomegaly", "chexpert"),
        ("subject_id,study_id,Atelectasis,Cardiomegaly", "mimic-cxr-jpg"),
        ("dicom_id,study_id,subject_id,split", "mimic-cxr-jpg"),
        ("dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition", "mimic-cxr-jpg"),
        ("image_id,rad_id,class_name,x_min,y_min,x_max,y_max", "vindr"),
        ("image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max", "vindr"),
        ("image_id,rad_id,Aortic enlargement,Atelectasis", "vindr"),
        ("patientId,x,y,width,height,Target", "rsna"),
        ("patientId,class", "rsna"),
        (",ImageID,ImageDir,StudyID,PatientID,Projection,Report,Labels", "padchest"),
    ],
)  # fmt: skip
def test_published_tables_are_recognised_and_the_command_named(tmp_path, header, source):
    result = check(tmp_path, header + "\n" + ",".join("x" for _ in header.split(",")) + "\n")
    faults = [problem for problem in result.faults if problem.file == "train.csv"]
    assert [problem.kind for problem in faults] == ["known table"]
    assert f"python -m tools.prepare_data {source} " in faults[0].message


@pytest.mark.fault("C62")
def test_a_published_table_with_label_columns_can_be_used(tmp_path):
    nih = "Image Index,Finding Labels,Patient ID,Edema,Hernia\na1.png,Edema,11,1,0\na2.png,Hernia,12,0,1\n"
    result = check(tmp_path, nih, findings=["Edema", "Hernia"])
    assert result.exit_code == 0
    np.testing.assert_array_equal(result.splits["train"].labels, [[1, 0], [0, 1]])


@pytest.mark.fault("C62")
@pytest.mark.parametrize("name", ["Path", "dicom_id", "image_id", "ImageID", "filename", "Image Path"])
@pytest.mark.parametrize("patient", ["Patientid", "subject_id", "patient"])
def test_other_names_of_the_image_and_patient_columns(tmp_path, name, patient):
    header = HEADER.replace("Image", name).replace("Patientid", patient)
    result = check(tmp_path, everywhere=lambda *which: table(*which, header=header))
    assert result.exit_code == 0
    assert result.splits["val"].images == ("b1.png", "b2.png")
    assert result.splits["val"].patients == ("21", "22")


@pytest.mark.fault("C62")
def test_text_labels_of_any_table_get_one_line(tmp_path):
    result = check(tmp_path, "Image,diagnosis,Patientid\na1.png,Edema|Mass,11\na2.png,Hernia,12\n")
    faults = [problem for problem in result.faults if problem.file == "train.csv"]
    assert [(problem.kind, problem.column) for problem in faults] == [("no label column", "diagnosis")]
    assert "for example 'Edema|Mass'" in faults[0].message
    assert "tools.prepare_data table --label-column" in faults[0].message


# Image names


def spelled_otherwise(folder: Path, files: str, listed: str, **options) -> DataCheck:
    """Check a project whose files are called `files` and listed as `listed`, {} being a1, a2, b1 and so on."""
    for letter in "abc":
        for number in (1, 2):
            path = folder / "images" / files.format(f"{letter}{number}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")

    def text(letter, patient):
        names = [listed.format(f"{letter}{row}") for row in (1, 2)]
        return HEADER + f"{names[0]},0,1,{patient}1\n{names[1]},1,0,{patient}2\n"

    return check(folder, everywhere=text, image_dir=folder / "images", **options)


@pytest.mark.fault("C63")
@pytest.mark.parametrize(
    ("files", "listed", "difference"),
    [
        ("images_001/images/{}.png", "{}.png", "images_001/images and are read from there: give --image-dir"),
        ("p10/{}/x.jpg", "files/p10/{}/x.jpg", "in other folders than the CSV says"),
        ("set1/{}.png", "set1\\{}.png", "back-slashes"),
        ("{}.png", "C:\\data\\{}.png", "back-slashes instead of / in the CSV; another folder"),
        ("{}.png", "{}", "no extension in the CSV, .png in the folder"),
        ("{}.dicom", "{}", "no extension in the CSV, .dicom in the folder"),
        ("{}.jpg", "{}.png", ".png in the CSV, .jpg in the folder"),
        ("{}.png", "{}.PNG", "other upper and lower case"),
        ("Train/{}.jpeg", "train/{}.jpeg", "other upper and lower case"),
        ("deep/er/{}.PNG", "{}", "no extension in the CSV, .PNG in the folder; another folder"),
    ],
)
def test_images_under_another_name_are_found_and_the_difference_said_once(tmp_path, files, listed, difference):
    result = spelled_otherwise(tmp_path, files, listed)
    assert result.exit_code == 0, result.as_text()
    assert result.splits["test"].images == (files.format("c1"), files.format("c2"))
    found = messages(result, "found elsewhere")
    assert len(found) == 3
    assert all(message.startswith("2 of 2 images") and difference in message for message in found)
    assert result.num_unlisted == 0
    # Boxes are named as the CSV names the pictures.
    boxes = [Box(listed.format("c1"), "Edema", 0.1, 0.2, 0.3, 0.4), Box("other.png", "Edema", 0.1, 0.2, 0.3, 0.4)]
    assert [box.image for box in with_file_names(boxes, result.found)] == [files.format("c1"), "other.png"]


@pytest.mark.fault("C63")
def test_a_name_that_two_files_could_mean_stays_missing(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / "images" / folder).mkdir(parents=True)
        (tmp_path / "images" / folder / "a1.png").write_bytes(b"")
    result = spelled_otherwise(tmp_path, "set/{}.png", "set/{}.png")
    assert result.problems == ()
    (tmp_path / "images" / "set" / "a1.png").unlink()
    result = spelled_otherwise(tmp_path, "set/b{}.png", "set/{}.png")
    assert "missing image" in {problem.kind for problem in result.faults}


@pytest.mark.fault("C63")
def test_one_file_is_not_two_images(tmp_path):
    result = check(
        tmp_path, HEADER + "x.png,0,1,11\nx.jpg,1,0,12\ny,0,1,13\nY,1,0,14\n", image_dir=image_folder(tmp_path)
    )
    assert [(problem.kind, problem.line) for problem in result.faults] == [
        ("missing image", 3), ("missing image", 4), ("missing image", 5),
    ]  # fmt: skip


def image_folder(folder: Path) -> Path:
    (folder / "images").mkdir()
    for name in ("x.png", "y.png", "b1.png", "b2.png", "c1.png", "c2.png"):
        (folder / "images" / name).write_bytes(b"")
    return folder / "images"


@pytest.mark.fault("C63")
def test_files_behind_links_that_lead_outside_are_not_taken(tmp_path):
    images = image_folder(tmp_path)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a1.png").write_bytes(b"")
    (images / "sub").mkdir()
    (images / "sub" / "a1.png").symlink_to(tmp_path / "outside" / "a1.png")
    (images / "linked").symlink_to(tmp_path / "outside")
    result = check(tmp_path, HEADER + "a1.png,0,1,11\nx.png,1,0,12\n", image_dir=images)
    assert [(problem.kind, problem.line) for problem in result.faults] == [("missing image", 2)]


# Columns that are no findings


@pytest.mark.fault("C64")
@pytest.mark.parametrize(
    "name",
    ["Sex", "gender", "Patient Age", "PatientSex", "AP view", "View Position", "ViewPosition_DICOM", "Follow-up #",
     "follow_up", "FOLDS fold", "split", "is_train", "Unnamed: 3", "AP/PA", "Frontal/Lateral", "index", "StudyDate",
     "study_id"],
)  # fmt: skip
def test_names_that_are_no_findings(name):
    assert is_no_finding(name)


@pytest.mark.fault("C64")
@pytest.mark.parametrize(
    "name",
    ["Edema", "Pleural_Thickening", "No Finding", "Aortic enlargement", "Lung Opacity", "Support Devices",
     "Enlarged Cardiomediastinum", "Pneumothorax", "ILD", "Other lesion", "tracheal shift", "apical pleural thickening",
     "sequelae", "dual chamber device", "loss of volume", "pectum carinatum", "Fracture", "COVID-19", "TB", "Sextant"],
)  # fmt: skip
def test_names_of_findings_are_findings(name):
    assert not is_no_finding(name)


@pytest.mark.fault("C64")
def test_such_columns_are_left_out_with_a_line_unless_chosen(tmp_path):
    train = "Image,Edema,Sex,Patient Age,Patientid\na1.png,0,1,50,11\na2.png,1,0,61,12\n"
    others = {"everywhere": lambda *which: table(*which, header=HEADER.replace("Hernia", "Sex"))}
    result = check(tmp_path, train, **others)
    assert result.exit_code == 0
    assert result.splits["train"].findings == ("Edema",)
    found = messages(result, "no finding")
    assert len(found) == 3
    assert "'Sex', 'Patient Age'" in found[0]
    assert "--findings" in found[0]
    chosen = check(tmp_path, train, **others, findings=["Edema", "Sex"])
    assert chosen.splits["train"].findings == ("Edema", "Sex")


@pytest.mark.fault("C64")
@pytest.mark.parametrize("name", ["", "Unnamed: 0", "Unnamed: 0.1", "unnamed_0"])
def test_row_numbers_are_dropped_with_a_line(tmp_path, name):
    result = check(tmp_path, f"{name},Image,Edema,Hernia,Patientid\n0,a1.png,0,1,11\n1,a2.png,1,0,12\n")
    assert result.exit_code == 0
    assert result.splits["train"].findings == ("Edema", "Hernia")
    assert len(messages(result, "row number")) == 1


def test_row_numbers_have_no_name_only_at_the_front():
    assert is_row_number("", 0)
    assert not is_row_number("", 1)
    assert not is_row_number("Unnamed mass", 0)


# Labels that exclude each other


@pytest.mark.fault("C65")
def test_no_finding_beside_a_finding_is_counted(tmp_path):
    header = "Image,{},Effusion,Support Devices,Patientid\n"
    rows = "a1.png,1,1,0,11\na2.png,0,1,0,12\na3.png,1,0,1,13\na4.png,1,0,0,14\na5.png,1,1,1,15\n"
    for name in ("No Finding", "no_finding", "Normal"):
        result = check(tmp_path, header.format(name) + rows)
        found = messages(result, "contradicting labels")
        assert len(found) == 1
        assert found[0].startswith("2 of 5 rows say \"No Finding\" and name a finding too ('Effusion'; lines 2, 6)")


@pytest.mark.fault("C65")
def test_blank_and_negative_labels_contradict_nothing(tmp_path):
    rows = "a1.png,1,,11\na2.png,,1,12\na3.png,0,0,13\n"
    result = check(tmp_path, "Image,No Finding,Effusion,Patientid\n" + rows, blank="unlabelled")
    assert messages(result, "contradicting labels") == []


# Patients


@pytest.mark.fault("C66")
@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("100", "100.0", True), ("100", "00000100", True), ("1e2", "100", True), ("1.0E+07", "10000000", True),
        ("P7 ", "p7", True), ("0", "000", True), ("12.50", "12.5", True), ("100", "1000", False), ("10", "1e2", False),
        ("P007", "P7", False), ("839860488694292331637988235681460987", "839860488694292331637988235681460988", False),
        ("100", "-100", False), ("1e", "1", False), ("\u0661", "1", False),
    ],
)  # fmt: skip
def test_ids_are_compared_as_numbers(one, other, alike):
    assert (patient_key(one) == patient_key(other)) is alike


@pytest.mark.fault("C66")
def test_retyped_ids_across_files_are_a_warning_without_the_ids(tmp_path):
    train = HEADER + "a1.png,0,1,0021\na2.png,1,0,22.0\na3.png,1,0,22.0\na4.png,1,0,99\n"
    result = check(tmp_path, train)
    assert result.exit_code == 0
    found = messages(result, "retyped patients")
    assert len(found) == 1
    assert "stand in val.csv in another spelling" in found[0]
    assert ": 2 (lines 2 and 2; lines 3 and 3)" in found[0]
    assert "0021" not in found[0]
    assert result.splits["train"].patients == ("0021", "22.0", "22.0", "99")


@pytest.mark.fault("C67")
def test_table_without_patients_is_used_on_request_only(tmp_path):
    def without(letter, patient):
        return f"Image,Edema,Hernia\n{letter}1.png,0,1\n{letter}2.png,1,0\n"

    refused = check(tmp_path, everywhere=without)
    assert refused.exit_code == 2
    assert all("--allow no-patients" in problem.message for problem in refused.faults)
    allowed = check(tmp_path, everywhere=without, no_patients=True)
    assert allowed.exit_code == 0
    assert allowed.splits["val"].patients == ("b1.png", "b2.png")
    assert not allowed.patients_known
    assert "not known" in allowed.as_text()
    mixed = check(tmp_path, without("a", 1), no_patients=True)
    assert mixed.splits["val"].patients == ("21", "22")
    assert not mixed.patients_known
    assert check(tmp_path, no_patients=True).patients_known  # a table that names them is believed


# Choices


@pytest.mark.fault("C68")
def test_a_finding_with_a_comma_is_hinted_at(tmp_path):
    header = HEADER.replace("Hernia", '"Opacity, diffuse"')
    options = {"everywhere": lambda *which: table(*which, header=header)}
    assert check(tmp_path, **options, findings=["Opacity, diffuse"]).splits["val"].findings == ("Opacity, diffuse",)
    refused = check(tmp_path, **options, findings=["Opacity", "diffuse"])
    assert "--finding 'Opacity, diffuse'" in refused.faults[0].message


@pytest.mark.fault("C69")
@pytest.mark.parametrize("blank", ["", " ", "NA", "nan", "NULL", "n/a"])
def test_blank_means_what_the_user_says(tmp_path, blank):
    train = HEADER + f"a1.png,{blank},1,11\na2.png,1,0,12\n"
    faults = check(tmp_path, train).faults
    assert "--allow blank-zero" in faults[0].message
    for meaning, value in (("zero", 0), ("unlabelled", np.nan)):
        labels = check(tmp_path, train, blank=meaning).splits["train"].labels
        np.testing.assert_array_equal(labels, [[value, 1], [1, 0]])


@pytest.mark.fault("C69")
def test_one_class_because_of_blanks_names_the_other_meaning(tmp_path):
    train = HEADER + "a1.png,,1,11\na2.png,1,0,12\n"
    warnings = messages(check(tmp_path, train, blank="unlabelled"), "one class")
    assert [warning.split(". ")[1] for warning in warnings] == [
        "If a blank cell means absent, give --allow blank-zero."
    ]


@pytest.mark.fault("C69")
def test_where_keeps_rows_and_is_no_finding(tmp_path):
    def with_views(letter, patient):
        rows = (("1.png", 0, "Frontal", "PA"), ("2.png", 1, "Frontal", "AP"), ("3.png", 1, "Lateral", "LL"))
        cells = [f"{letter}{name},{label},{side},{view},{patient}{name}" for name, label, side, view in rows]
        return "\n".join(["Image,Edema,Frontal/Lateral,Beam,Patientid", *cells])

    def images(**where):
        result = check(tmp_path, everywhere=with_views, where=where, findings=["Edema"])
        assert result.exit_code == 0, result.as_text()
        return result.splits["val"].images

    frontal = {"frontal/lateral": frozenset({"Frontal"})}
    assert images(**frontal) == ("b1.png", "b2.png")
    assert images(Beam=frozenset({"PA", "LL"})) == ("b1.png", "b3.png")
    assert images(**frontal, Beam=frozenset({"AP", "LL"})) == ("b2.png",)
    none = check(tmp_path, everywhere=with_views, where={"Beam": frozenset({"XX"})}, findings=["Edema"])
    assert "--where chooses none of its 3 rows" in none.faults[0].message
    unknown = check(tmp_path, everywhere=with_views, where={"View": frozenset({"XX"})})
    assert "no column 'View'" in unknown.faults[0].message


@pytest.mark.fault("C63")
def test_files_of_one_name_in_many_folders_are_told_apart_by_their_folders(tmp_path):
    """CheXpert's files are all called view1_frontal.jpg."""
    names = [f"patient{number:03}/study{number % 3}/view1_frontal.jpg" for number in range(60)]
    for name in names:
        (tmp_path / "deep" / "down" / name).parent.mkdir(parents=True)
        (tmp_path / "deep" / "down" / name).write_bytes(b"")
    found = search(tmp_path, names, ())
    assert {name: one.path for name, one in found.items()} == {name: f"deep/down/{name}" for name in names}
    assert search(tmp_path, ["patient999/study1/view1_frontal.jpg"], ()) == {}
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "patient000" / "study1").mkdir(parents=True)
    (tmp_path / "only" / "patient000" / "study1" / "view1_frontal.jpg").write_bytes(b"")
    listed = [f"patient{number:03}/study1/view1_frontal.jpg" for number in (7, 8)]
    assert search(tmp_path / "only", listed, ()) == {}  # one patient's picture is not another's
    assert search(tmp_path / "only", listed[:1], ["patient003/study1/view1_frontal.jpg"]) == {}
    for extension in ("png", "jpg"):
        (tmp_path / f"a.{extension}").write_bytes(b"")
    assert search(tmp_path, ["x/a.PNG"], ())["x/a.PNG"].path == "a.png"
    assert search(tmp_path, ["x/a.dcm"], ()) == {}
