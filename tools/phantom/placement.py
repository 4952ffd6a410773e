"""Where in the lungs a lesion may lie, and what happens to the lung in its place."""

import numpy as np

from tools.phantom.anatomy import Chest
from tools.phantom.thorax import LEFT, RIGHT, SIDES, Shape, dome_top, lateral_border, medial_border, side_sign


def lung_point(shape: Shape, side: str, outward: float, down: float) -> tuple[float, float]:
    """Point of a lung: `outward` 0 at the mediastinum .. 1 at the chest wall, `down` 0 at the apex .. 1 at the dome."""
    y = down * dome_top(shape, side)
    inner = float(medial_border(shape, np.float64(y))) + side_sign(side) * shape.shift
    outer = float(lateral_border(shape, np.float64(y)))
    return side_sign(side) * (inner + outward * (outer - inner)), y


def lung_coordinates(chest: Chest, side: str) -> tuple[np.ndarray, np.ndarray]:
    """The two coordinates of `lung_point` at every pixel: outward and down, float32 (size, size)."""
    frame, shape = chest.frame, chest.shape
    inner = medial_border(shape, frame.y) + np.float32(side_sign(side) * shape.shift)
    outer = lateral_border(shape, frame.y)
    outward = (frame.x * side_sign(side) - inner) / np.maximum(outer - inner, 1)
    return outward, np.broadcast_to(frame.y / np.float32(dome_top(shape, side)), outward.shape)


def pick_side(chest: Chest, rng: np.random.Generator, lower_zone: bool = False) -> str:
    """Draw a side, mostly one whose lung is still open there."""
    weights = []
    for side in SIDES:
        outward, down = lung_coordinates(chest, side)
        zone = (outward > 0.2) & (outward < 0.9) & (down > (0.55 if lower_zone else 0.15)) & (down < 0.95)
        open_lung = (chest.aeration * (chest.gas < 5))[zone]
        weights.append(0.02 + float(open_lung.mean()) ** 4 if open_lung.size else 0.02)
    return str(rng.choice([RIGHT, LEFT], p=np.array(weights) / sum(weights)))


def solid_spot(chest: Chest, rng: np.random.Generator, diameter: float) -> tuple[float, float]:
    """Centre for a solid lesion of the given diameter: the most open of a handful of random places in the lungs."""
    best, best_room = (0.0, 0.0), -1.0
    for _ in range(12):
        side = str(rng.choice(SIDES))
        margin = 0.35 * diameter / chest.shape.half_width
        spot = lung_point(chest.shape, side, rng.uniform(0.22 + margin, 0.92 - margin), rng.uniform(0.16, 0.88))
        column, row = chest.frame.to_pixels(np.array([spot]))[0]
        half = max(1, round(diameter / 2 / chest.frame.mm))
        window = (
            slice(max(0, int(row) - half), int(row) + half),
            slice(max(0, int(column) - half), int(column) + half),
        )
        open_lung = (chest.both_lungs - chest.gas)[window] * chest.aeration[window]
        room = min(float(np.percentile(open_lung, 20)) / 60, 1.0) + 0.2 * rng.random()
        if room > best_room:
            best, best_room = spot, room
    return best


def displace_lung(chest: Chest, thickness: np.ndarray) -> None:
    """Put solid tissue (mm along the beam) in the place of lung."""
    for side in SIDES:
        chest.lung[side] = np.maximum(chest.lung[side] - thickness, 0)
    chest.vessels = np.where(thickness > 1, np.minimum(chest.vessels, 1.0), chest.vessels)
