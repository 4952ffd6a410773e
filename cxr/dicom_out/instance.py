"""What every DICOM object of an answer has in common: who made it, whose it is, and identifiers of its own.

Each object is a new instance in a new series of the source's study, whatever was written for it before: another run may
have another model or other words, and two instances of one UID must not differ.
Source: DICOM PS3.3 C.7.3.1 (series), C.7.5.1 (equipment), C.12.1 (SOP common).
"""

import copy
import datetime
import io
from dataclasses import dataclass, field

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR

from cxr.dicom_out.codes import scheme_identification, short_text
from cxr.dicom_out.source import Source
from cxr.heatmaps.explanation import INPUT_CHECK_WARNING, Explanation
from cxr.imaging.dicom_header import OWN_MANUFACTURER, attempt
from cxr.network.model_info import ModelInfo

MODEL_NAME = "Chest X-ray DenseNet121"
PURPOSE = "Research prototype, not for clinical use"  # begins every series description
FIRST_SERIES = 9001  # behind those of the modality, which archives list by number
UTF_8 = "ISO_IR 192"
MAX_VERSION = 64  # characters of the type LO
REFERENCES = ("SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")  # the source's own, which its answers do not share

# Where a capture, an SR document and a segmentation say which image they are of.
SOURCE_REFERENCES = ("SourceImageSequence", "CurrentRequestedProcedureEvidenceSequence", "ReferencedSeriesSequence")


@dataclass(frozen=True, eq=False)
class Answer:
    """One answer, as the objects tell it.

    Attributes:
        notices: on the picture, as the decoder gives them.
        written: when.
    """

    source: Source
    info: ModelInfo
    explanation: Explanation
    notices: tuple[str, ...] = ()
    written: datetime.datetime = field(default_factory=datetime.datetime.now)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What has to stand beside the numbers, the gravest first."""
        return (*([INPUT_CHECK_WARNING] if self.explanation.fails_input_check else []), *self.notices)

    @property
    def version(self) -> str:
        """The model file's digest, by which the model is known."""
        return short_text(self.info.digest or "not saved", MAX_VERSION)


def common_arguments(answer: Answer, place: int, description: str) -> dict[str, object]:
    """Return what highdicom's constructors take for series, instance and equipment, the identifiers new.

    Args:
        place: of the object among those of one answer, from 0.
    """
    return {
        "series_instance_uid": generate_uid(prefix=None),
        "series_number": FIRST_SERIES + place,
        "sop_instance_uid": generate_uid(prefix=None),
        "instance_number": 1,
        "manufacturer": OWN_MANUFACTURER,
        "manufacturer_model_name": MODEL_NAME,
        "device_serial_number": answer.version,
        "software_versions": answer.version,
        "series_description": short_text(f"{PURPOSE}: {description}", 64),
        "series_date": answer.written.date(),
        "series_time": answer.written.time().replace(microsecond=0),
        "content_date": answer.written.date(),
        "content_time": answer.written.time().replace(microsecond=0),
    }


def source_image(answer: Answer) -> Dataset:
    """Return the source's header as highdicom's constructors take it: without names and character set.

    They repeat names in warnings, of which logs must not know, and refuse valid character sets; `to_file` adds both.
    """
    header = copy.deepcopy(answer.source.header)
    header.PatientName = header.ReferringPhysicianName = ""
    header.pop("SpecificCharacterSet", None)
    return header


def to_file(dataset: Dataset, answer: Answer) -> bytes:
    """Give an object its patient, study and character set, and write it as a DICOM file."""
    only_ascii = _holds_only_ascii(dataset, but=answer.source.header)
    for element in answer.source.header:
        if element.keyword not in REFERENCES:
            dataset[element.tag] = copy.deepcopy(element)  # a name that was written once keeps those bytes
    scheme = Dataset()
    for keyword, value in scheme_identification().items():
        setattr(scheme, keyword, value)
    dataset.CodingSchemeIdentificationSequence = [scheme]
    if not only_ascii:
        dataset.SpecificCharacterSet = UTF_8  # the patient's name stays the same text
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _holds_only_ascii(dataset: Dataset, but: Dataset) -> bool:
    """Say whether every text of an object is ASCII, those left out that are the source's own."""
    texts = (one for one in dataset.iterall() if one.VR in CUSTOMIZABLE_CHARSET_VR and one.keyword not in but)
    return all(str(one.value).isascii() for one in texts)


def referenced_instances(data: bytes) -> set[str]:
    """Return the UIDs of the instances that an object was made of; empty for what is no such object."""

    def read() -> set[str]:
        stored = pydicom.dcmread(io.BytesIO(data), specific_tags=list(SOURCE_REFERENCES))
        return {str(one.value) for one in stored.iterall() if one.keyword == "ReferencedSOPInstanceUID"}

    return attempt(read) or set()
