"""A DICOM picture is brought upright by what its header states, and its view is told from the header."""

import itertools

import numpy as np
import pytest
import radiographs as files
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from cxr.imaging.orientation import EXIF_TURNS, FLIPPED, TURNED, UNCLEAR, Turn
from cxr.imaging.radiograph import decode_with_notices

PICTURE = files.radiograph()
LATERAL = "The file is marked as a lateral view; frontal views (PA or AP) are expected."
OTHER = "The file is marked as a view that is not known to be frontal (PA or AP), such as oblique or decubitus."
OPPOSITE = dict(zip("RLAPHF", "LRPAFH", strict=True))
COSINES = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}


def stored(rows: str, columns: str, picture: np.ndarray = PICTURE, upright: str = "L") -> np.ndarray:
    """Store an upright picture, rows to `upright` and columns to F, so that rows and columns point as given."""
    if rows in "HF":
        return stored(columns, rows, picture, upright).T
    picture = picture if rows == upright else np.fliplr(picture)
    return picture if columns == "F" else np.flipud(picture)


FRONTAL = [pair for pair in itertools.permutations("LRHF", 2) if pair[1] != OPPOSITE[pair[0]]]


@pytest.mark.fault("I64")
@pytest.mark.parametrize(("rows", "columns"), FRONTAL)
@pytest.mark.parametrize("source", ["letters", "several letters", "cosines", "both"])
def test_a_frontal_picture_is_brought_upright(rows, columns, source):
    tags = {
        "letters": {"PatientOrientation": [rows, columns]},
        "several letters": {"PatientOrientation": [rows + "A", columns + "P"]},
        "cosines": {"ImageOrientationPatient": [*COSINES[rows], *COSINES[columns]]},
        "both": {
            "PatientOrientation": [rows, columns],
            "ImageOrientationPatient": [*(0.99 * np.array(COSINES[rows])), *COSINES[columns]],
        },
    }[source]
    radiograph, notices, _ = decode_with_notices(files.dicom(stored(rows, columns), **tags))
    np.testing.assert_array_equal(radiograph, PICTURE)
    assert notices == (() if (rows, columns) == ("L", "F") else (TURNED,))


@pytest.mark.fault("I64")
@pytest.mark.parametrize("front", ["A", "P"])
def test_a_lateral_picture_is_turned_feet_down_and_not_mirrored(front):
    for rows, columns in ((front, "F"), (front, "H"), ("F", front), ("H", front)):
        samples = stored(rows, columns, upright=front)
        radiograph, notices, _ = decode_with_notices(files.dicom(samples, PatientOrientation=[rows, columns]))
        np.testing.assert_array_equal(radiograph, PICTURE)
        assert notices == ((LATERAL,) if (rows, columns) == (front, "F") else (LATERAL, TURNED))


@pytest.mark.fault("I64")
def test_the_turn_comes_with_every_compression_and_depth():
    fine = PICTURE.astype(np.uint16) * 16
    for bits, samples in ((8, PICTURE), (12, fine)):
        upright = decode_with_notices(files.dicom(samples, bits))[0]
        for syntax in (files.RLE, files.JPEG_LS, files.JPEG_2000):
            data = files.dicom_compressed(np.ascontiguousarray(samples[:, ::-1]), bits, syntax)
            tagged = files.dicom_compressed(
                np.ascontiguousarray(samples[:, ::-1]), bits, syntax, PatientOrientation=["R", "F"]
            )
            np.testing.assert_array_equal(decode_with_notices(data)[0], upright[:, ::-1])
            np.testing.assert_array_equal(decode_with_notices(tagged)[0], upright)


CONTRADICTIONS = [
    {"PatientOrientation": ["L", "R"]},
    {"PatientOrientation": ["F", "H"]},
    {"PatientOrientation": ["R"]},
    {"PatientOrientation": ["R", "F", "L"]},
    {"PatientOrientation": ["X", "F"]},
    {"PatientOrientation": ["R", ""]},
    {"PatientOrientation": ["RIGHT", "FEET"]},
    {"PatientOrientation": ["LE", "CD"]},  # a quadruped's
    {"PatientOrientation": ["R", "F"], "ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
    {"PatientOrientation": ["L", "F"], "ImageOrientationPatient": [1, 0, 0, 0, 0, 1]},
    {"PatientOrientation": ["R", "F"], "ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
    {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]},
    {"ImageOrientationPatient": [1, 0, 0]},
]


@pytest.mark.fault("I65")
@pytest.mark.parametrize("tags", CONTRADICTIONS)
def test_a_header_that_contradicts_itself_turns_nothing_and_is_noticed(tags):
    radiograph, notices, _ = decode_with_notices(files.dicom(PICTURE, **tags))
    np.testing.assert_array_equal(radiograph, PICTURE)
    assert notices == (UNCLEAR,)


@pytest.mark.fault("I65")
@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"FieldOfViewHorizontalFlip": "YES"}, (FLIPPED,)),
        ({"FieldOfViewRotation": 90}, (FLIPPED,)),
        ({"FieldOfViewRotation": "180.0", "FieldOfViewHorizontalFlip": "NO"}, (FLIPPED,)),
        ({"FieldOfViewRotation": 0, "FieldOfViewHorizontalFlip": "NO"}, ()),
        ({"FieldOfViewRotation": "0.00"}, ()),
        ({"FieldOfViewHorizontalFlip": "YES", "PatientOrientation": ["L", "F"]}, ()),  # done, and rightly
        ({"PatientOrientation": ""}, ()),
        ({"PatientOrientation": ["", ""]}, ()),
    ],
)
def test_what_was_done_to_the_picture_is_noticed_where_no_orientation_goes_with_it(tags, expected):
    radiograph, notices, _ = decode_with_notices(files.dicom(PICTURE, **tags))
    np.testing.assert_array_equal(radiograph, PICTURE)
    assert notices == expected


def view_code(code: str = "", meaning: str = "", modifier: tuple[str, str] | None = None) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "SCT", meaning
    if modifier is not None:
        item.ViewModifierCodeSequence = view_code(*modifier)
    return Sequence([item])


VIEWS = [
    *(
        (view, "")
        for view in ("PA", "AP", "AP SUPINE", "PA_ERECT", "PORTABLE AP", "ANTEROPOSTERIOR", "UNKNOWN", "CHEST")
    ),
    *((view, LATERAL) for view in ("LL", "RL", "LAT", "LATERAL", "XTABLE LAT", "LEFT LATERAL", "LATERAL DECUB")),
    *((view, OTHER) for view in ("LLD", "RLD", "LLO", "RLO", "LAO", "RPO", "OBLIQUE", "AP OBLIQUE", "SWIMMERS")),
    *((view, OTHER) for view in ("DECUBITUS", "XTABLE", "CROSS-TABLE", "LORDOTIC", "AXIAL", "TANGENTIAL", "LPO")),
]
CODES = [
    (("272479007", "postero-anterior"), ""),
    (("R-10206", "antero-posterior"), ""),
    (("399348003", "de face"), ""),
    (("", "Antero-posterior projection"), ""),
    (("399348003", "antero-posterior", ("", "erect")), ""),
    (("399173006", "left lateral"), LATERAL),
    (("R-102CD", "Lateral projection"), LATERAL),
    (("399067008", ""), OTHER),
    (("399135007", "left anterior oblique"), OTHER),
    (("399312000", "antero-posterior oblique"), OTHER),
    (("272479007", "postero-anterior", ("111069", "Crosstable")), OTHER),
    (("399348003", "antero-posterior", ("102538003", "lateral decubitus")), LATERAL),
    (("", ""), ""),
]


@pytest.mark.fault("I66")
@pytest.mark.parametrize(("view", "notice"), VIEWS)
def test_the_view_position_is_frontal_or_noticed(view, notice):
    _, notices, _ = decode_with_notices(files.dicom(PICTURE, ViewPosition=view))
    assert notices == ((notice,) if notice else ())


@pytest.mark.fault("I66")
@pytest.mark.parametrize(("code", "notice"), CODES)
@pytest.mark.parametrize("syntax", [files.EXPLICIT, files.IMPLICIT])
def test_the_view_code_is_frontal_or_noticed(code, notice, syntax):
    tags = {"ViewPosition": None, "ViewCodeSequence": view_code(*code)}
    _, notices, _ = decode_with_notices(files.dicom(PICTURE, syntax=syntax, **tags))
    assert notices == ((notice,) if notice else ())


@pytest.mark.fault("I66")
@pytest.mark.parametrize("kind", [b"SQ", b"UN", b"LO"])
def test_a_malformed_view_code_is_no_view(kind):
    data = files.dicom(PICTURE)
    pixels = data.index(b"\xe0\x7f\x10\x00")
    broken = files.element((0x54, 0x220), kind, b"\xff\xfe no sequence at all")
    radiograph, notices, _ = decode_with_notices(data[:pixels] + broken + data[pixels:])
    np.testing.assert_array_equal(radiograph, PICTURE)
    assert notices == ()


@pytest.mark.parametrize("turn", [Turn(), *EXIF_TURNS.values()])
def test_every_turn_can_be_undone(turn):
    np.testing.assert_array_equal(turn.undo(turn.apply(PICTURE)), PICTURE)
