"""One examination: from a patient, a list of findings and a seed to a radiograph and the truth about it."""

from dataclasses import dataclass

import cv2
import numpy as np

from tools.phantom.anatomy import Chest, lung_outline
from tools.phantom.findings import DRAW_ORDER, FINDINGS, RESHAPE_ORDER
from tools.phantom.geometry import Frame
from tools.phantom.hardware import add_hardware, collimated_field, label_image
from tools.phantom.imaging import Exposure, detector_affine, display, draw_exposure, expose
from tools.phantom.skeleton import add_bones
from tools.phantom.thorax import LEFT, RIGHT, Patient, Shape, cardiothoracic_ratio, draw_shape, heart_outline
from tools.phantom.vessels import add_vessels

MARGIN = 1.08  # the patient frame is larger than the detector, so that a tilted patient still fills it
BOX_SCALE = 1024  # NIH's boxes are in the coordinates of 1024 x 1024 pictures


@dataclass(frozen=True)
class Box:
    """Where a finding is: x, y, width, height in the coordinates of a 1024 x 1024 picture."""

    finding: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Case:
    """A synthetic radiograph and what is true of it.

    Attributes:
        radiograph: uint8 (size, size), bone bright.
        regions: finding -> boolean (size, size) masks on the radiograph, one per lesion.
        heart, right_lung, left_lung: boolean (size, size) on the radiograph; of the lungs what is open to the beam.
        outlines: boolean (3, size, size), right lung, left lung and heart as a reader outlines them: they overlap.
        ctr: cardiothoracic ratio of the outlines.
    """

    radiograph: np.ndarray
    findings: tuple[str, ...]
    boxes: tuple[Box, ...]
    regions: dict[str, list[np.ndarray]]
    heart: np.ndarray
    right_lung: np.ndarray
    left_lung: np.ndarray
    outlines: np.ndarray
    ctr: float
    ap_view: bool


def make_case(patient: Patient, findings: tuple[str, ...], size: int, rng: np.random.Generator) -> Case:
    """Draw one radiograph of a patient with exactly these findings.

    Args:
        size: pixels per side of the radiograph.
    """
    shape = draw_shape(rng, patient)
    for name in RESHAPE_ORDER:
        if name in findings:
            shape = FINDINGS[name].reshape(shape, rng)
    exposure = draw_exposure(rng, shape.ap_view)
    pixels = size if size >= 768 else round(1.5 * size)
    frame = patient_frame(shape, pixels, rng)
    chest, regions = draw_chest(frame, shape, findings, rng)
    matrix = detector_affine(frame, exposure, pixels)

    scale = size / pixels
    to_radiograph = scale * matrix
    to_radiograph[:, 2] += (scale - 1) / 2  # pixel centres, not corners, lie at whole numbers

    def on_radiograph(region: np.ndarray) -> np.ndarray:
        return cv2.warpAffine(region.astype(np.uint8) * 255, to_radiograph, (size, size)) > 127

    regions = {name: [on_radiograph(mask) for mask in masks] for name, masks in regions.items()}
    lungs = {side: on_radiograph(chest.lung_field(side)) for side in chest.lung}
    radiograph = take_radiograph(chest, exposure, matrix, pixels, size, lungs["right"] | lungs["left"], rng)
    outlines = [lung_outline(frame, shape, RIGHT), lung_outline(frame, shape, LEFT)]
    outlines = np.stack([on_radiograph(mask) for mask in (*outlines, frame.mask(heart_outline(shape)) > 0.5)])
    boxes = [bounding_box(name, mask) for name in findings if FINDINGS[name].boxed for mask in regions[name]]
    return Case(
        radiograph=radiograph,
        findings=findings,
        boxes=tuple(box for box in boxes if box is not None),
        regions=regions,
        heart=outlines[2],
        right_lung=lungs["right"],
        left_lung=lungs["left"],
        outlines=outlines,
        ctr=cardiothoracic_ratio(shape),
        ap_view=shape.ap_view,
    )


def patient_frame(shape: Shape, pixels: int, rng: np.random.Generator) -> Frame:
    """Choose the field of view so that the lungs fill most of the detector, as radiographers do."""
    loose = float(np.clip(rng.normal(1.0, 0.05), 0.93, 1.15))
    field = loose * max(1.17 * 2 * shape.half_width, 1.36 * shape.lung_height) + 15
    mm = field / pixels
    size = 2 * round(pixels * MARGIN / 2)
    return Frame(size, mm, -(0.14 * field + (size - pixels) / 2 * mm))


def draw_chest(frame: Frame, shape: Shape, findings: tuple[str, ...], rng: np.random.Generator) -> tuple[Chest, dict]:
    """Lay out anatomy and findings; returns the chest and each finding's regions in the patient frame."""
    chest = Chest(frame, shape, rng)
    chest.bone = add_bones(frame, shape)
    add_vessels(chest, rng)
    regions = {name: FINDINGS[name].draw(chest, rng) for name in DRAW_ORDER if name in findings}
    add_hardware(chest, rng)
    return chest, regions


def take_radiograph(chest: Chest, exposure: Exposure, matrix: np.ndarray, pixels: int, size: int, lungs: np.ndarray,
                    rng: np.random.Generator) -> np.ndarray:  # fmt: skip
    """Project, expose, process and label: uint8 (size, size)."""
    maps = [
        cv2.warpAffine(m, matrix, (pixels, pixels), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for m in (chest.water_equivalent(), chest.bone, chest.metal)
    ]
    field = collimated_field(rng, pixels)
    signal = expose(*maps, exposure, chest.frame.mm, rng)
    grey = display(signal, field, exposure, chest.frame.mm) * field
    if pixels != size:
        grey = cv2.resize(grey, (size, size), interpolation=cv2.INTER_AREA)
    label_image(grey, lungs, chest.shape.ap_view, rng)
    return np.round(np.clip(grey, 0, 1) * 255).astype(np.uint8)


def bounding_box(finding: str, mask: np.ndarray) -> Box | None:
    """The box around a mask, or None where the lesion lies outside the picture."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    scale = BOX_SCALE / mask.shape[0]
    top, left = int(rows[0]), int(columns[0])
    height, width = int(rows[-1]) - top + 1, int(columns[-1]) - left + 1
    return Box(finding, left * scale, top * scale, width * scale, height * scale)
