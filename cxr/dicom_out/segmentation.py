"""The outlines of lungs and heart as a DICOM Segmentation, pixel for pixel over the source image.

Only structures whose outlines are credible become segments. The source image's pixels are as they are stored, so the
outlines are turned back to how they lie there.
Source: DICOM PS3.3 A.51 (Segmentation IOD), C.8.20 (segmentation image); PS3.16 CID 7150, 7151 and 244.
"""

import highdicom
import numpy as np
from highdicom import seg
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from cxr.anatomy.outlines import LEFT_LUNG, RIGHT_LUNG, Outlines, heart_at, labels_at
from cxr.dicom_out.codes import ANATOMICAL_STRUCTURE, HEART, LEFT, LUNG, RIGHT, Concept, short_text
from cxr.dicom_out.instance import PURPOSE, Answer, common_arguments, source_image
from cxr.imaging.dicom_header import OWN_MANUFACTURER

ALGORITHM = "Outlines of lungs and heart"
# CIELab of viewers' overlays: blue, green and red, far apart also for those who do not tell red from green.
COLOURS = {"Right lung": (55, -5, -40), "Left lung": (80, -35, 45), "Heart": (50, 60, 40)}


def build_segmentation(answer: Answer, outlines: Outlines, height: int, width: int) -> Dataset | None:
    """Build the Segmentation of what is credible, None where nothing is.

    Args:
        height, width: of the radiograph, upright as it was outlined.
    """
    masks = _credible_masks(outlines, height, width)
    if not masks:
        return None
    turned = [answer.source.turn.undo(mask) for _, _, _, mask in masks]
    segments = [_segment(number, *names) for number, (*names, _) in enumerate(masks, 1)]
    source = source_image(answer)
    source.Rows, source.Columns = turned[0].shape
    segmentation = seg.Segmentation(
        source_images=[source],
        pixel_array=np.stack(turned, axis=-1)[np.newaxis].view(np.uint8),
        segmentation_type=seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        content_label="OUTLINES",
        content_description=PURPOSE,
        **common_arguments(answer, 2, "outlines"),
    )
    segmentation.PatientOrientation = ""  # that of the source image, which it lies over
    segmentation.DerivationDescription = short_text(answer.info.disclaimer, 1024)
    return segmentation


def _credible_masks(
    outlines: Outlines, height: int, width: int
) -> list[tuple[str, Concept, Concept | None, np.ndarray]]:
    """Return label, structure, side and mask, bool (height, width), of each structure that is credible and there."""
    labels = labels_at(outlines, height, width)
    found = []
    if outlines.lungs_credible:
        found.append(("Right lung", LUNG, RIGHT, labels == RIGHT_LUNG))
        found.append(("Left lung", LUNG, LEFT, labels == LEFT_LUNG))
    if outlines.heart_credible:
        found.append(("Heart", HEART, None, heart_at(outlines, height, width)))
    return [one for one in found if one[3].any()]


def _segment(number: int, label: str, structure: Concept, side: Concept | None) -> seg.SegmentDescription:
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=ALGORITHM, version="1", family=codes.DCM.ArtificialIntelligence, source=OWN_MANUFACTURER
    )
    segment = seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=highdicom.sr.CodedConcept(*ANATOMICAL_STRUCTURE),
        segmented_property_type=highdicom.sr.CodedConcept(*structure),
        algorithm_type=seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        display_color=highdicom.color.CIELabColor(*COLOURS[label]),
    )
    if side:
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [highdicom.sr.CodedConcept(*side)]
    return segment
