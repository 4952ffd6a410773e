"""Whose radiograph it is: taken over unchanged, left empty where the standard allows it, or refused; never invented."""

import io
import logging
import warnings

import dicom_answers as answers
import numpy as np
import pydicom
import pytest
import radiographs as files
from pydicom.datadict import dictionary_VR, tag_for_keyword

from cxr.dicom_out.source import SourceError, read_source
from cxr.imaging.radiograph import ImageError


def test_what_tells_patient_and_study_apart_is_taken_over():
    header = read_source(answers.patient_dicom()).header
    assert {keyword: str(header[keyword].value) for keyword in answers.PATIENT} == answers.PATIENT


def test_nothing_else_of_the_file_is_taken_over():
    data = answers.patient_dicom(
        OperatorsName="Moe", InstitutionName="Clinic", PatientComments="x", OtherPatientIDs="9"
    )
    taken = {element.keyword for element in read_source(data).header}
    assert taken == {*answers.PATIENT, "SOPClassUID"}


def test_private_elements_and_later_groups_are_not_taken_over():
    dataset = files.dicom_dataset(files.radiograph(), **answers.PATIENT)
    dataset.private_block(0x0009, "SOMEONE", create=True).add_new(1, "LO", "secret")
    header = read_source(files.dicom_bytes(dataset)).header
    assert not any(element.tag.is_private for element in header)


MISSING = [
    ("StudyInstanceUID", "has no Study Instance UID, and none is invented"),
    ("SeriesInstanceUID", "has no Series Instance UID, and none is invented"),
    ("SOPInstanceUID", "has no SOP Instance UID, and none is invented"),
]


@pytest.mark.fault("O01")
@pytest.mark.parametrize(("keyword", "message"), MISSING)
def test_a_missing_identifier_is_refused(keyword, message):
    dataset = files.dicom_dataset(files.radiograph(), **answers.PATIENT)
    del dataset[keyword]
    with pytest.raises(SourceError, match=message):
        read_source(files.dicom_bytes(dataset))


@pytest.mark.fault("O01")
@pytest.mark.parametrize("data", [files.png(files.radiograph()), files.pillow_bytes(files.radiograph())])
def test_a_file_that_is_no_dicom_is_refused(data):
    with pytest.raises(SourceError, match="Only DICOM files have the identifiers"):
        read_source(data)


def with_raw(keyword: str, value: bytes, **tags) -> bytes:
    """Put bytes, which pydicom might refuse to write, in the place of an element's value."""
    value += b" " * (len(value) % 2)
    tag, vr = tag_for_keyword(keyword), dictionary_VR(keyword).encode()
    where = tag >> 16, tag & 0xFFFF
    placed = files.element(where, vr, b"M" * len(value))
    data = answers.patient_dicom(**{keyword: "M" * len(value)}, **tags)
    assert data.count(placed) == 1
    return data.replace(placed, files.element(where, vr, value))


@pytest.mark.fault("O02")
@pytest.mark.parametrize(
    "uid", ["1.02.3", "1.2.", ".1", "1..2", "1", "1.2.x", "3.4.5", "0.0", "1." + "2" * 63, "1.2\\1.3"]
)
def test_a_uid_that_nothing_can_refer_to_is_refused(uid):
    with pytest.raises(SourceError, match="Study Instance UID of this DICOM file is no valid UID"):
        read_source(with_raw("StudyInstanceUID", uid.encode()))


def test_a_uid_of_64_characters_is_taken():
    uid = "1." + "2" * 62
    assert read_source(with_raw("StudyInstanceUID", uid.encode())).header.StudyInstanceUID == uid


BAD_IDENTITIES = [
    ("PatientID", b"x" * 65),
    ("PatientID", b"12\\34"),
    ("PatientID", b"12\n34"),
    ("PatientID", b"M\xfcller"),  # not in the default repertoire
    ("PatientName", b"D" * 65),
    ("PatientName", b"a^b^c^d^e^f"),
    ("PatientName", b"A=B=C=D"),
    ("PatientName", b"M\xfcller^Eva"),
    ("PatientName", b"Doe^J\x00ane"),
]


@pytest.mark.fault("O02")
@pytest.mark.parametrize(("keyword", "value"), BAD_IDENTITIES)
def test_a_patient_that_would_become_another_is_refused_without_the_value(keyword, value):
    with pytest.raises(SourceError, match="would make another patient of it") as caught:
        read_source(with_raw(keyword, value))
    assert value.decode("latin-1")[:4] not in str(caught.value)


EMPTIED = [
    ("PatientBirthDate", b"19501399"),
    ("PatientBirthDate", b"1950.01.31"),
    ("StudyDate", b"yesterda"),
    ("StudyTime", b"99"),
    ("StudyTime", b"235960"),
    ("PatientSex", b"female"),
    ("AccessionNumber", b"x" * 17),
    ("ReferringPhysicianName", b"M\xfcller^Max"),
]


@pytest.mark.fault("O03")
@pytest.mark.parametrize(("keyword", "value"), EMPTIED)
def test_what_is_not_as_the_standard_wants_it_is_left_empty(keyword, value):
    header = read_source(with_raw(keyword, value)).header
    assert str(header[keyword].value or "") == ""
    assert header.PatientID == "007"


@pytest.mark.fault("O03")
def test_missing_and_empty_elements_of_type_2_stay_empty():
    header = read_source(answers.patient_dicom(PatientID="", PatientName=None, PatientBirthDate=None)).header
    assert [str(header[name].value or "") for name in ("PatientID", "PatientName", "PatientBirthDate")] == ["", "", ""]


NAMES = [
    ("ISO_IR 100", "Müller^Jürgen", "latin-1"),
    ("ISO_IR 144", "Люкceмбypг^Иван", "iso8859-5"),  # noqa: RUF001
    ("ISO_IR 192", "Wang^XiaoDong=王^小东", "utf-8"),
    ("GB18030", "Wang^XiaoDong=王^小东", "gb18030"),
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう", None),
    (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동", None),
    (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう", None),
]


@pytest.mark.fault("O04")
@pytest.mark.parametrize(("character_set", "name", "codec"), NAMES)
def test_names_keep_their_bytes_and_their_character_set(character_set, name, codec):
    data = answers.patient_dicom(SpecificCharacterSet=character_set, PatientName=name)
    stored = pydicom.dcmread(files.io.BytesIO(data))
    raw_name = stored.get_item("PatientName").value
    assert str(stored.PatientName) == name
    if codec:
        assert name.encode(codec) in data
    for written in answers.objects_for(data).values():
        result = pydicom.dcmread(files.io.BytesIO(written))
        assert result.get_item("PatientName").value == raw_name
        assert str(result.PatientName) == name
        assert result.SpecificCharacterSet == stored.SpecificCharacterSet


@pytest.mark.fault("O04")
def test_code_extensions_get_the_names_that_they_have_beside_each_other():
    data = answers.patient_dicom(SpecificCharacterSet=["ISO_IR 13", "ISO 2022 IR 87"], PatientName="ﾔﾏﾀﾞ=山田=やまだ")
    header = read_source(data).header
    assert list(header.SpecificCharacterSet) == ["ISO 2022 IR 13", "ISO 2022 IR 87"]
    assert header.PatientName == "ﾔﾏﾀﾞ=山田=やまだ"


@pytest.mark.fault("O04")
@pytest.mark.parametrize(("character_set", "value"), [("ISO_IR 192", b"M\xfcller^E"), ("ISO_IR 6", b"M\xc3\xbcller^E")])
def test_a_name_that_its_character_set_does_not_hold_is_refused(character_set, value):
    with pytest.raises(SourceError, match="would make another patient of it"):
        read_source(with_raw("PatientName", value, SpecificCharacterSet=character_set))


@pytest.mark.fault("O04")
@pytest.mark.parametrize("value", [b"ISO_IR 999", b"\\ISO_IR 192", b"GBK\\ISO 2022 IR 6"])
def test_character_sets_that_the_standard_does_not_know_are_refused(value):
    data = answers.patient_dicom(SpecificCharacterSet="ISO_IR 100", StudyDescription="x" * 10)
    old = files.element((8, 5), b"CS", b"ISO_IR 100")
    with pytest.raises(SourceError, match="none of the standard's"):
        read_source(data.replace(old, files.element((8, 5), b"CS", value + b" " * (len(value) % 2))))


def test_empty_values_of_the_character_set_are_the_default():
    old = files.element((8, 5), b"CS", b"ISO_IR 100")
    data = answers.patient_dicom(SpecificCharacterSet="ISO_IR 100")
    header = read_source(data.replace(old, files.element((8, 5), b"CS", b"\\ "))).header
    assert "SpecificCharacterSet" not in header


@pytest.mark.fault("O02")
@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.88.33", "1.2.3.4.5"])
def test_a_sop_class_that_is_no_standard_image_is_refused(sop_class):
    with pytest.raises(SourceError, match="none of the standard's images"):
        read_source(answers.patient_dicom(SOPClassUID=sop_class))


@pytest.mark.fault("O05")
def test_cut_files_give_an_error_and_nothing_else():
    data = answers.patient_dicom()
    refused = 0
    for end in range(0, len(data) - 8000, 3):
        try:
            read_source(data[:end])
        except (SourceError, ImageError):
            refused += 1
    assert refused > 100


def test_rows_columns_and_the_turn_are_those_of_the_stored_picture():
    picture = files.radiograph(40, 60)
    source = read_source(answers.patient_dicom(picture, PatientOrientation=["R", "F"]))
    assert (source.rows, source.columns) == (40, 60)
    np.testing.assert_array_equal(source.turn.apply(picture), picture[:, ::-1])


@pytest.mark.fault("I38")
def test_nothing_repeats_names_or_identifiers_in_a_warning_or_a_log_line(caplog, capfd):
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        answers.objects_for(answers.patient_dicom(PatientName="MUSTERMANN", ReferringPhysicianName="SCHULZE"))
    said = "\n".join([caplog.text, *capfd.readouterr(), *(str(one.message) for one in caught)])
    for secret in ("MUSTERMANN", "SCHULZE", answers.INSTANCE):
        assert secret not in said


TWICE = [
    ("PatientID", b"OTHER1"),
    ("PatientName", b"Other^Name"),
    ("StudyInstanceUID", b"1.2.840.99\0"),
    ("SOPInstanceUID", b"1.2.840.98\0"),
    ("Rows", b"\x10\0"),
]


@pytest.mark.fault("O12")
@pytest.mark.parametrize(("keyword", "value"), TWICE)
@pytest.mark.parametrize("first", [True, False])
def test_an_element_with_two_different_values_is_refused_and_one_that_is_repeated_is_not(keyword, value, first):
    """Readers disagree on which of two counts: the results would join one patient or another."""
    data, tag = answers.patient_dicom(), tag_for_keyword(keyword)
    dataset = pydicom.dcmread(io.BytesIO(data))
    vr = dictionary_VR(keyword).encode()
    stored = files.element((tag >> 16, tag & 0xFFFF), vr, dataset.get_item(tag).value)
    assert data.count(stored) == 1
    other = files.element((tag >> 16, tag & 0xFFFF), vr, value)
    with pytest.raises(ImageError, match="an element in it is there twice, with different values") as refused:
        read_source(data.replace(stored, other + stored if first else stored + other))
    assert refused.value.code == "damaged"
    same = read_source(data.replace(stored, stored + stored))
    assert same.header == read_source(data).header
