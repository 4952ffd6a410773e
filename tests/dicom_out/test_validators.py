"""DICOM results before the tools of others: dciodvfy finds no error, dcmtk reads them, whatever the source is like."""

import os
import random
import re
import shutil
import struct
import subprocess
from pathlib import Path

import dicom_answers as answers
import pytest
import radiographs as files
from pydicom.datadict import dictionary_VR, tag_for_keyword

from cxr.dicom_out.instance import to_file
from cxr.dicom_out.source import COPIED, UIDS, SourceError
from cxr.dicom_out.structured_report import build_report
from cxr.imaging.radiograph import ImageError

# Of dciodvfy: it does not know private coding schemes; a name of one part is of an old form; what the source leaves
# empty would be needed on a CD.
EXPECTED_WARNINGS = ("defined term <99CXRPROTO> for value", "Retired Person Name form", "needed to build DICOMDIR")
SOURCES = {
    "plain": {},
    "nothing of type 2": dict.fromkeys(
        [name for name in answers.PATIENT if not name.endswith("UID")]  # left out of the file
    ),
    "empty patient": {"PatientID": "", "PatientName": "", "PatientBirthDate": "", "PatientSex": ""},
    "name of one part": {"PatientName": "Doe"},
    "Latin-1": {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jürgen"},
    "UTF-8": {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Wang^XiaoDong=王^小东"},
    "Japanese": {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"},
    "UID of 64 characters": {"StudyInstanceUID": "1." + "2" * 62},
    "computed radiography": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1", "Modality": "CR"},
    "scanned film": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Modality": "OT"},
    "turned": {"PatientOrientation": ["R", "H"]},
    "another patient module": {"IssuerOfPatientID": "CLINIC", "PatientAge": "073Y", "PatientComments": "x"},
    "odd values": {"AccessionNumber": "1234567890123456", "StudyDescription": "x" * 64, "StudyTime": "235959.123456"},
}


def needs(program: str):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def output_of(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    return done.stdout + done.stderr


def unexpected(path: Path) -> list[str]:
    """Return what dciodvfy finds wrong or unusual about a file, and is not expected."""
    lines = output_of("dciodvfy", path).splitlines()
    found = [line for line in lines if line.startswith(("Error", "Warning"))]
    return [line for line in found if not any(words in line for words in EXPECTED_WARNINGS)]


def written(folder: Path, data: bytes) -> list[Path]:
    paths = []
    for what, result in answers.objects_for(data).items():
        paths.append(folder / f"{what}.dcm")
        paths[-1].write_bytes(result)
    return paths


@needs("dciodvfy")
@pytest.mark.fault("O05")
@pytest.mark.parametrize("tags", SOURCES.values(), ids=SOURCES)
def test_dciodvfy_finds_nothing_unexpected(tmp_path, tags):
    for path in written(tmp_path, answers.patient_dicom(**tags)):
        assert unexpected(path) == [], path.name


@needs("dciodvfy")
def test_the_comparison_notices_an_error(tmp_path):
    path = written(tmp_path, answers.patient_dicom())[0]
    path.write_bytes(path.read_bytes().replace(b"OT", b"ot", 1))
    assert unexpected(path)


@needs("dciodvfy")
@pytest.mark.fault("O05")
@pytest.mark.skipif("CXR_REAL_DATA" not in os.environ, reason="CXR_REAL_DATA names no folder with real radiographs")
def test_results_of_real_files_are_valid_or_refused(tmp_path):
    sources = sorted(Path(os.environ["CXR_REAL_DATA"]).rglob("*.dcm"))
    num_written = 0
    for source in sources:
        try:
            paths = written(tmp_path, source.read_bytes())
        except (SourceError, ImageError):
            continue
        num_written += 1
        for path in paths:
            assert unexpected(path) == [], (source.name, path.name)
    assert num_written


HOSTILE = [
    *(
        b"",
        b" ",
        b"\0\0",
        b"A\\B",
        b"\\",
        b"=",
        b"^^^^",
        b"a^b^c^d^e",
        b"\xff\xff",
        b"\x1b$B;3ED\x1b(B",
        b"\x1b",
        b"x" * 65,
    ),
    *(
        b"20230229",
        b"235960",
        b"2359",
        b"1.2.3",
        b"1.2.3.",
        b"0.0",
        b"3.4.5",
        b"1" * 64,
        b"m",
        b"73Y",
        b"M\xfcller",
        b"a\tb",
    ),
    *(b"\xe5\xb1\xb1", b"\x7f", b"ISO_IR 192", b"\\ISO 2022 IR 87", b"ISO_IR 192\\ISO 2022 IR 87", b"utf8"),
]


def hostile_source(rng: random.Random) -> bytes:
    """Put values, and sometimes types, that do not belong there into one to three elements of a patient's file."""
    elements = {}
    for element in files.dicom_dataset(files.radiograph(), **answers.PATIENT):
        value = element.value if isinstance(element.value, bytes) else str(element.value).encode()
        elements[element.tag] = (element.VR, struct.pack("<H", element.value) if element.VR == "US" else value)
    for keyword in rng.sample(("SpecificCharacterSet", *UIDS, *COPIED), rng.choice((1, 1, 2, 3))):
        vr = dictionary_VR(keyword) if rng.random() < 0.9 else rng.choice(("UN", "OB", "US", "SQ", "FD"))
        elements[tag_for_keyword(keyword)] = vr, rng.choice(HOSTILE)
    coded = [
        files.element((tag >> 16, tag & 0xFFFF), vr.encode(), value + b" " * (len(value) % 2))
        for tag, (vr, value) in sorted(elements.items())
    ]
    return files.dicom_start() + b"".join(coded)


@needs("dciodvfy")
@pytest.mark.fault("O05")
def test_hostile_headers_give_valid_results_or_one_line(tmp_path):
    rng, num_written = random.Random(0), 0  # noqa: S311 - no secret
    for _ in range(60):
        try:
            answer = answers.answer_for(hostile_source(rng))
        except (SourceError, ImageError):
            continue
        num_written += 1
        (tmp_path / "report.dcm").write_bytes(to_file(build_report(answer, 64, 64), answer))
        assert unexpected(tmp_path / "report.dcm") == []
    assert 20 < num_written < 50


@needs("dsrdump")
def test_dcmtk_reads_the_same_numbers(tmp_path):
    report = written(tmp_path, answers.patient_dicom())[1]
    lines = output_of("dsrdump", report).splitlines()
    numbers = [re.search(r'"([\d.]+)"', line)[1] for line in lines if ',"Probability")=' in line]
    assert numbers == ["0.7312846", "0.5", "0.25"]
    assert any("Prototype for education. No" in line for line in lines)


@needs("dsr2html")
def test_dcmtk_renders_the_report_with_disclaimer_and_decisions(tmp_path):
    report = written(tmp_path, answers.patient_dicom())[1]
    output_of("dsr2html", report, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="latin-1")
    assert answers.INFO.disclaimer in page
    assert page.count("Probability at or above the threshold") == 2


@needs("dcmj2pnm")
def test_dcmtk_shows_the_capture_as_it_was_drawn(tmp_path):
    import cv2
    import numpy as np
    from pydicom import dcmread

    capture = written(tmp_path, answers.patient_dicom())[0]
    output_of("dcmj2pnm", "--write-raw-pnm", capture, tmp_path / "capture.ppm")
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "capture.ppm"))[:, :, ::-1], dcmread(capture).pixel_array)


@pytest.mark.fault("O05")
def test_several_frames_and_no_pixels_are_refused_before_anything_is_written():
    for data in (answers.patient_dicom(NumberOfFrames=2), files.dicom_start() + b"x"):
        with pytest.raises((ImageError, SourceError)):
            answers.objects_for(data)
