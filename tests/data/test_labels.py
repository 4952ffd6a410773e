"""Check the CSV reader: what it accepts, what it refuses and with which line, and that it never fails otherwise."""

import csv
import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from label_files import HEADER, LABELS, TEST, TRAIN, check

from cxr.data import labels as labels_module
from cxr.data.checks import check_splits
from cxr.data.problems import LabelError

FAULTY = {
    "C02-empty": (b"", {}, None, "no rows"),
    "C02-header-only": (HEADER, {}, None, "no rows"),
    "C04-utf16": (TRAIN.decode().encode("utf-16"), {}, 1, "UTF-16"),
    "C04-utf32": (TRAIN.decode().encode("utf-32-le").join([b"\xff\xfe\0\0", b""]), {}, 1, "UTF-32"),
    "C04-utf32-be": (TRAIN.decode().encode("utf-32-be").join([b"\0\0\xfe\xff", b""]), {}, 1, "UTF-32"),
    "C04-utf16-no-bom": (TRAIN.decode().encode("utf-16-le"), {}, 1, "byte 0x00 at offset 1"),
    "C04-latin1": (HEADER + b"a.png,0,1,7\nb\xe9.png,0,1,7\n", {}, 3, f"byte 0xe9 at offset {len(HEADER) + 13}"),
    "C04-latin1-bom": (b"\xef\xbb\xbf" + HEADER + b"\xe9", {}, 2, f"byte 0xe9 at offset {len(HEADER) + 3}"),
    "C04-nul": (HEADER + b"a.png,0,1,7\r\n\0b.png,0,1,7\n", {}, 3, "byte 0x00"),
    "C05-semicolon": (TRAIN.replace(b",", b";"), {}, 1, "found 1 column, the file looks like ';'"),
    "C05-tab": (TRAIN.replace(b",", b"\t"), {}, 1, r"found 1 column, the file looks like '\t'"),
    "C06-long-row": (HEADER + b"a.png,0,1,7,0\n", {}, 2, "expected 4 fields as in the header, found 5"),
    "C06-short-row": (HEADER + b"a.png,0,1,7\nb.png,0,1\n", {}, 3, "expected 4 fields as in the header, found 3"),
    "C06-open-quote": (HEADER + b'a.png,0,1,7\n"b.png,0,1,8\nc.png,0,1,9\n', {}, 3, "not valid CSV"),
    "C07-duplicate": (b"Image,Edema,edema ,Patientid\na.png,0,1,7\n", {}, 1, "2 columns have the same name"),
    "C07-two-image-columns": (b"Image,Image Index,A,Patientid\na,a,1,7\n", {}, 1, "2 columns have the same name"),
    "C07-no-name": (b"Image,,Edema,Patientid\na.png,0,1,7\n", {}, 1, "column 2 has no name"),
    "C08-no-image": (b"File,Edema,Hernia,Patientid\na.png,0,1,7\n", {}, 1, "missing column: Image"),
    "C08-no-patient": (b"Image,Edema,Hernia\na.png,0,1\n", {}, 1, "missing column: Patientid"),
    "C08-no-finding": (b"Image,Patientid\na.png,7\n", {}, 1, "missing column: one column per finding"),
    "C08-unknown-choice": (TRAIN, {"findings": ["Edema", "Mass"]}, 1, "missing findings: 'Mass'"),
    "C12-blank": (HEADER + b"a.png,,1,7\n", {}, 2, "received a blank cell"),
    "C12-uncertain": (HEADER + b"a.png,-1,1,7\n", {}, 2, "received -1"),
    "C13-blank-image": (HEADER + b" ,0,1,7\n", {}, 2, "blank image name"),
    "C14-blank-patient": (HEADER + b"a.png,0,1, \n", {}, 2, "blank patient id"),
    "C15-conflict": (HEADER + b"a.png,0,1,7\nb.png,0,1,8\na.png,1,1,7\n", {}, 2, "listed 2 times (lines 2, 4)"),
    "C15-other-patient": (HEADER + b"a.png,0,1,7\na.png,0,1,8\n", {}, 2, "listed 2 times (lines 2, 3)"),
    "C15-other-spelling": (HEADER + b"a.png,0,1,7\n./a.png,1,1,7\n", {}, 2, "listed 2 times (lines 2, 3)"),
    "C19-parent": (HEADER + b"../x.png,0,1,7\n", {}, 2, "leaves the image folder"),
    "C19-backslash": (HEADER + b"a\\..\\..\\x.png,0,1,7\n", {}, 2, "leaves the image folder"),
    "C19-absolute": (HEADER + b"/etc/passwd,0,1,7\n", {}, 2, "leaves the image folder"),
    "C19-newline": (HEADER + b'"a\n.png",0,1,7\n', {}, 2, "line break or control character"),
    "C19-escape": (HEADER + b"a\x1b[2J.png,0,1,7\n", {}, 2, "line break or control character"),
}


for _cell in ("NA", "-1", "2", "0.5", "maybe", "inf", "1e400", "01", "nan", "Truee", "\u0661"):
    FAULTY[f"C12-{_cell}"] = (HEADER + b"a.png,0,1,7\nb.png,0," + _cell.encode() + b",7\n", {}, 3, "expected 0 or 1")


def refused(row: str):
    """Parametrise a test over the faults of one row of the table of faults."""
    cases = {name: case for name, case in FAULTY.items() if name.startswith(row)}
    return pytest.mark.parametrize(("train", "options", "line", "message"), cases.values(), ids=cases)


def assert_refused(folder, train, options, line, message):
    """The file has exactly this fault, on this line, and nothing can be trained on."""
    result = check(folder, train, **options)
    found = [problem for problem in result.faults if problem.file == "train-small.csv" and message in problem.message]
    assert len(found) == 1, result.as_text()
    assert found[0].line == line
    assert result.exit_code == 2
    with pytest.raises(LabelError, match="has faults"):
        _ = result.splits


@pytest.mark.fault("C02")
@refused("C02")
def test_file_without_rows_is_refused(tmp_path, train, options, line, message):
    assert_refused(tmp_path, train, options, line, message)


@pytest.mark.fault("C04")
@refused("C04")
def test_text_that_is_not_utf8_is_refused(tmp_path, train, options, line, message):
    assert_refused(tmp_path, train, options, line, message)


@pytest.mark.fault("C05")
@refused("C05")
def test_other_separators_are_refused(tmp_path, train, options, line, message):
    assert_refused(tmp_path, train, options, line, message)


@pytest.mark.fault("C06")
@refused("C06")
def test_row_with_a_field_too_many_or_too_few_is_refused(tmp_path, train, options, line, message):
    assert_refused(tmp_path, train, options, line, message)


@pytest.mark.fault("C07")
@refused("C07")
def test_column_names_that_are_there_twice_or_not_at_all_are_refused(tmp_path, train, options, line, message):
    assert_refused(tmp_path, train, options, line, message)


@pytest.mark.fault("C08")
@refused("C08")
def test_missing_column_is_refused(tmp_path, train, options, line, message):
    assert_refused(tmp_path, train, options, line, message)


@pytest.mark.fault("C12")
@refused("C12")
def test_cell_that_is_no_label_is_refused(tmp_path, train, options, line, message):
    assert_refused(tmp_path, train, options, line, message)


@pytest.mark.fault("C13")
@refused("C13")
def test_blank_image_name_is_refused(tmp_path, train, options, line, message):
    assert_refused(tmp_path, train, options, line, message)


@pytest.mark.fault("C14")
@refused("C14")
def test_blank_patient_is_refused(tmp_path, train, options, line, message):
    assert_refused(tmp_path, train, options, line, message)


@pytest.mark.fault("C15")
@refused("C15")
def test_conflicting_rows_of_one_image_are_refused(tmp_path, train, options, line, message):
    assert_refused(tmp_path, train, options, line, message)


@pytest.mark.fault("C19")
@refused("C19")
def test_image_name_that_leaves_the_folder_is_refused(tmp_path, train, options, line, message):
    assert_refused(tmp_path, train, options, line, message)


ACCEPTED = {
    "C02-one-row": (HEADER + b"a1.png,0,1,7\n", {}, [[0, 1]]),
    "C03-bom": (b"\xef\xbb\xbf" + TRAIN, {}, LABELS),
    "C03-crlf": (TRAIN.replace(b"\n", b"\r\n"), {}, LABELS),
    "C03-cr": (TRAIN.replace(b"\n", b"\r"), {}, LABELS),
    "C03-trailing-blank-lines": (TRAIN + b"\n\r\n  \n", {}, LABELS),
    "C03-no-last-newline": (TRAIN.rstrip(), {}, LABELS),
    "C04-utf8": (TRAIN.replace(b"a1.png", "a\u00e91.png".encode()), {}, LABELS),
    "C05-comma": (TRAIN, {}, LABELS),
    "C06-quoted-comma": (TRAIN.replace(b"a1.png", b'"a,1.png"'), {}, LABELS),
    "C07-spelling": (TRAIN.replace(HEADER, b" image_INDEX , EDEMA,her nia ,Patient ID\n"), {}, LABELS),
    "C08-ignored": (TRAIN.replace(b"\n", b",x\n"), {"findings": ["edema", "Hernia"]}, LABELS),
    "C11-spellings": (HEADER + b'a1.png, 0,1.0,7\na2.png,"1", "0.00",007\n', {}, LABELS),
    "C12-allowed-blank": (HEADER + b"a1.png,,1,7\na2.png,1,0,007\n", {"blank": "unlabelled"}, [[np.nan, 1], [1, 0]]),
    "C12-uncertain-zero": (HEADER + b"a1.png,-1,1,7\na2.png,1,-1.0,007\n", {"uncertain": "zero"}, LABELS),
    "C12-uncertain-one": (HEADER + b"a1.png,0,-1,7\na2.png,-1,0,007\n", {"uncertain": "one"}, LABELS),
    "C12-uncertain-blank": (HEADER + b"a1.png,-1,1,7\na2.png,1,0,8\n", {"uncertain": "blank"}, [[np.nan, 1], [1, 0]]),
    "C13-text-names": (HEADER + b"NA,0,1,7\n001,1,0,8\n", {}, LABELS),
    "C19-subfolder": (TRAIN.replace(b"a1.png", b"part1/a..1.png"), {}, LABELS),
}


def accepted(*rows: str):
    """Parametrise a test over the legal files of some rows of the table of faults."""
    cases = {name: case for name, case in ACCEPTED.items() if name.startswith(rows)}
    return pytest.mark.parametrize(("train", "options", "labels"), cases.values(), ids=cases)


def assert_accepted(folder, train, options, labels):
    """The file gives these labels; the other two are the clean ones, in whatever spelling the training file has."""
    result = check(folder, train, **options)
    assert result.exit_code == 0, result.as_text()
    split = result.splits["train"]
    np.testing.assert_array_equal(split.labels, np.array(labels, np.float32))
    assert split.labels.dtype == np.float32
    assert result.splits["val"].findings == split.findings


@pytest.mark.fault("C02", "C04", "C05", "C06", "C19")
@accepted("C02", "C04", "C05", "C06", "C19")
def test_near_misses_are_accepted(tmp_path, train, options, labels):
    assert_accepted(tmp_path, train, options, labels)


@pytest.mark.fault("C03")
@accepted("C03")
def test_byte_order_mark_and_line_ends_are_accepted(tmp_path, train, options, labels):
    assert_accepted(tmp_path, train, options, labels)


@pytest.mark.fault("C07")
@accepted("C07")
def test_other_spellings_of_column_names_are_accepted(tmp_path, train, options, labels):
    assert_accepted(tmp_path, train, options, labels)


@pytest.mark.fault("C08")
@accepted("C08")
def test_unknown_column_is_ignored_where_findings_are_named(tmp_path, train, options, labels):
    assert_accepted(tmp_path, train, options, labels)


@pytest.mark.fault("C11")
@accepted("C11")
def test_other_spellings_of_labels_are_accepted(tmp_path, train, options, labels):
    assert_accepted(tmp_path, train, options, labels)


@pytest.mark.fault("C12")
@accepted("C12")
def test_blank_and_uncertain_labels_with_a_given_meaning_are_accepted(tmp_path, train, options, labels):
    assert_accepted(tmp_path, train, options, labels)


@pytest.mark.fault("C13")
@accepted("C13")
def test_names_that_look_like_missing_values_are_accepted(tmp_path, train, options, labels):
    assert_accepted(tmp_path, train, options, labels)


@pytest.mark.fault("C03")
def test_same_file_in_any_line_ending_has_same_fingerprint(tmp_path):
    fingerprints = {
        check(tmp_path, data).fingerprint
        for data in (TRAIN, b"\xef\xbb\xbf" + TRAIN, TRAIN.replace(b"\n", b"\r\n"), TRAIN.replace(b"\n", b"\r") + b"\r")
    }
    assert len(fingerprints) == 1
    assert check(tmp_path, TRAIN.replace(b"0,1,7", b"1,1,7")).fingerprint not in fingerprints


@pytest.mark.fault("C06")
def test_the_row_that_pandas_shifts_is_refused(tmp_path):
    long_rows = HEADER + b"a1.png,0,1,7,0\na2.png,1,0,8,0\n"
    assert list(pd.read_csv(io.BytesIO(long_rows))["Image"]) == [0, 1]  # the names became the index
    result = check(tmp_path, long_rows)
    assert [problem.line for problem in result.faults if problem.kind == "row length"] == [2, 3]


@pytest.mark.fault("C13", "C14")
def test_text_that_pandas_converts_is_kept(tmp_path):
    train = HEADER + b"NA,0,1,007\n001,1,0,7\nnull,1,1,1e3\n"
    split = check(tmp_path, train).splits["train"]
    assert split.images == ("NA", "001", "null")
    assert split.patients == ("007", "7", "1e3")


@pytest.mark.fault("C02")
def test_all_files_are_reported_at_once(tmp_path):
    result = check(tmp_path, TRAIN.replace(b"0,1,7", b"2,x,7"), b"", TEST.replace(b"30", b""))
    assert {(p.file, p.line, p.column) for p in result.faults} == {
        ("train-small.csv", 2, "Edema"),
        ("train-small.csv", 2, "Hernia"),
        ("val_data.csv", None, None),
        ("test_data.csv", 2, None),
    }
    assert "train-small.csv line 2, column 'Edema': expected 0 or 1, received '2'" in result.as_text()


@pytest.mark.fault("C12")
def test_twenty_cells_are_listed_and_the_others_counted(tmp_path):
    train = HEADER + b"".join(b"a%d.png,0,%s,7\n" % (row, b"x" if row < 50 else b"1") for row in range(60))
    result = check(tmp_path, train)
    assert [problem.line for problem in result.faults] == list(range(2, 22))
    assert "... and 30 more of this kind in train-small.csv" in result.as_text()
    assert "Data check: 50 faults" in result.as_text()


def test_read_names_a_column_that_is_no_finding(tmp_path):
    train = b"Image,Score,Edema,Patientid\na1.png,34,0,7\na2.png,71,1,8\n"
    assert "column 'Score': none of its 2 values is a label" in check(tmp_path, train).as_text()


@pytest.mark.fault("C10")
def test_findings_that_differ_are_named_both_ways(tmp_path):
    result = check(tmp_path, val=b"Image,Edema,Mass,Patientid\nb1.png,1,0,20\n")
    assert [p.file for p in result.faults] == ["val_data.csv"]
    assert "missing findings: 'Hernia'; findings that the training CSV lacks: 'Mass'" in result.faults[0].message
    assert check(tmp_path, val=b"Image,Mass,Edema,PatientId\nb1.png,1,0,20\n", findings=["Edema"]).exit_code == 0


@pytest.mark.parametrize("findings", [[], [" "]])
def test_check_refuses_empty_choice_of_findings(tmp_path, findings):
    with pytest.raises(LabelError, match="at least one"):
        check(tmp_path, findings=findings)


def test_check_refuses_unknown_meaning_of_uncertain(tmp_path):
    with pytest.raises(LabelError, match="zero, one, blank"):
        check(tmp_path, uncertain="drop")


REAL_DATA = os.environ.get("CXR_REAL_DATA")


@pytest.mark.skipif(not REAL_DATA, reason="CXR_REAL_DATA does not name a folder with the course's CSVs")
def test_course_files_share_patients_and_are_read_by_name():
    paths = [Path(REAL_DATA, "coursera", name) for name in ("train-small.csv", "valid-small.csv", "test.csv")]
    result = check_splits(*paths, None)
    assert result.shared_patients == {("train", "val"): 197, ("train", "test"): 0, ("val", "test"): 0}
    assert result.shared_images == {("train", "val"): 198, ("train", "test"): 0, ("val", "test"): 0}
    assert result.exit_code == 2
    frames = [pd.read_csv(path) for path in paths]
    assert list(frames[0].columns) != list(frames[2].columns)
    for frame, split in zip(frames, result.parts.values(), strict=True):
        assert split.findings == result.parts["train"].findings
        assert split.images == tuple(frame["Image"])
        np.testing.assert_array_equal(split.labels, frame[list(split.findings)].to_numpy(np.float32))


@pytest.mark.fault("C06")
@pytest.mark.parametrize("name", ["C06-long-row", "C06-short-row"])
def test_mutation_a_reader_that_cuts_and_fills_rows_is_noticed(tmp_path, monkeypatch, name):
    def shifted(data):
        for line, cells in enumerate(csv.reader(io.StringIO(data.decode())), start=1):
            yield line, [*cells, "0"][:4] if len(cells) < 4 else cells[:4]

    monkeypatch.setattr(labels_module, "records", shifted)
    with pytest.raises(AssertionError):
        assert_refused(tmp_path, *FAULTY[name])
