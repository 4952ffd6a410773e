"""The answer as numbers for programs and reports: a Comprehensive SR by template TID 1500.

A measurement group (TID 1501) per finding, most probable first: probability, calibrated probability, threshold, and the
decision by it; which model file said so; the image it was said of. Disclaimer, warnings and the report draft come
before them as text.
Source: DICOM PS3.3 A.35.3 (Comprehensive SR IOD); PS3.16 TID 300, 1500, 1501, 4019.
"""

import highdicom
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from cxr.data.columns import display_name
from cxr.dicom_out.codes import (
    ABOVE,
    BELOW,
    CALIBRATED,
    COMMENT,
    DECISION,
    EVALUATIONS,
    NO_UNITS,
    PROBABILITY,
    RADIOGRAPHY,
    THRESHOLD,
    Concept,
    finding_code,
)
from cxr.dicom_out.instance import MODEL_NAME, PURPOSE, Answer, common_arguments, source_image
from cxr.heatmaps.explanation import rank_findings
from cxr.imaging.dicom_header import OWN_MANUFACTURER
from cxr.inference.report_draft import draft_report
from cxr.metrics.number_text import shortest_decimal
from cxr.network.model_info import ModelInfo


def build_report(answer: Answer, height: int, width: int) -> Dataset:
    """Build the SR document of an answer for a radiograph of height x width pixels."""
    arguments = common_arguments(answer, 1, "findings")
    text = draft_report(answer.info, answer.explanation, answer.notices, width, height).text
    draft = text.rstrip().replace("\n", "\r\n")  # which ends a line in DICOM's texts (PS3.5 6.1.3)
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(prefix=None),
        name=PURPOSE,
        manufacturer_name=OWN_MANUFACTURER,
        model_name=MODEL_NAME,
        serial_number=answer.version,
    )
    observer = sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=_coded(RADIOGRAPHY),
        imaging_measurements=[_group(answer, k) for k in rank_findings(answer.explanation.probabilities)],
    )
    report[0].ContentSequence.insert(-1, _comments((answer.info.disclaimer, *answer.warnings, draft)))
    _separate(report[0])
    return sr.ComprehensiveSR(evidence=[source_image(answer)], content=report[0], is_complete=True, **arguments)


def _group(answer: Answer, k: int) -> sr.MeasurementsAndQualitativeEvaluations:
    """Build one finding's measurement group (TID 1501)."""
    info, explanation, header = answer.info, answer.explanation, answer.source.header
    algorithm = sr.AlgorithmIdentification(
        name=MODEL_NAME, version=_version(info), manufacturer=OWN_MANUFACTURER, parameters=[PURPOSE]
    )
    measurements = [(PROBABILITY, explanation.probabilities[k])]
    if explanation.calibrated is not None:
        measurements.append((CALIBRATED, explanation.calibrated[k]))
    measurements.append((THRESHOLD, info.threshold))
    above = explanation.probabilities[k] >= info.threshold
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=generate_uid(prefix=None), identifier=display_name(info.findings[k])
        ),
        finding_type=_coded(finding_code(info.findings[k])),
        algorithm_id=algorithm,
        measurements=[
            sr.Measurement(_coded(name), shortest_decimal(value), _coded(NO_UNITS)) for name, value in measurements
        ],
        qualitative_evaluations=[sr.QualitativeEvaluation(_coded(DECISION), _coded(ABOVE if above else BELOW))],
        source_images=[sr.SourceImageForMeasurementGroup(header.SOPClassUID, header.SOPInstanceUID)],
    )


def _comments(sentences: tuple[str, ...]) -> highdicom.sr.ContainerContentItem:
    """Collect sentences as the report's Qualitative Evaluations (TID 1500), which may be texts."""
    contains = sr.RelationshipTypeValues.CONTAINS
    container = sr.ContainerContentItem(name=_coded(EVALUATIONS), relationship_type=contains)
    texts = [sr.TextContentItem(_coded(COMMENT), sentence, contains) for sentence in sentences]
    container.ContentSequence = sr.ContentSequence(texts)
    return container


def _separate(item: Dataset) -> None:
    """Mark a container and those in it as lists of named items, which viewers else show as running text."""
    if item.ValueType == "CONTAINER":
        item.ContinuityOfContent = "SEPARATE"
        for one in item.get("ContentSequence", ()):
            _separate(one)


def _version(info: ModelInfo) -> str:
    """Return when the model was made and the start of its digest, all of which is the device's serial number."""
    return f"{info.created[:10]} {info.digest[:16]}".strip() or "not saved"


def _coded(concept: Concept) -> sr.CodedConcept:
    return sr.CodedConcept(*concept)
