"""The Comprehensive SR of an answer, read again with pydicom alone: its numbers, codes, references and words."""

import dataclasses
import io

import dicom_answers as answers
import numpy as np
import pydicom
import pytest

from cxr.heatmaps.explanation import INPUT_CHECK_WARNING
from cxr.imaging.radiograph import decode_radiograph
from cxr.inference.report_draft import draft_report


def report_of(data: bytes, info=answers.INFO, **fields) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(answers.objects_for(data, info, **fields)["report"]))


@pytest.fixture(scope="module")
def report():
    return report_of(answers.patient_dicom())


def test_each_finding_has_its_numbers_and_decision_most_probable_first(report):
    said = [
        (
            group["Tracking Identifier"],
            group["Finding"],
            group["Probability"],
            group["Calibrated probability"],
            group["Threshold of the decision"],
            group["Decision by the threshold"],
        )
        for group in answers.groups_of(report)
    ]
    above, below = ("ABOVE", "99CXRPROTO"), ("BELOW", "99CXRPROTO")
    assert said == [
        ("Cardiomegaly", ("8186001", "SCT"), 0.7312846, 0.3, 0.5, above),
        ("Pleural Thickening", ("PLEURAL-24838B5C", "99CXRPROTO"), 0.5, 0.2, 0.5, above),
        ("Effusion", ("60046008", "SCT"), 0.25, 0.1, 0.5, below),
    ]


@pytest.mark.parametrize("seed", range(3))
def test_numbers_read_again_are_the_same_float32(seed):
    rng = np.random.default_rng(seed)
    probabilities = np.concatenate([rng.uniform(0, 1, 2), 10.0 ** -rng.uniform(3, 30, 1)]).astype(np.float32)
    groups = answers.groups_of(report_of(answers.patient_dicom(), probabilities=probabilities))
    read = np.array([group["Probability"] for group in groups], np.float32)
    np.testing.assert_array_equal(read, np.sort(probabilities)[::-1])


def test_every_group_names_the_model_and_the_source_image(report):
    for group in answers.groups_of(report):
        assert group["Algorithm Name"] == "Chest X-ray DenseNet121"
        assert group["Algorithm Version"] == "2026-01-02 0123456789abcdef"
        assert group["Source of Measurement"] == answers.INSTANCE
    assert report.DeviceSerialNumber == answers.INFO.digest


def test_the_report_stands_in_the_patients_study_in_a_series_of_its_own(report):
    for keyword, value in answers.PATIENT.items():
        if keyword not in ("SeriesInstanceUID", "SOPInstanceUID"):
            assert str(report[keyword].value) == value
    assert report.SeriesInstanceUID != answers.SERIES
    assert report.SOPInstanceUID != answers.INSTANCE
    assert report.Modality == "SR"
    assert report.SeriesDescription == "Research prototype, not for clinical use: findings"
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0]
    assert evidence.StudyInstanceUID == answers.STUDY
    series = evidence.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == answers.SERIES
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == answers.INSTANCE


def test_the_report_is_preliminary_and_nobody_has_verified_it(report):
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")


def comments_of(report: pydicom.Dataset) -> list[str]:
    return [
        item.TextValue for item in answers.items_of(report) if item.ConceptNameCodeSequence[0].CodeValue == "121106"
    ]


def test_disclaimer_and_warnings_are_text_before_the_numbers():
    report = report_of(answers.patient_dicom(BodyPartExamined="HAND"), input_check=2.0)
    assert comments_of(report)[:-1] == [
        "Prototype for education. Not intended for clinical use.",
        INPUT_CHECK_WARNING,
        "The file is marked as another part of the body than the chest.",
    ]
    names = [item.ConceptNameCodeSequence[0].CodeMeaning for item in report.ContentSequence]
    assert names.index("Qualitative Evaluations") < names.index("Imaging Measurements")


def test_the_report_draft_is_the_last_text(report):
    data = answers.patient_dicom()
    answer = answers.answer_for(data)
    height, width = decode_radiograph(data).shape
    expected = draft_report(answers.INFO, answer.explanation, answer.notices, width, height).text
    assert comments_of(report)[-1].splitlines() == expected.splitlines()
    assert "Cardiomegaly: probability 0.73, at or above its threshold of 0.50." in comments_of(report)[-1]


def test_without_calibration_no_calibrated_probability_is_invented():
    for group in answers.groups_of(report_of(answers.patient_dicom(), calibrated=None)):
        assert "Calibrated probability" not in group


@pytest.mark.fault("O06")
def test_running_twice_makes_other_instances_in_other_series(report):
    again = report_of(answers.patient_dicom())
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert again[keyword].value != report[keyword].value
    assert again.StudyInstanceUID == report.StudyInstanceUID


@pytest.mark.fault("O11")
@pytest.mark.parametrize("description", ["", "Röntgenbilder der Klinik", "胸部X線", "films of 2024"])
@pytest.mark.parametrize(
    ("character_set", "name"),
    [(None, "Doe^Jane"), ("ISO_IR 100", "Müller^Eva"), (["ISO_IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ=山田=やまだ")],
)
def test_words_of_a_model_file_are_written_as_they_stand(description, character_set, name):
    """A test set without description is named in quotation marks, which no set but Unicode has."""
    info = dataclasses.replace(answers.INFO, test_sets={"test": {"description": description, "num_images": 10}})
    tags = {"SpecificCharacterSet": character_set} if character_set else {}
    objects = answers.objects_for(answers.patient_dicom(PatientName=name, **tags), info)
    report = pydicom.dcmread(io.BytesIO(objects["report"]))
    radiographs = description or "radiographs of the test set “test”"
    assert f"On the test radiographs most like this one (10 {radiographs})" in comments_of(report)[-1]
    for one in objects.values():
        assert pydicom.dcmread(io.BytesIO(one)).PatientName == name
    assert ("SpecificCharacterSet" in report) == bool(character_set or not radiographs.isascii())
    if not radiographs.isascii():
        assert report.SpecificCharacterSet == "ISO_IR 192"
        assert radiographs.encode() in objects["report"]
    assert b"?test?" not in objects["report"]


@pytest.mark.fault("O04")
def test_findings_of_any_script_are_written_and_the_patient_stays_who_it_is():
    info = dataclasses.replace(answers.INFO, findings=("心肥大", "a\\b", "x" * 200))
    data = answers.patient_dicom(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Eva")
    report = report_of(data, info)
    assert report.SpecificCharacterSet == "ISO_IR 192"
    assert report.PatientName == "Müller^Eva"
    found = {
        item.ConceptCodeSequence[0].CodeMeaning
        for item in answers.items_of(report)
        if item.ValueType == "CODE" and item.ConceptNameCodeSequence[0].CodeMeaning == "Finding"
    }
    assert found == {"心肥大", "a b", "x" * 61 + "..."}
