"""Domain randomisation: one picture and its outlines, moved, bent, exposed, hidden and spoilt at random.

A network that has seen every exposure, device and border on a phantom takes real radiographs for one more variant
(Tobin et al. 2017, "Domain Randomization for Transferring Deep Neural Networks from Simulation to the Real World").
No left-right flip: it would exchange the lungs.
"""

import cv2
import numpy as np

from cxr.anatomy.outline_network import STRIDE, STRUCTURES
from tools.anatomy.examples import HEART_UNCLEAR, NO_HEART_KNOWN

UNKNOWN = -1.0  # of a target that the loss leaves out


def randomise(
    picture: np.ndarray, flags: np.ndarray, rng: np.random.Generator, *, overexposed: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Change a picture and its outlines together.

    Args:
        picture, flags: uint8 (size, size), of Examples.
        overexposed: at times cut bright or dark grey levels off, so that the middle or the lungs show nothing.
    Returns: float32 (size, size), whole numbers of 0 to 255; float32 (size / 2, size / 2, 3), the share of each cell
        that a structure covers, UNKNOWN where nobody outlined it or it is unclear.
    """
    size = picture.shape[0]
    where = draw_warp(size, rng)
    border = {"borderMode": cv2.BORDER_CONSTANT, "borderValue": float(rng.choice([0, 0, rng.uniform(0, 255)]))}
    if rng.random() < 0.3:
        border = {"borderMode": cv2.BORDER_REPLICATE}
    image = cv2.remap(picture.astype(np.float32), *where, cv2.INTER_LINEAR, **border)
    targets = []
    for flag in (*(1 << structure for structure in range(len(STRUCTURES))), HEART_UNCLEAR):
        mask = np.float32(flags & flag > 0)
        targets.append(cv2.remap(mask, *where, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT))
    cells = cv2.resize(np.stack(targets, axis=-1), (size // STRIDE, size // STRIDE), interpolation=cv2.INTER_AREA)
    target = cells[..., : len(STRUCTURES)].copy()
    target[..., 2][(cells[..., -1] > 0) | (flags[0, 0] & NO_HEART_KNOWN > 0)] = UNKNOWN
    if overexposed and rng.random() < 0.5:
        low, high = np.percentile(image, [rng.uniform(0, 20), rng.uniform(55, 99)])
        image = np.clip((image - low) * np.float32(255 / max(high - low, 1.0)), 0, 255)
    hide(image, rng)
    image = expose(image, rng)
    overlay(image, rng)
    return image.astype(np.float32), target


def draw_warp(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw turn, size, proportions, shift and a smooth bend: for each cell, where it comes from, two float32 maps."""
    wide = rng.random() < 0.15
    angle = np.radians(rng.normal(0, 12 if wide else 4))
    zoom = np.exp(rng.normal(0.02, 0.2 if wide else 0.1))
    stretch = np.exp(rng.normal(0, 0.08))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag([zoom * stretch, zoom / stretch])
    matrix[0, 1] += rng.normal(0, 0.04)  # shear
    shift = rng.normal(0, 0.09 if wide else 0.045, 2) * size
    rows, columns = np.mgrid[:size, :size].astype(np.float32) - (size - 1) / 2
    bend = [smooth_field(size, 5, rng) * 0.012 * size * rng.random() for _ in range(2)]
    return tuple(
        (matrix[axis, 0] * columns + matrix[axis, 1] * rows + (size - 1) / 2 + shift[axis] + bend[axis]).astype(
            np.float32
        )
        for axis in range(2)
    )


def smooth_field(size: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a smooth random field, float32 (size, size), of unit variance at its nodes."""
    return cv2.resize(rng.standard_normal((cells, cells), np.float32), (size, size), interpolation=cv2.INTER_CUBIC)


def hide(image: np.ndarray, rng: np.random.Generator) -> None:
    """Lay soft bright clouds over it, as filled lung and soft tissue are, so that the lungs' whole shape is learned."""
    size = image.shape[0]
    for _ in range(rng.poisson(0.8)):
        centre = tuple(int(one) for one in rng.uniform(0.1, 0.9, 2) * size)
        axes = tuple(int(one) for one in rng.uniform(0.04, 0.22, 2) * size)
        cloud = np.zeros_like(image)
        cv2.ellipse(cloud, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
        cloud = cv2.GaussianBlur(cloud, (0, 0), float(rng.uniform(2, 10)))
        level = float(np.percentile(image, rng.uniform(50, 95)))
        image += cloud * float(rng.uniform(0.2, 0.9)) * (level - image)


def expose(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change exposure curve, shading, sharpness and noise; at times invert, as some files are: uint8 (size, size)."""
    size = image.shape[0]
    low, high = np.percentile(image, [1, 99])
    grey = np.clip((image - low) / max(high - low, 1.0), -0.1, 1.1)
    grey = np.clip(grey, 0, 1) ** np.exp(rng.normal(0, 0.35))
    if rng.random() < 0.4:
        grey = grey + smooth_field(size, int(rng.integers(2, 5)), rng) * rng.uniform(0, 0.15)
    if rng.random() < 0.3:  # local contrast, as some devices process
        sigma = float(rng.uniform(4, 16))
        grey = grey + rng.uniform(0.2, 1.0) * (grey - cv2.GaussianBlur(grey, (0, 0), sigma))
    if rng.random() < 0.3:
        grey = cv2.GaussianBlur(grey, (0, 0), float(rng.uniform(0.4, 1.6)))
    if rng.random() < 0.5:
        grey = grey + rng.standard_normal(grey.shape, np.float32) * float(rng.uniform(0, 0.06))
    black, white = rng.uniform(-0.1, 0.3), rng.uniform(0.65, 1.1)
    grey = black + np.clip(grey, 0, 1.1) * (white - black)
    if rng.random() < 0.03:
        grey = 1 - grey
    return np.rint(255 * np.clip(grey, 0, 1)).astype(np.uint8)


def overlay(image: np.ndarray, rng: np.random.Generator) -> None:
    """Draw on uint8 (size, size) what lies on films: collimated borders, letters, patches, wires, devices."""
    size = image.shape[0]
    if rng.random() < 0.25:
        side, depth = rng.integers(4), int(rng.uniform(0.01, 0.1) * size)
        np.rot90(image, side)[:depth] = float(rng.choice([0, 0, 255, rng.uniform(0, 255)]))
    for _ in range(rng.poisson(0.5)):
        text = "".join(rng.choice(list("ABDLPRSUMX0123456789"), rng.integers(1, 7)))
        at = int(rng.uniform(0, 0.9) * size), int(rng.uniform(0.05, 1) * size)
        scale, grey, thickness = float(rng.uniform(0.25, 0.8)), float(rng.uniform(0, 255)), int(rng.integers(1, 3))
        cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, grey, thickness, cv2.LINE_AA)
    for _ in range(rng.poisson(0.25)):
        x, y = (int(one) for one in rng.uniform(0, 0.95, 2) * size)
        width, height = (int(one) for one in rng.uniform(0.03, 0.18, 2) * size)
        patch = image[y : y + height, x : x + width]
        patch[...] = 255 - patch if rng.random() < 0.3 else float(rng.uniform(0, 255))
    for _ in range(rng.poisson(0.8)):
        points = np.cumsum(rng.normal(0, 0.13, (5, 2)), axis=0) + rng.uniform(0.1, 0.9, 2)
        curve = cv2.resize(points.astype(np.float32), (2, 40), interpolation=cv2.INTER_CUBIC) * size
        cv2.polylines(image, [np.rint(curve).astype(np.int32)], False, float(rng.uniform(120, 255)), 1, cv2.LINE_AA)
    if rng.random() < 0.12:
        centre = tuple(int(one) for one in rng.uniform(0.1, 0.9, 2) * size)
        axes = int(rng.uniform(4, 12)), int(rng.uniform(4, 14))
        cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, float(rng.uniform(180, 255)), -1)
