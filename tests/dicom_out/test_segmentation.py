"""The Segmentation of lungs and heart: which structures, in which place of the stored picture, under which codes."""

import io

import dicom_answers as answers
import numpy as np
import pydicom
import pytest
import radiographs as files

HEIGHT, WIDTH = 96, 80  # of the radiograph, upright


def segmentation_of(outlines=None, **tags):
    outlines = outlines or answers.outlines()
    lies = tags.get("PatientOrientation", ["L"])[0] in "HF"
    picture = files.radiograph(WIDTH, HEIGHT) if lies else files.radiograph(HEIGHT, WIDTH)
    data = answers.objects_for(answers.patient_dicom(picture, **tags), outlines=outlines).get("segmentation")
    return None if data is None else pydicom.dcmread(io.BytesIO(data))


def masks_of(segmentation: pydicom.Dataset) -> dict[str, np.ndarray]:
    """Return label -> bool (rows, columns) of the stored picture."""
    labels = {one.SegmentNumber: one.SegmentLabel for one in segmentation.SegmentSequence}
    groups = segmentation.PerFrameFunctionalGroupsSequence
    numbers = [one.SegmentIdentificationSequence[0].ReferencedSegmentNumber for one in groups]
    return {labels[number]: frame.astype(bool) for number, frame in zip(numbers, segmentation.pixel_array, strict=True)}


def expected() -> dict[str, np.ndarray]:
    """Blow up the outlines' cells: the radiograph's sides are whole multiples of the grid's."""
    outlines, cell = answers.outlines(), np.ones((HEIGHT // 8, WIDTH // 8), bool)
    found = {"Right lung": outlines.labels == 1, "Left lung": outlines.labels == 2, "Heart": outlines.heart}
    return {label: np.kron(mask, cell) for label, mask in found.items()}


ORIENTATIONS = [
    (["L", "F"], lambda upright: upright),
    (["R", "F"], lambda upright: upright[:, ::-1]),
    (["L", "H"], lambda upright: upright[::-1]),
    (["F", "L"], lambda upright: upright.T),
    (["H", "R"], lambda upright: upright[::-1, ::-1].T),
]


@pytest.mark.parametrize(("orientation", "stored"), ORIENTATIONS)
def test_each_structure_lies_over_the_picture_as_it_is_stored(orientation, stored):
    found = masks_of(segmentation_of(PatientOrientation=orientation))
    assert list(found) == ["Right lung", "Left lung", "Heart"]
    for label, mask in expected().items():
        np.testing.assert_array_equal(found[label], stored(mask))


def test_structures_have_the_standards_codes_and_sides():
    codes = []
    for segment in segmentation_of().SegmentSequence:
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        sides = kind.get("SegmentedPropertyTypeModifierCodeSequence", ())
        codes.append((kind.CodeValue, *(one.CodeMeaning for one in sides)))
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
    assert codes == [("39607008", "Right"), ("39607008", "Left"), ("80891009",)]


def test_it_belongs_to_the_study_and_says_what_it_is():
    segmentation = segmentation_of()
    assert segmentation.Modality == "SEG"
    assert segmentation.StudyInstanceUID == answers.STUDY
    assert segmentation.PatientName == "Doe^Jane"
    assert segmentation.SeriesDescription == "Research prototype, not for clinical use: outlines"
    assert segmentation.DerivationDescription == answers.INFO.disclaimer
    assert segmentation.SourceImageSequence[0].ReferencedSOPInstanceUID == answers.INSTANCE


def test_only_credible_structures_become_segments():
    assert segmentation_of(answers.outlines(lungs_credible=False, heart_credible=False)) is None
    lungs = segmentation_of(answers.outlines(heart_credible=False))
    assert list(masks_of(lungs)) == ["Right lung", "Left lung"]


def test_without_outlines_there_is_no_segmentation():
    assert "segmentation" not in answers.objects_for(answers.patient_dicom(), outlines=None)
