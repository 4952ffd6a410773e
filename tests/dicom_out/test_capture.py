"""The Secondary Capture of an answer: its header, its pixels, and what is burned into them."""

import dataclasses
import io

import cv2
import dicom_answers as answers
import numpy as np
import pydicom
import pytest

from cxr.dicom_out.capture import CAPTION, CELL, GAP, MARGIN, draw_capture
from cxr.heatmaps.overlay import overlay_heatmap
from cxr.imaging.radiograph import decode_with_notices

DATA = answers.patient_dicom()
RADIOGRAPH = decode_with_notices(DATA).radiograph  # 96 x 80


@pytest.fixture(scope="module")
def capture():
    return pydicom.dcmread(io.BytesIO(answers.objects_for(DATA)["capture"]))


def test_the_capture_says_what_it_is_and_of_what(capture):
    assert capture.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert (capture.Modality, capture.ConversionType, capture.BurnedInAnnotation) == ("OT", "DI", "YES")
    assert list(capture.ImageType[:2]) == ["DERIVED", "SECONDARY"]
    assert capture.SeriesDescription == "Research prototype, not for clinical use: capture"
    assert capture.StudyInstanceUID == answers.STUDY
    assert (capture.PatientName, capture.PatientID) == ("Doe^Jane", "007")
    assert capture.SeriesInstanceUID != answers.SERIES
    assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == answers.INSTANCE
    assert answers.INFO.digest in capture.DerivationDescription
    assert answers.INFO.disclaimer in capture.DerivationDescription


def test_its_pixels_are_the_drawing(capture):
    np.testing.assert_array_equal(capture.pixel_array, draw_capture(answers.answer_for(DATA), RADIOGRAPH))


def test_the_overlays_are_those_of_the_most_probable_findings_on_one_scale():
    answer = answers.answer_for(DATA)
    drawn = draw_capture(answer, RADIOGRAPH)
    maps = answer.explanation.heatmaps
    width = round(CELL * 80 / 96)
    small = cv2.resize(RADIOGRAPH, (width, CELL), interpolation=cv2.INTER_AREA)
    top = drawn.shape[0] - MARGIN - 3 * 26 - 2 * (CAPTION + CELL + GAP)
    for place, k in enumerate((2, 1, 0)):
        left = MARGIN + place % 2 * (CELL + GAP)
        above = top + place // 2 * (CAPTION + CELL + GAP) + CAPTION
        found = drawn[above : above + CELL, left : left + width]
        np.testing.assert_array_equal(found, overlay_heatmap(small, maps[k], peak=float(maps.max())))


def rows_that_differ(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.flatnonzero((one != other).any(axis=(1, 2)))


def test_the_disclaimer_is_burned_in_at_the_top():
    answer = answers.answer_for(DATA)
    other = dataclasses.replace(answer, info=dataclasses.replace(answer.info, disclaimer=""))
    rows = rows_that_differ(draw_capture(answer, RADIOGRAPH), draw_capture(other, RADIOGRAPH))
    assert len(rows) > 10
    assert rows.max() < 2 * MARGIN + 10


def test_a_warning_is_burned_in_above_the_pictures():
    plain, warned = (answers.answer_for(DATA, input_check=value) for value in (0.5, 2.0))
    assert draw_capture(warned, RADIOGRAPH).shape[0] > draw_capture(plain, RADIOGRAPH).shape[0]


def test_without_heatmaps_the_radiograph_and_the_numbers_are_shown():
    drawn = draw_capture(answers.answer_for(DATA, heatmaps=None), RADIOGRAPH)
    width = round(CELL * 80 / 96)
    small = cv2.resize(RADIOGRAPH, (width, CELL), interpolation=cv2.INTER_AREA)
    found = drawn[-MARGIN - 3 * 26 - GAP - CELL :][:CELL, MARGIN : MARGIN + width]
    np.testing.assert_array_equal(found, np.repeat(small[:, :, None], 3, axis=2))


@pytest.mark.parametrize("num_findings", [1, 2, 3, 60])
def test_any_number_of_findings_is_drawn(num_findings):
    values = np.linspace(0, 1, num_findings).astype(np.float32)
    info = dataclasses.replace(answers.INFO, findings=tuple(f"Finding {k}" * 4 for k in range(num_findings)))
    maps = np.ones((num_findings, 2, 2), np.float32)
    answer = answers.answer_for(DATA, info, probabilities=values, logits=values, calibrated=None, heatmaps=maps)
    assert draw_capture(answer, RADIOGRAPH).shape[1] == 2 * MARGIN + 2 * CELL + GAP
