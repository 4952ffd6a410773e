"""Nothing of a DICOM header leaves but notices that name no value."""

import logging
import re
import struct
import warnings

import numpy as np
import pydicom
import pytest
import radiographs as files

from cxr.imaging.radiograph import ImageError, decode_with_notices

PICTURE = files.radiograph()


# --- notices and privacy ---------------------------------------------------------------------------------------------

NOTICES = [
    ({"Modality": "CT"}, "The file is not marked as a radiograph (CR, DX, DR or RG)."),
    ({"Modality": None}, "The file is not marked as a radiograph (CR, DX, DR or RG)."),
    ({"BodyPartExamined": "HAND"}, "The file is marked as another part of the body than the chest."),
    ({"ViewPosition": "LL"}, "The file is marked as a lateral view; frontal views (PA or AP) are expected."),
    ({"ViewPosition": "LATERAL"}, "The file is marked as a lateral view; frontal views (PA or AP) are expected."),
    (
        {"PatientOrientation": ["A", "F"]},
        "The file is marked as a lateral view; frontal views (PA or AP) are expected.",
    ),
    (
        {"BurnedInAnnotation": "YES"},
        "The file is marked as having text in the picture, which may name the patient.",
    ),
    (
        {"PresentationIntentType": "FOR PROCESSING"},
        "The file is marked as raw detector data, which looks different from a picture for reading.",
    ),
    ({"Modality": "CR"}, None),
    ({"Modality": "DR"}, None),
    ({"Modality": "RG"}, None),
    ({"BodyPartExamined": None}, None),
    ({"BodyPartExamined": "Chest "}, None),
    ({"ViewPosition": "AP", "PatientOrientation": ["L", "F"], "BurnedInAnnotation": "NO"}, None),
]


@pytest.mark.fault("I35", "I39")
@pytest.mark.parametrize(("tags", "notice"), NOTICES)
def test_unusual_headers_give_a_notice(tags, notice):
    radiograph, notices, _ = decode_with_notices(files.dicom(PICTURE, **tags))
    assert notices == (() if notice is None else (notice,))
    np.testing.assert_array_equal(radiograph, PICTURE)


TEXT_TAGS = """PatientName PatientID PatientBirthDate PatientAge StudyDate StudyTime StudyDescription StudyInstanceUID
    InstitutionName AccessionNumber SeriesDescription ReferringPhysicianName OperatorsName StationName Modality
    BodyPartExamined ViewPosition BurnedInAnnotation WindowCenter WindowWidth RescaleSlope SpecificCharacterSet"""


def dicom_full_of_markers() -> bytes:
    """Plant a marker, invalid for its type, in every text element; written by hand, as pydicom would refuse to."""
    elements = {}
    for element in files.dicom_dataset(PICTURE):
        value = element.value if isinstance(element.value, bytes) else str(element.value).encode()
        elements[element.tag] = (element.VR, struct.pack("<H", element.value) if element.VR == "US" else value)
    for place, keyword in enumerate(TEXT_TAGS.split()):
        tag = pydicom.datadict.tag_for_keyword(keyword)
        elements[tag] = (pydicom.datadict.dictionary_VR(tag), b"DOE^JANE 1950-13-99 \xe9 %02d " % place)
    elements[0x00091001] = ("UN", b"DOE^JANE private!!")
    ordered = sorted(elements.items())
    coded = [files.element((tag >> 16, tag & 0xFFFF), vr.encode(), value) for tag, (vr, value) in ordered]
    return files.dicom_start() + b"".join(coded)


@pytest.mark.fault("I38")
def test_no_value_of_the_header_leaves(caplog, capfd):
    """Look for the markers wherever text can come out, for the whole file, cut ones and one that lies."""
    whole = dicom_full_of_markers()
    assert whole.count(b"DOE^JANE") == 23
    cuts = [whole[:end] for end in range(200, len(whole), 97)]
    frames = whole.replace(
        files.element((0x28, 0x10), b"US", b"\x60\x00"), files.element((0x28, 0x10), b"US", b"\xff\x00")
    )
    said = []
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        for data in (whole, frames, *cuts):
            try:
                said += decode_with_notices(data)[1]
            except ImageError as error:
                assert error.__cause__ is None
                assert error.__context__ is None
                said.append(str(error))
        said += [str(warning.message) for warning in caught]
    assert len(said) > 50
    out = "\n".join([*said, caplog.text, *capfd.readouterr()])
    assert "DOE" not in out
    assert "1950" not in out


@pytest.mark.fault("I38")
def test_mutation_an_error_that_quotes_the_header_is_noticed(monkeypatch, caplog, capfd):
    real = decode_with_notices

    def tell(data: bytes):
        try:
            return real(data)
        except ImageError as error:
            found = re.search(rb"DOE\^[A-Z]+", data)
            raise ImageError(error.code, f"{error} {found and found[0].decode()}") from None

    monkeypatch.setitem(globals(), "decode_with_notices", tell)
    with pytest.raises(AssertionError, match="DOE"):
        test_no_value_of_the_header_leaves(caplog, capfd)
