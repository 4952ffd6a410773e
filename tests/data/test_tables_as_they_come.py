"""Tables as people have them: other spellings of labels, files, names and ids are read, or get one line."""

import gzip

import numpy as np
import pytest
from tables import HEADER, SPLITS, check, table

from cxr.system.csv_table import TableError, read_table, records


@pytest.mark.fault("C60")
@pytest.mark.parametrize(
    "words",
    [
        "True,False",
        "TRUE,false",
        "yes,No",
        "Y,n",
        "t,F",
        " true ,FALSE",
        "1.0,no",
        "Positive,negative",
        "present,Absent",
    ],
)
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
        (gzip.compress(b"PK\x03\x04\x14\x00\x06\x00", mtime=0), "Excel workbook"),
        (gzip.compress(HEADER.encode(), mtime=0)[:-9], "damaged gzip file"),
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
