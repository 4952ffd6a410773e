"""The pulmonary vessels: two trees that branch from the hila and taper to the periphery."""

import cv2
import numpy as np

from tools.phantom.anatomy import Chest
from tools.phantom.geometry import SUBPIXEL_BITS, Frame
from tools.phantom.thorax import LEFT, SIDES, Shape, side_sign

GENERATIONS = 6
CODE_PER_MM = 18  # grey steps of the 8-bit canvas per millimetre of vessel


def hilum(shape: Shape, side: str) -> np.ndarray:
    s = shape.patient.stature
    at = (39, 93) if side == LEFT else (-37, 102)
    return np.array([at[0] + 0.8 * shape.shift, at[1] * s])


def add_vessels(chest: Chest, rng: np.random.Generator) -> None:
    """Draw both trees and a fine background of vessels too small to follow into `chest.vessels` (mm along the beam)."""
    frame, shape = chest.frame, chest.shape
    drawn = frame.zeros()
    for _artery_or_vein in range(2):
        canvas = np.zeros((frame.size, frame.size), np.uint8)
        for side in SIDES:
            for start, end, radius in grow_tree(rng, shape, side):
                draw_segments(canvas, frame, start, end, radius)
        drawn += canvas.astype(np.float32) / CODE_PER_MM
    texture = np.clip(1 + 0.5 * frame.noise(rng, 3.5) + 0.6 * frame.noise(rng, 10), 0, 3)
    background = 0.025 * shape.vessel_density * chest.both_lungs * texture
    chest.vessels = 1.6 * frame.blur(drawn, 0.4) * np.minimum(chest.both_lungs / 25, 1) + background


def grow_tree(rng: np.random.Generator, shape: Shape, side: str) -> list[tuple]:
    """Segments (start (n, 2), end (n, 2), radius (n,)) of one lung's vessels, one tuple per generation, mm."""
    sign, s = side_sign(side), shape.patient.stature
    density = shape.vessel_density
    trunks = max(4, round(7 * density))
    # Angle from straight lateral; positive is downwards. The lower zones get more and wider vessels (gravity).
    angle = np.linspace(-1.25, 1.4, trunks) + rng.normal(0, 0.14, trunks)
    gravity = np.interp(angle, [-1.2, 1.3], [0.62 + 0.6 * shape.upper_diversion, 1.1])
    position = hilum(shape, side) + rng.normal(0, 4, (trunks, 2)) * s
    radius = rng.uniform(2.6, 4.3, trunks) * gravity * s * np.sqrt(density)
    reach = np.interp(angle, [-1.2, 0, 1.3], [0.9, 0.85, 1.25])  # the lung extends furthest downwards
    length = rng.uniform(21, 29, trunks) * reach * s * (shape.lung_height / 225)
    tree = []
    for _generation in range(GENERATIONS):
        bend = rng.normal(0, 0.13, len(angle))
        middle = position + 0.5 * length[:, None] * direction(angle + bend, sign)
        end = middle + 0.5 * length[:, None] * direction(angle - bend, sign)
        tree += [(position, middle, radius), (middle, end, radius * 0.9)]
        # One branch goes on nearly straight, the other leaves sideways and is thinner.
        turn = np.where(rng.random(len(angle)) < 0.5, 1, -1)
        spread = np.stack([turn * rng.uniform(0.02, 0.22, len(angle)), -turn * rng.uniform(0.3, 0.75, len(angle))])
        shrink = np.stack([rng.uniform(0.74, 0.88, len(angle)), rng.uniform(0.45, 0.68, len(angle))])
        keep = rng.random(spread.shape) < np.array([[0.97], [0.85 * min(density, 1.1)]])
        angle, position = (angle + spread)[keep], np.stack([end, end])[keep]
        radius, length = (radius * shrink)[keep], (length * rng.uniform(0.72, 0.98, keep.shape))[keep]
    return tree


def direction(angle: np.ndarray, sign: int) -> np.ndarray:
    return np.stack([sign * np.cos(angle), np.sin(angle)], axis=1)


def draw_segments(canvas: np.ndarray, frame: Frame, start: np.ndarray, end: np.ndarray, radius: np.ndarray) -> None:
    """Draw straight segments; those thinner than a pixel become fainter instead of wider."""
    scale = 1 << SUBPIXEL_BITS
    first = np.round(frame.to_pixels(start) * scale).astype(np.int32)
    last = np.round(frame.to_pixels(end) * scale).astype(np.int32)
    width = 2 * radius / frame.mm
    thickness = np.maximum(np.round(width), 1).astype(int)
    value = np.clip(1.8 * radius * np.minimum(width, 1) * CODE_PER_MM, 1, 255).astype(int)
    for a, b, pixels, grey in zip(first.tolist(), last.tolist(), thickness.tolist(), value.tolist(), strict=True):
        cv2.line(canvas, a, b, grey, pixels, cv2.LINE_AA, SUBPIXEL_BITS)
