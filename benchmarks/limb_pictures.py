"""Draw radiographs of knees and hands, roughly: bone bright in grey soft tissue on black, as a wrong upload shows them.

For the benchmark of the input check alone; nothing is trained on them.
"""

from itertools import pairwise

import cv2
import numpy as np

SIDE = 512  # pixels of a drawn picture
SOFT_TISSUE, BONE, CORTEX = 0.35, 0.3, 0.2  # attenuation, added up; air is 0


def knee(rng: np.random.Generator) -> np.ndarray:
    """Draw a knee from the front: femur, tibia, fibula and kneecap. Returns: uint8 (SIDE, SIDE)."""
    soft, bone = _canvas(), _canvas()
    middle = SIDE / 2 + rng.normal(0, 15)
    width, joint = rng.uniform(65, 90), SIDE / 2 + rng.normal(0, 25)
    _limb(soft, [(middle, -20), (middle, SIDE + 20)], [1.7 * width, 1.45 * width])
    _limb(bone, [(middle, -20), (middle, joint - 90), (middle, joint - 35)], [0.4 * width, 0.42 * width, 0.8 * width])
    for side in (-1, 1):  # condyles, and the plateau below them
        _ellipse(bone, (middle + side * 0.45 * width, joint - 32), (0.5 * width, 34))
        _ellipse(bone, (middle + side * 0.4 * width, joint + 24), (0.5 * width, 20))
    _limb(
        bone,
        [(middle, joint + 25), (middle, joint + 90), (middle, SIDE + 20)],
        [0.8 * width, 0.4 * width, 0.36 * width],
    )
    fibula = middle + rng.choice([-1, 1]) * 0.78 * width
    _limb(bone, [(fibula, joint + 55), (fibula, SIDE + 20)], [0.2 * width, 0.14 * width])
    _ellipse(bone, (middle, joint - 45), (0.4 * width, 38))
    return _exposed(rng, soft, bone)


def hand(rng: np.random.Generator) -> np.ndarray:
    """Draw a hand with spread fingers: four bones a ray, and the wrist. Returns: uint8 (SIDE, SIDE)."""
    soft, bone = _canvas(), _canvas()
    wrist = np.array([SIDE / 2 + rng.normal(0, 20), SIDE * 0.78 + rng.normal(0, 15)])
    scale = rng.uniform(0.85, 1.1)
    _ellipse(soft, tuple(wrist - (0, 75 * scale)), (85 * scale, 100 * scale))
    _limb(soft, [tuple(wrist), (wrist[0], SIDE + 20)], [60 * scale, 66 * scale])
    for _ in range(8):  # the wrist's small bones
        _ellipse(bone, tuple(wrist + rng.normal(0, (24, 12)) * scale), (13 * scale, 11 * scale))
    for side in (-1, 1):
        _limb(bone, [tuple(wrist + (side * 20, 22)), (wrist[0] + side * 24, SIDE + 20)], [18 * scale, 16 * scale])
    spread = rng.uniform(0.11, 0.18)
    for ray, lengths in enumerate(
        ((70, 45, 30), (105, 62, 38, 24), (105, 68, 42, 26), (98, 62, 40, 25), (90, 50, 32, 22))
    ):
        angle = (ray - 2) * spread - (0.5 if ray == 0 else 0)
        direction = np.array([np.sin(angle), -np.cos(angle)])
        start = wrist + (direction * 26 + (ray - 2) * np.array([14, 0])) * scale
        for length in lengths:
            end = start + direction * length * scale
            _limb(soft, [tuple(start), tuple(end + direction * 6)], [22 * scale, 19 * scale])
            _limb(bone, [tuple(start), tuple((start + end) / 2), tuple(end)], [11 * scale, 7 * scale, 10 * scale])
            start = end + direction * 5 * scale
    rotation = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), rng.normal(0, 12), 1)
    return _exposed(rng, *(cv2.warpAffine(one, rotation, (SIDE, SIDE)) for one in (soft, bone)))


def _canvas() -> np.ndarray:
    return np.zeros((SIDE, SIDE), np.float32)


def _limb(canvas: np.ndarray, points: list[tuple[float, float]], radii: list[float]) -> None:
    """Mark a tube whose radius goes from point to point, as a row of discs."""
    for (start, end), (first, last) in zip(pairwise(points), pairwise(radii), strict=True):
        for share in np.linspace(0, 1, 60):
            x, y = (1 - share) * np.array(start) + share * np.array(end)
            cv2.circle(canvas, (round(x), round(y)), max(1, round((1 - share) * first + share * last)), 1, -1)


def _ellipse(canvas: np.ndarray, centre: tuple[float, float], axes: tuple[float, float]) -> None:
    cv2.ellipse(canvas, tuple(map(round, centre)), tuple(map(round, axes)), 0, 0, 360, 1, -1)


def _exposed(rng: np.random.Generator, soft: np.ndarray, bone: np.ndarray) -> np.ndarray:
    """Turn outlines of tissue and bone into grey levels: thick in the middle, cortex at the edge, blur and noise."""
    thick = [np.sqrt(_depth(one)) for one in (soft, bone)]
    cortex = np.clip(bone - cv2.erode(bone, np.ones((9, 9), np.uint8)), 0, 1)
    attenuation = SOFT_TISSUE * thick[0] + BONE * thick[1] + CORTEX * cortex + rng.uniform(0, 0.05)
    picture = cv2.GaussianBlur(attenuation, (0, 0), rng.uniform(1, 2.5))
    picture = (picture / picture.max()) ** rng.uniform(0.7, 1.3) * rng.uniform(190, 255)
    return np.clip(np.rint(picture + rng.normal(0, rng.uniform(1, 5), picture.shape)), 0, 255).astype(np.uint8)


def _depth(outline: np.ndarray) -> np.ndarray:
    """Return how far inside an outline each pixel lies, 0 at the edge to 1 at the deepest."""
    depth = cv2.distanceTransform((outline > 0).astype(np.uint8), cv2.DIST_L2, 5)
    return depth / max(float(depth.max()), 1)
