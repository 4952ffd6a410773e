"""The source of DICOM objects: whose radiograph an answer belongs to, as its file says; nothing is invented.

What tells patient, study and instance apart is taken over unchanged or the file is refused; what else is not as the
standard wants it is left empty, as type 2 allows. Texts stay in the file's own character set.
Source: DICOM PS3.3 C.7.1.1 (patient), C.7.2.1 (general study), C.7.2.2 (patient study); PS3.5 6.1 (character sets), 6.2
(value representations) and 9.1 (unique identifiers).
"""

import re
from dataclasses import dataclass

import numpy as np
import pydicom
from pydicom.charset import convert_encodings, decode_bytes, encode_string
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.uid import UID_dictionary
from pydicom.valuerep import DA, TEXT_VR_DELIMS, TM, PersonName

from cxr.imaging.dicom import PLACING, is_dicom, read_header
from cxr.imaging.dicom_header import attempt, raw_value
from cxr.imaging.orientation import Turn, dicom_turn

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
IDENTITY = ("PatientName", "PatientID", "IssuerOfPatientID")  # unchanged or refused
# Type 2 of the modules of patient and study: empty where they are missing or not as the standard wants them.
TYPE_2 = ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID")
TYPE_2 += ("AccessionNumber",)
OPTIONAL = ("StudyDescription", "PatientAge")  # left out where they are missing or not as the standard wants them
COPIED = (*IDENTITY, *TYPE_2, *OPTIONAL)

MAX_UID = 64
# The roots are 0, 1 and 2 (ISO/IEC 9834-1), and no component begins with a zero.
UID_PATTERN = re.compile(r"[0-2](\.(0|[1-9]\d*))*\.[1-9]\d*(\.(0|[1-9]\d*))*")
MAX_LENGTHS = {"LO": 64, "SH": 16, "CS": 16, "AS": 4}  # characters
MAX_GROUP = 64  # characters of each of the three groups of a person's name
MAX_GROUPS, MAX_COMPONENTS = 3, 5
AGE = re.compile(r"\d{3}[DWMY]")
SEXES = ("M", "F", "O")
IMAGE_CLASSES = frozenset(
    str(uid) for uid, entry in UID_dictionary.items() if entry[1] == "SOP Class" and "Image Storage" in entry[0]
)
CHARACTER_SETS = frozenset(pydicom.charset.python_encoding) - {"", "ISO 2022 58"}
WHOLE_SETS = frozenset(("ISO_IR 192", "GB18030", "GBK"))  # stand alone, without code extensions
ASCII = "ISO_IR 6"  # the default repertoire: no Specific Character Set
DEFAULT_ENCODINGS = convert_encodings([ASCII])


class SourceError(ValueError):
    """A file whose answer cannot become a DICOM object. No value of its header is repeated."""


@dataclass(frozen=True, eq=False)
class Source:
    """What a radiograph's own file says about itself.

    Attributes:
        header: the elements that its answers take over, checked, with Specific Character Set where it has one.
        turn: what brings the stored picture upright.
        rows, columns: of the stored picture.
    """

    header: Dataset
    turn: Turn
    rows: int
    columns: int

    def require_shape(self, height: int, width: int) -> None:
        """Check that a radiograph, upright, can be this one. Raises: SourceError."""
        if self.turn.undo(np.empty((height, width), bool)).shape != (self.rows, self.columns):
            raise SourceError("The file is another one now than it was when its picture was read. Answer it again.")


def read_source(data: bytes) -> Source:
    """Read whose radiograph this is.

    Raises:
        ImageError: the file is damaged.
        SourceError: it is no DICOM file, or has no usable identifiers.
    """
    if not is_dicom(data):
        raise SourceError("Only DICOM files have the identifiers that DICOM results need; this file has none.")
    stored = read_header(data, ("SpecificCharacterSet", *UIDS, *COPIED, "Rows", "Columns", *PLACING))
    character_sets = _character_sets(stored)
    header = Dataset()
    if character_sets != [ASCII]:
        header.SpecificCharacterSet = character_sets if len(character_sets) > 1 else character_sets[0]
    for keyword in UIDS:
        setattr(header, keyword, _uid(stored, keyword))
    if header.SOPClassUID not in IMAGE_CLASSES:
        raise SourceError("The SOP class of this DICOM file is none of the standard's images. Export the original.")
    encodings = convert_encodings(character_sets)
    for keyword in IDENTITY:
        value = _text(stored, keyword, encodings)
        if value is None:
            name = pydicom.datadict.dictionary_description(keyword)
            raise SourceError(
                f"{name} of this DICOM file is not written as the standard wants it (length, character set or control "
                "characters), and changing it would make another patient of it. Export the picture again."
            )
        if value or keyword != "IssuerOfPatientID":
            setattr(header, keyword, value)
    for keyword in (*TYPE_2, *OPTIONAL):
        value = _text(stored, keyword, encodings)
        if value or keyword in TYPE_2:
            setattr(header, keyword, value or "")
    rows, columns = (int.from_bytes(_bytes(stored, keyword)[:2], "little") for keyword in ("Rows", "Columns"))
    return Source(header, dicom_turn(stored)[0], rows, columns)


def _bytes(stored: Dataset, keyword: str) -> bytes:
    value = raw_value(stored, keyword)
    return value if isinstance(value, bytes) else b""


def _uid(stored: Dataset, keyword: str) -> str:
    value = _bytes(stored, keyword).decode("latin-1").rstrip("\x00 ")
    name = pydicom.datadict.dictionary_description(keyword)
    if not value:
        raise SourceError(f"This DICOM file has no {name}, and none is invented. Export the original from the archive.")
    if len(value) > MAX_UID or not UID_PATTERN.fullmatch(value):
        raise SourceError(
            f"{name} of this DICOM file is no valid UID (up to {MAX_UID} characters: numbers without leading zeros, "
            "joined by dots, the first up to 2), so that nothing can refer to it. Export the picture again."
        )
    return value


def _character_sets(stored: Dataset) -> list[str]:
    """Return the values of Specific Character Set, the default repertoire by its name. Raises: SourceError."""
    value = stored.get("SpecificCharacterSet") or ""  # which pydicom converts while it reads
    names = [str(name).strip() for name in ([value] if isinstance(value, str) else value)]
    if not any(names):
        return [ASCII]
    if any(name and name not in CHARACTER_SETS for name in names) or (len(names) > 1 and set(names) & WHOLE_SETS):
        raise SourceError("This DICOM file names a character set that is none of the standard's. Export it again.")
    if len(names) > 1:  # code extensions go by other names (PS3.3 C.12.1.1.2), which some files forget
        return [name.replace("ISO_IR ", "ISO 2022 IR ") for name in names]
    return names


def _text(stored: Dataset, keyword: str, encodings: list[str]) -> str | None:
    """Return a value as text, "" where there is none; None where it is not as its value representation wants it."""
    value = _bytes(stored, keyword).rstrip(b"\x00 ")
    if not value:
        return ""
    vr = dictionary_VR(keyword)
    if vr not in ("PN", "LO", "SH"):
        text = attempt(value.decode, "ascii")
        return None if text is None else _plain(vr, text.strip())
    text = _decoded(vr, value, encodings)
    if text is None or "\\" in text or any(ord(one) < 32 or 127 <= ord(one) < 160 for one in text):
        return None
    if vr != "PN":
        text = text.strip()
        return text if len(text) <= MAX_LENGTHS[vr] else None
    groups = text.split("=")
    fits = all(len(group) <= MAX_GROUP and group.count("^") < MAX_COMPONENTS for group in groups)
    return text if fits and len(groups) <= MAX_GROUPS else None


def _decoded(vr: str, value: bytes, encodings: list[str]) -> str | None:
    """Return the text of bytes, None where the character set does not hold them: a name must not change on its way."""
    if encodings == DEFAULT_ENCODINGS and not value.isascii():
        return None
    if vr == "PN":
        text = attempt(lambda: str(PersonName(value, encodings).decode(encodings)))
        again = attempt(lambda: str(PersonName(PersonName(text).encode(encodings), encodings).decode(encodings)))
    else:
        text = attempt(decode_bytes, value, encodings, TEXT_VR_DELIMS)
        again = attempt(lambda: decode_bytes(encode_string(text, encodings), encodings, TEXT_VR_DELIMS))
    return text if text is not None and text == again and "\ufffd" not in text else None


def _plain(vr: str, text: str) -> str | None:
    """Return a date, a time, an age or a code where it is one."""
    if vr == "DA":
        return text if re.fullmatch(r"\d{8}", text) and attempt(DA, text) else None
    if vr == "TM":
        return text if re.fullmatch(r"\d{2}([0-5]\d([0-5]\d(\.\d{1,6})?)?)?", text) and attempt(TM, text) else None
    if vr == "AS":
        return text if AGE.fullmatch(text) else None
    return text if text in SEXES else None
