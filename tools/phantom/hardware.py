"""Things on a radiograph that mean nothing: tubes, leads, pacemakers, collimation, side markers, scanner text."""

import cv2
import numpy as np

from tools.phantom.anatomy import Chest, bronchial_tree
from tools.phantom.geometry import smooth_curve
from tools.phantom.thorax import dome_top, heart_outline

# A 5 x 7 dot-matrix type, as scanners print it; one string per letter, rows separated by spaces.
GLYPHS = {
    "A": "01110 10001 10001 11111 10001 10001 10001",
    "B": "11110 10001 10001 11110 10001 10001 11110",
    "C": "01111 10000 10000 10000 10000 10000 01111",
    "E": "11111 10000 10000 11110 10000 10000 11111",
    "H": "10001 10001 10001 11111 10001 10001 10001",
    "I": "11111 00100 00100 00100 00100 00100 11111",
    "L": "10000 10000 10000 10000 10000 10000 11111",
    "N": "10001 11001 10101 10101 10011 10001 10001",
    "P": "11110 10001 10001 11110 10000 10000 10000",
    "R": "11110 10001 10001 11110 10100 10010 10001",
    "S": "01111 10000 10000 01110 00001 00001 11110",
    "T": "11111 00100 00100 00100 00100 00100 00100",
    "Y": "10001 10001 01010 00100 00100 00100 00100",
}
ORIGIN_TEXT = "SYNTHETIC"
WIRE = ((1.0, 1.0),)


def add_hardware(chest: Chest, rng: np.random.Generator) -> None:
    """Add devices to `chest.metal` and `chest.soft`, independently of every finding."""
    portable = chest.shape.ap_view
    if rng.random() < (0.40 if portable else 0.06):
        add_ecg_leads(chest, rng)
    if rng.random() < (0.30 if portable else 0.03):
        add_central_line(chest, rng)
    if rng.random() < (0.22 if portable else 0.0):
        add_tracheal_tube(chest, rng)
    if rng.random() < 0.05:
        add_pacemaker(chest, rng)


def add_ecg_leads(chest: Chest, rng: np.random.Generator) -> None:
    """Three to five electrodes with wires that leave the picture."""
    frame, half = chest.frame, chest.shape.half_width
    spots = [(-0.62, 12), (0.62, 12), (0.85, 150), (-0.8, 160), (0.2, 140)][: rng.integers(3, 6)]
    wires = []
    for u, y in spots:
        at = np.array([u * half + rng.normal(0, 9), y + rng.normal(0, 12)])
        chest.metal += 0.12 * (frame.ellipsoid(tuple(at), (4.2, 4.2), 1.0) > 0)
        chest.metal += 0.5 * (frame.ellipsoid(tuple(at), (1.7, 1.7), 1.0) > 0)
        away = np.array([np.sign(u) * rng.uniform(1.25, 1.6) * half, y + rng.uniform(30, 190)])
        middle = (at + away) / 2 + rng.normal(0, 22, 2)
        wires.append((smooth_curve([at, middle, away]), 0.6))
    chest.metal += 0.28 * frame.tubes(wires, WIRE)


def add_central_line(chest: Chest, rng: np.random.Generator) -> None:
    """A catheter from the neck or below a clavicle to the superior vena cava."""
    s, move = chest.shape.patient.stature, chest.shape.shift
    start = [(-34, -60), (-36, -10)] if rng.random() < 0.6 else [(-118, 26), (-70, 4), (-40, 12)]
    curve = smooth_curve([(x, y * s) for x, y in [*start, (-25 + move, 50), (-23 + move, 96 + rng.normal(0, 8))]])
    chest.metal += 0.10 * chest.frame.tubes([(curve, 1.1)], WIRE)


def add_tracheal_tube(chest: Chest, rng: np.random.Generator) -> None:
    """A tube in the trachea with its radio-opaque stripe, and mostly a gastric tube beside it."""
    trachea, _ = bronchial_tree(chest.shape)[0]
    tip = rng.uniform(30, 62) * chest.shape.patient.stature
    tube = trachea[trachea[:, 1] < tip]
    chest.soft += 2.2 * chest.frame.tubes([(tube - (3.6, 0), 0.8), (tube + (3.6, 0), 0.8)], WIRE)
    chest.metal += 0.10 * chest.frame.tubes([(tube + (3.4, 0), 0.6)], WIRE)
    if rng.random() < 0.7:
        base = dome_top(chest.shape, "left")
        path = [(4, -90), (6, 30), (9, 110), (10, base - 5), (26, base + 22), (55, base + 40), (40, base + 75)]
        chest.metal += 0.12 * chest.frame.tubes([(smooth_curve(path), 1.3)], WIRE)


def add_pacemaker(chest: Chest, rng: np.random.Generator) -> None:
    """A generator below the left clavicle with a lead to the right ventricle."""
    half, outline = chest.shape.half_width, heart_outline(chest.shape)
    at = np.array([rng.uniform(0.55, 0.72) * half, rng.uniform(28, 48)])
    circle = np.linspace(0, 2 * np.pi, 30)
    case = at + np.stack([22 * np.cos(circle), 18 * np.sin(circle) * (1 + 0.12 * np.cos(circle))], axis=1)
    chest.metal += 2.2 * chest.frame.mask(case)
    apex = outline.mean(axis=0) + (0.28 * np.ptp(outline[:, 0]), 0.30 * np.ptp(outline[:, 1]))
    lead = smooth_curve([at, (38, 14), (-6, 12), (-22, 45), (-24, 105), (-8, apex[1] - 18), tuple(apex)])
    chest.metal += 0.5 * chest.frame.tubes([(lead, 0.8)], WIRE)


def collimated_field(rng: np.random.Generator, pixels: int) -> np.ndarray:
    """1 where the beam reaches the detector, 0 behind the shutters, float32 (pixels, pixels)."""
    if rng.random() < 0.55:
        return np.ones((pixels, pixels), np.float32)
    margins = np.maximum(rng.normal(0.012, 0.022, 4), -0.02) * pixels
    turn = np.radians(rng.normal(0, 0.8))
    corners = np.array([(margins[0], margins[1]), (pixels - margins[2], margins[1]),
                        (pixels - margins[2], pixels - margins[3]), (margins[0], pixels - margins[3])])  # fmt: skip
    corners = (corners - pixels / 2) @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    field = np.zeros((pixels, pixels), np.uint8)
    cv2.fillPoly(field, [np.round((corners + pixels / 2) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return field.astype(np.float32) / 255


def text_bitmap(text: str, scale: int) -> np.ndarray:
    """Dot-matrix text as a 0/1 array, (7 * scale, 6 * len * scale - scale)."""
    letters = [np.array([[int(dot) for dot in row] for row in GLYPHS[letter].split()], np.uint8) for letter in text]
    rows = np.concatenate([np.pad(letter, ((0, 0), (0, 1))) for letter in letters], axis=1)[:, :-1]
    return rows.repeat(scale, axis=0).repeat(scale, axis=1)


def label_image(image: np.ndarray, lungs: np.ndarray, ap_view: bool, rng: np.random.Generator) -> None:
    """Print the side marker, the view and "SYNTHETIC" into a corner clear of the lungs, in place.

    Args:
        image: grey levels 0..1, (size, size).
        lungs: boolean (size, size); the text keeps out of it.
    """
    size = image.shape[0]
    small = max(1, round(size / 256))
    left_marker = bool(rng.random() < 0.75)  # the patient's left is the image's right
    lines = [text_bitmap("L" if left_marker else "R", 2 * small)]
    if ap_view and rng.random() < 0.8:
        lines.append(text_bitmap("AP", small))
    lines.append(text_bitmap(ORIGIN_TEXT, small))
    height = sum(line.shape[0] + 2 * small for line in lines)
    width = max(line.shape[1] for line in lines)
    margin = round(0.02 * size)
    corner = place_text(lungs, height, width, margin, left_marker)
    top, start = corner
    brightness = rng.uniform(0.85, 1.0)
    for line in lines:
        column = start + (width - line.shape[1] if left_marker else 0)
        area = image[top : top + line.shape[0], column : column + line.shape[1]]
        area[line > 0] = np.maximum(area[line > 0], brightness)
        dark_behind = area[line == 0]  # a faint backing keeps the letters legible over bright tissue
        area[line == 0] = np.minimum(dark_behind, 0.62)
        top += line.shape[0] + 2 * small


def place_text(lungs: np.ndarray, height: int, width: int, margin: int, right_half: bool) -> tuple[int, int]:
    """Upper left corner (row, column) of a text block on the marker's side, where it covers no lung."""
    size = lungs.shape[0]
    column = size - margin - width if right_half else margin
    spots = [margin, size - margin - height, *range(2 * margin, size - margin - height, margin)]
    covered = [int(lungs[row : row + height, column : column + width].sum()) for row in spots]
    return spots[int(np.argmin(covered))], column
