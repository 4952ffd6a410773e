"""DICOM files of patients, and answers for them without a network: what the tests of DICOM results share."""

import datetime

import numpy as np
import radiographs as files
from pydicom.dataset import Dataset

from cxr.anatomy.outlines import Outlines
from cxr.dicom_out.instance import Answer
from cxr.dicom_out.objects import dicom_objects
from cxr.dicom_out.source import read_source
from cxr.heatmaps.explanation import Explanation
from cxr.imaging.radiograph import decode_with_notices
from cxr.network.model_info import ModelInfo

STUDY, SERIES, INSTANCE = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2", "1.2.826.0.1.3680043.8.498.3"
PATIENT = {
    "StudyInstanceUID": STUDY,
    "SeriesInstanceUID": SERIES,
    "SOPInstanceUID": INSTANCE,
    "PatientName": "Doe^Jane",
    "PatientID": "007",
    "PatientBirthDate": "19500131",
    "PatientSex": "F",
    "StudyDate": "20240229",
    "StudyTime": "235959",
    "ReferringPhysicianName": "Roe^Richard",
    "StudyID": "S1",
    "AccessionNumber": "A1",
    "StudyDescription": "CHEST PA",
}
FINDINGS = ("Effusion", "Pleural_Thickening", "Cardiomegaly")
INFO = ModelInfo(findings=FINDINGS, image_size=32, threshold=0.5, digest="0123456789abcdef" * 4, created="2026-01-02")


def patient_dicom(samples: np.ndarray | None = None, **tags) -> bytes:
    """Return a patient's chest radiograph; `tags` replace or add elements, None removes one."""
    kept = {name: value for name, value in (PATIENT | tags).items() if value is not None}
    return files.dicom(files.radiograph() if samples is None else samples, **kept)


def explanation(**fields) -> Explanation:
    probabilities = np.array([0.25, 0.5, 0.7312846], np.float32)
    heatmaps = np.random.default_rng(0).uniform(0, 1, (3, 4, 4)).astype(np.float32)
    values = {
        "probabilities": probabilities,
        "logits": np.log(probabilities / (1 - probabilities)),
        "calibrated": np.array([0.1, 0.2, 0.3]),
        "heatmaps": heatmaps,
        "input_check": 0.5,
        "outlines": outlines(),
    }
    return Explanation(**values | fields)


def outlines(**fields) -> Outlines:
    """Return two lungs and a heart that overlaps one of them, on a grid of 8 x 8 cells."""
    labels, heart = np.zeros((8, 8), np.uint8), np.zeros((8, 8), bool)
    labels[1:6, 1:3], labels[1:7, 5:7] = 1, 2
    heart[4:7, 3:6] = True
    values = {"labels": labels, "heart": heart, "lungs_credible": True, "heart_credible": True, "reason": None}
    return Outlines(**values | fields)


def answer_for(data: bytes, info: ModelInfo = INFO, **fields) -> Answer:
    picture = decode_with_notices(data)
    written = datetime.datetime(2026, 3, 4, 5, 6, 7)
    return Answer(read_source(data), info, explanation(**fields), picture.notices, written)


def objects_for(data: bytes, info: ModelInfo = INFO, **fields) -> dict[str, bytes]:
    """Return the DICOM files of an answer for this file."""
    return dicom_objects(answer_for(data, info, **fields), decode_with_notices(data).radiograph)


def items_of(report: Dataset) -> list[Dataset]:
    """Return every content item of an SR document, in the order of a reader."""
    found = []
    for item in report.get("ContentSequence", ()):
        found += [item, *items_of(item)]
    return found


def groups_of(report: Dataset) -> list[dict[str, object]]:
    """Return the measurement groups of an SR document: concept name -> number, text or code value."""
    return [
        {_name(one): _value(one) for one in item.ContentSequence}
        for item in items_of(report)
        if item.ValueType == "CONTAINER" and item.ConceptNameCodeSequence[0].CodeValue == "125007"
    ]


def _name(item: Dataset) -> str:
    return item.ConceptNameCodeSequence[0].CodeMeaning


def _value(item: Dataset) -> object:
    if item.ValueType == "NUM":
        return float(item.MeasuredValueSequence[0].NumericValue)
    if item.ValueType == "CODE":
        code = item.ConceptCodeSequence[0]
        return code.CodeValue, code.CodingSchemeDesignator
    if item.ValueType == "IMAGE":
        return str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
    return str(item.get("TextValue") or item.get("UID"))
