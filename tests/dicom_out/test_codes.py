"""The codes of findings: those that DICOM's context groups list are compared with pydicom's copy of them."""

import re

import pytest
from pydicom.sr._concepts_dict import concepts

from cxr.dicom_out import codes
from cxr.dicom_out.codes import Concept, finding_code

CONTEXT_GROUPS = [
    (codes.FINDING_CODES["effusion"], 645),
    (codes.FINDING_CODES["infiltration"], 6104),
    (codes.FINDING_CODES["mass"], 6104),
    (codes.FINDING_CODES["nodule"], 6104),
    (codes.FINDING_CODES["pneumothorax"], 6105),
    (codes.FINDING_CODES["edema"], 3700),
    (codes.SOURCE_IMAGE, 7202),
    (codes.RADIOGRAPHY, 100),
    (codes.ANATOMICAL_STRUCTURE, 7150),
    (codes.LUNG, 7151),
    (codes.HEART, 7151),
    (codes.RIGHT, 244),
    (codes.LEFT, 244),
]


def listed(concept: Concept) -> dict[str, list[int]]:
    """Return the meanings that pydicom's copy of the standard has for a code, with their context groups."""
    found = [entry[concept.value] for entry in concepts[concept.scheme].values() if concept.value in entry]
    return dict(found)


@pytest.mark.parametrize(("concept", "group"), CONTEXT_GROUPS)
def test_the_standard_lists_the_code_with_this_meaning(concept, group):
    assert group in listed(concept)[concept.meaning]


@pytest.mark.parametrize("concept", [codes.PROBABILITY, codes.COMMENT, codes.NO_UNITS])
def test_the_standard_knows_the_code(concept):
    assert concept.meaning in listed(concept)


@pytest.mark.parametrize("concept", codes.FINDING_CODES.values())
def test_no_code_means_something_else_in_the_standard(concept):
    assert set(listed(concept)) <= {concept.meaning}


def test_spellings_of_a_finding_have_one_code():
    assert finding_code("Pleural_Thickening") == finding_code("pleural thickening")[:2] + ("Pleural Thickening",)
    assert finding_code("EFFUSION") == Concept("60046008", "SCT", "Pleural effusion")


@pytest.mark.parametrize(
    "name", ["Hernia", "Pleural_Thickening", "心肥大", "Enlarged Cardiomediastinum", "a+b", "ÄÖ", "?"]
)
def test_other_findings_get_a_private_code_that_fits(name):
    code = finding_code(name)
    assert code.scheme == "99CXRPROTO"
    assert re.fullmatch(r"[A-Z0-9-]{1,16}", code.value)
    assert finding_code(name) == code


def test_private_codes_of_different_findings_differ():
    names = ["a+b", "a-b", "ab", "Enlarged Cardiomediastinum", "Enlarged Cardiomegalia", "心", "肥"]
    assert len({finding_code(name).value for name in names}) == len(names)
