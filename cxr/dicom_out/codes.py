"""The codes of findings and of what is said about them: from published coding schemes where one means the same.

What no published code means gets one of this project's own, in a private scheme: their codes are made of the name, so
that two models that know a finding by one name give it one code.
"""

import hashlib
import re
from typing import NamedTuple

from cxr.data.columns import display_name, name_key
from cxr.imaging.dicom_header import OWN_MANUFACTURER

PRIVATE_SCHEME = "99CXRPROTO"  # PS3.3 section 8.2: private designators begin with 99
MAX_CODE, MAX_MEANING = 16, 64  # characters of the types SH and LO


class Concept(NamedTuple):
    """A code (PS3.3 section 8): value, coding scheme and meaning."""

    value: str
    scheme: str
    meaning: str


# The meaning of NIH's labels (Wang et al. 2017) in SNOMED CT and DICOM. `CID` is the context group of DICOM PS3.16 that
# lists the code (pydicom.sr holds them, and the tests compare); SNOMED CT's own are concepts of its International
# Edition. Pleural thickening has none in RadLex and none that could be confirmed in SNOMED CT; of hernia the label does
# not say which one. DICOM's CID 12248 lists 287272002 as cardiomegaly, which in SNOMED CT is another condition.
FINDING_CODES = {
    "atelectasis": Concept("46621007", "SCT", "Atelectasis"),  # SNOMED CT
    "cardiomegaly": Concept("8186001", "SCT", "Cardiomegaly"),  # SNOMED CT
    "effusion": Concept("60046008", "SCT", "Pleural effusion"),  # CID 645
    "pleuraleffusion": Concept("60046008", "SCT", "Pleural effusion"),  # CID 645
    "infiltration": Concept("112121", "DCM", "Infiltrate"),  # CID 6104
    "mass": Concept("4147007", "SCT", "Mass"),  # CID 6104
    "nodule": Concept("27925004", "SCT", "Nodule"),  # CID 6104
    "pneumonia": Concept("233604007", "SCT", "Pneumonia"),  # SNOMED CT
    "pneumothorax": Concept("36118008", "SCT", "Pneumothorax"),  # CID 6105
    "consolidation": Concept("95436008", "SCT", "Lung consolidation"),  # SNOMED CT
    "edema": Concept("19242006", "SCT", "Pulmonary edema"),  # CID 3700
    "emphysema": Concept("87433001", "SCT", "Pulmonary emphysema"),  # SNOMED CT
    "fibrosis": Concept("51615001", "SCT", "Pulmonary fibrosis"),  # SNOMED CT
}
PROBABILITY = Concept("122157", "DCM", "Probability")
SOURCE_IMAGE = Concept("121322", "DCM", "Source image for image processing operation")  # CID 7202
COMMENT = Concept("121106", "DCM", "Comment")
EVALUATIONS = Concept("C0034375", "UMLS", "Qualitative Evaluations")  # TID 1500
RADIOGRAPHY = Concept("43468-8", "LN", "XR unspecified body region")  # CID 100
NO_UNITS = Concept("1", "UCUM", "no units")
CALIBRATED = Concept("CALIBRATED", PRIVATE_SCHEME, "Calibrated probability")
THRESHOLD = Concept("THRESHOLD", PRIVATE_SCHEME, "Threshold of the decision")
DECISION = Concept("DECISION", PRIVATE_SCHEME, "Decision by the threshold")
ABOVE = Concept("ABOVE", PRIVATE_SCHEME, "Probability at or above the threshold")
BELOW = Concept("BELOW", PRIVATE_SCHEME, "Probability below the threshold")
ANATOMICAL_STRUCTURE = Concept("91723000", "SCT", "Anatomical Structure")  # CID 7150
LUNG = Concept("39607008", "SCT", "Lung")  # CID 7151
HEART = Concept("80891009", "SCT", "Heart")  # CID 7151
RIGHT, LEFT = Concept("24028007", "SCT", "Right"), Concept("7771000", "SCT", "Left")  # CID 244


def finding_code(name: str) -> Concept:
    """Return the published code of a finding, or a private one that is made of its name."""
    known = FINDING_CODES.get(name_key(name))
    if known is not None:
        return known
    plain = name_key(name).upper()
    key = re.sub(r"[^A-Z0-9]", "", plain)
    if key != plain or not 0 < len(key) <= MAX_CODE:
        key = f"{key[:7]}-{hashlib.sha256(plain.encode()).hexdigest()[:8]}".upper().lstrip("-")
    return Concept(key, PRIVATE_SCHEME, short_text(display_name(name), MAX_MEANING))


def short_text(text: str, length: int) -> str:
    """Make a text fit an element: one line, not longer, and no backslash, which separates values."""
    plain = " ".join("".join(one if one.isprintable() and one != "\\" else " " for one in text).split())
    return plain if len(plain) <= length else plain[: length - 3].rstrip() + "..."


def scheme_identification() -> dict[str, str]:
    """Return what Coding Scheme Identification says of the private scheme, keyword -> value."""
    return {
        "CodingSchemeDesignator": PRIVATE_SCHEME,
        "CodingSchemeName": "Findings and decisions of a chest X-ray prototype for education",
        "CodingSchemeResponsibleOrganization": OWN_MANUFACTURER,
    }
