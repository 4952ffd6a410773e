"""Findings of the pleural space: effusion, pneumothorax, pleural thickening.

Sides and sizes are drawn when the shape is planned, because a large one also pushes the mediastinum; they are kept in
the shape's plan so that the drawing agrees with the push.
"""

import numpy as np

from tools.phantom.anatomy import Chest
from tools.phantom.geometry import smoothstep
from tools.phantom.placement import lung_coordinates, lung_point
from tools.phantom.thorax import SIDES, Shape, dome_top, interp32, lateral_border, side_sign, with_changes


def plan_effusion(shape: Shape, rng: np.random.Generator) -> Shape:
    """Draw sides and fluid heights in mm: from a blunted angle to half a thorax."""
    sides = SIDES if rng.random() < 0.28 else (str(rng.choice(SIDES)),)
    heights = {side: float(40 + 105 * rng.beta(1.1, 2.2)) for side in sides}
    push = sum(max(0.0, height - 80) / 4 * -side_sign(side) for side, height in heights.items())
    return with_changes(shape, shift=shape.shift + push, plan={**shape.plan, "Effusion": heights})


def add_effusion(chest: Chest, rng: np.random.Generator) -> list[np.ndarray]:
    """Fluid with a meniscus: its upper edge climbs along the chest wall and, less, along the mediastinum."""
    frame, shape, regions = chest.frame, chest.shape, []
    for side, height in shape.plan["Effusion"].items():
        outward, _ = lung_coordinates(chest, side)
        across = np.clip(outward, 0, 1)
        floor = dome_top(shape, side) + 0.85 * shape.sulcus_depth
        climb = 0.42 + 0.58 * across**2.6 + 0.10 * (1 - across) ** 4
        surface = floor - height * climb
        depth = smoothstep((frame.y - surface) / (0.16 * height + 5))
        here = np.sign(frame.x) == side_sign(side)
        chest.fill_lung(0.97 * depth * here)
        chest.vessels *= 1 - 0.95 * depth * here
        regions.append((depth > 0.3) & here & chest.lung_field(side))
    return regions


def plan_pneumothorax(shape: Shape, rng: np.random.Generator) -> Shape:
    """Draw the side and the width of the gap, mm; a wide one pushes the mediastinum away."""
    side, gap = str(rng.choice(SIDES)), float(13 + 50 * rng.beta(1.2, 2.0))
    push = max(0.0, gap - 40) / 2 * -side_sign(side)
    return with_changes(shape, shift=shape.shift + push, plan={**shape.plan, "Pneumothorax": {side: gap}})


def add_pneumothorax(chest: Chest, rng: np.random.Generator) -> list[np.ndarray]:
    """Pleural air without vessels, and the visceral pleura as a thin line at the edge of the lung."""
    frame, shape = chest.frame, chest.shape
    (side, gap), *_ = shape.plan["Pneumothorax"].items()
    sign, drop = side_sign(side), 0.95 * gap
    heights = np.linspace(drop, dome_top(shape, side) + 25, 60)
    narrowing = np.interp(heights, [drop, drop + 60, heights[-1]], [1.0, 0.9, 0.72]) * gap
    edge = np.maximum(lateral_border(shape, heights - 0.8 * drop) - narrowing * 0.75, 24)
    limit = np.where(frame.y < drop, 0, interp32(frame.y, heights, edge))
    beyond = smoothstep((frame.x * sign - limit) / 1.5 + 0.5)
    air = beyond * chest.lung[side]
    chest.gas = np.maximum(chest.gas, air)
    chest.vessels *= 1 - beyond * (chest.lung[side] > 0)
    here = np.sign(frame.x) == sign
    chest.aeration = np.where(here, chest.aeration * np.float32(1 - 0.0030 * gap), chest.aeration)  # partly collapsed
    top = np.array([(sign * float(edge[0]) * share, drop) for share in (0.55, 0.8)])
    line = np.concatenate([top, np.stack([sign * edge, heights], axis=1)])
    chest.soft += 4.5 * frame.tubes([(line, 0.8)], ((1.0, 1.0),)) * (chest.lung[side] > 6)
    return [(air > 4) & (beyond > 0.5)]


def add_pleural_thickening(chest: Chest, rng: np.random.Generator) -> list[np.ndarray]:
    """A rind of soft tissue along the chest wall, or a cap over the apex."""
    frame, shape, regions = chest.frame, chest.shape, []
    for side in SIDES if rng.random() < 0.3 else (str(rng.choice(SIDES)),):
        width = 5 + 9 * rng.beta(1.3, 1.6)
        outward, down = lung_coordinates(chest, side)
        wavy = 1 + 0.35 * frame.noise(rng, 26) + 0.15 * frame.noise(rng, 9)
        if rng.random() < 0.35:
            centre = lung_point(shape, side, 0.55, 0.0)
            rise = (frame.y - centre[1]) / (2.3 * width * np.maximum(wavy, 0.3))
            band = (1 - smoothstep(rise)) * (outward > -0.1) * (outward < 1) * (frame.y > 0)
        else:
            top = rng.uniform(0.15, 0.5)
            span = smoothstep((down - top) / 0.08) * smoothstep((top + rng.uniform(0.35, 0.75) - down) / 0.08)
            wall = lateral_border(shape, frame.y) - frame.x * side_sign(side)
            band = span * (1 - smoothstep((wall - width * np.maximum(wavy, 0.2)) / 2.5)) * (wall > 0)
        band = (band * (chest.lung[side] > 0)).astype(np.float32)
        chest.fill_lung(0.9 * band)
        chest.vessels *= 1 - band
        chest.soft += 11 * band
        regions.append(band > 0.4)
    return regions
