"""Findings of the lung itself: airless, filled or scarred parenchyma."""

import numpy as np

from tools.phantom.anatomy import Chest
from tools.phantom.geometry import smooth_curve, smoothstep
from tools.phantom.placement import lung_coordinates, lung_point, pick_side
from tools.phantom.thorax import LEFT, RIGHT, SIDES, Shape, dome_top, side_sign, with_changes
from tools.phantom.vessels import hilum

# Lobes and segments as a frontal view shows them: (side, centre outward, centre down, radius outward, radius down,
# fissure as the value of `down` that bounds it from below or above, or None).
LOBES = {
    "right upper": (RIGHT, 0.45, 0.24, 0.75, 0.30, ("above", 0.46)),
    "right middle": (RIGHT, 0.25, 0.68, 0.55, 0.24, ("below", 0.47)),
    "right lower": (RIGHT, 0.50, 0.82, 0.60, 0.30, None),
    "left upper": (LEFT, 0.45, 0.28, 0.70, 0.32, None),
    "lingula": (LEFT, 0.30, 0.66, 0.55, 0.22, None),
    "left lower": (LEFT, 0.45, 0.82, 0.60, 0.30, None),
}


def add_consolidation(chest: Chest, rng: np.random.Generator) -> list[np.ndarray]:
    """Homogeneous, lobar, dense enough to hide vessels and the borders it touches."""
    field, _ = lobar_field(chest, rng, rng.uniform(0.75, 1.2), roughness=0.10)
    return [fill(chest, rng.uniform(0.72, 0.95) * field)]


def add_pneumonia(chest: Chest, rng: np.random.Generator) -> list[np.ndarray]:
    """Segmental or lobar, mottled, with air-filled bronchi running through it."""
    field, side = lobar_field(chest, rng, rng.uniform(0.65, 1.05), roughness=0.16)
    mottled = np.clip(0.9 + 0.11 * chest.frame.noise(rng, 12) + 0.05 * chest.frame.noise(rng, 4), 0.35, 1.1)
    filled = rng.uniform(0.40, 0.70) * field * mottled
    return [fill(chest, filled * (1 - 0.5 * air_bronchogram(chest, rng, side, field)))]


def add_infiltration(chest: Chest, rng: np.random.Generator) -> list[np.ndarray]:
    """Patchy opacities without a clear border, in one or both lungs."""
    regions, strength = [], rng.uniform(0.22, 0.48)
    for side in SIDES if rng.random() < 0.45 else (pick_side(chest, rng),):
        outward, down = lung_coordinates(chest, side)
        centre, radii = (rng.uniform(0.25, 0.6), rng.uniform(0.4, 0.8)), (rng.uniform(0.4, 0.6), rng.uniform(0.2, 0.36))
        distance = ((outward - centre[0]) / radii[0]) ** 2 + ((down - centre[1]) / radii[1]) ** 2
        window = np.exp(-(distance**1.3))
        patches = smoothstep(0.45 + 0.42 * chest.frame.noise(rng, 20) + 0.22 * chest.frame.noise(rng, 8))
        filled = strength * window * patches * (chest.lung[side] > 0)
        fill(chest, filled)
        regions.append((window > 0.45) & (chest.lung[side] > 15))
    return regions


def lobar_field(chest: Chest, rng: np.random.Generator, size: float, roughness: float) -> tuple[np.ndarray, str]:
    """Weight 0..1 of a lobe or a part of it, with its fissure as a sharp border; and its side."""
    free = pick_side(chest, rng)
    name = str(rng.choice([lobe for lobe, row in LOBES.items() if row[0] == free]))
    side, at_x, at_y, radius_x, radius_y, fissure = LOBES[name]
    outward, down = lung_coordinates(chest, side)
    at_x, at_y = at_x + rng.normal(0, 0.07), at_y + rng.normal(0, 0.04)
    distance = ((outward - at_x) / (radius_x * size)) ** 2 + ((down - at_y) / (radius_y * size)) ** 2
    distance = distance + roughness * (chest.frame.noise(rng, 16) + 0.5 * chest.frame.noise(rng, 6))
    field = 1 - smoothstep((distance - 0.55) / 0.75)
    if fissure:
        bow = fissure[1] + 0.05 * (outward - 0.5)
        edge = (bow - down) if fissure[0] == "above" else (down - bow)
        field = field * smoothstep(edge / 0.012 + 0.5)
    return (field * (chest.lung[side] > 0)).astype(np.float32), side


def air_bronchogram(chest: Chest, rng: np.random.Generator, side: str, field: np.ndarray) -> np.ndarray:
    """Branching air-filled bronchi that run from the hilum through the middle of a field, 0..1."""
    frame = chest.frame
    weight = field.sum()
    if weight < 1:
        return frame.zeros()
    middle = np.array([(field * frame.x).sum(), (field * frame.y).sum()]) / weight
    start = hilum(chest.shape, side)
    axis = middle - start
    length = max(float(np.hypot(*axis)), 25.0)
    heading = np.arctan2(axis[1], axis[0])
    tubes = []
    for _ in range(rng.integers(3, 6)):
        bend, reach = rng.normal(0, 0.45), rng.uniform(0.9, 1.7)
        path = [start + length * reach * t * np.array([np.cos(heading + bend * t), np.sin(heading + bend * t)])
                for t in (0.15, 0.4, 0.7, 1.0)]  # fmt: skip
        curve = smooth_curve(path)
        tubes.append((curve, np.linspace(2.0, 0.8, len(curve))))
    return frame.tubes(tubes)


def fill(chest: Chest, fraction: np.ndarray) -> np.ndarray:
    """Fill lung by a fraction, hide the vessels in it, and return where it can be seen."""
    chest.fill_lung(fraction)
    chest.vessels *= 1 - 0.9 * fraction
    added = fraction * chest.both_lungs
    return added > 0.3 * np.percentile(added, 99.5)


def lose_volume(shape: Shape, rng: np.random.Generator) -> Shape:
    """Decide on plates or a collapsed lobe; both raise the dome, a lobe also pulls the mediastinum."""
    side, plates = str(rng.choice(SIDES)), bool(rng.random() < 0.6)
    lift = rng.uniform(5, 16) if plates else rng.uniform(12, 26)
    pull = 0.0 if plates else rng.uniform(5, 12) * side_sign(side)
    return with_changes(
        shape,
        shift=shape.shift + pull,
        dome_lift={side: shape.dome_lift[side] + float(lift)},
        plan={**shape.plan, "Atelectasis": (side, plates)},
    )


def add_atelectasis(chest: Chest, rng: np.random.Generator) -> list[np.ndarray]:
    side, plates = chest.shape.plan["Atelectasis"]
    return add_plates(chest, rng, side) if plates else [collapse_lobe(chest, rng, side)]


def add_plates(chest: Chest, rng: np.random.Generator, side: str) -> list[np.ndarray]:
    """Thin linear bands, nearly horizontal, in the lower zones."""
    regions = []
    for _ in range(rng.integers(1, 4)):
        outward, down = rng.uniform(0.15, 0.4), rng.uniform(0.58, 0.9)
        slope = rng.normal(0, 0.05)
        reach = rng.uniform(0.35, 0.6)
        points = [lung_point(chest.shape, side, outward + reach * t, down + slope * t + rng.normal(0, 0.008))
                  for t in (0, 0.35, 0.7, 1)]  # fmt: skip
        curve = smooth_curve(points)
        half_width = rng.uniform(1.4, 3.2) * np.interp(
            np.linspace(0, 1, len(curve)), [0, 0.3, 0.8, 1], [0.5, 1, 1, 0.4]
        )
        band = chest.frame.tubes([(curve, half_width)]) * (chest.lung[side] > 0)
        chest.fill_lung(rng.uniform(0.25, 0.5) * band)
        regions.append(chest.frame.mask(chest_band(curve)) * (chest.lung[side] > 0) > 0.3)
    return regions


def chest_band(curve: np.ndarray) -> np.ndarray:
    """A band of 4 mm to either side of a curve: what a reader would draw around a plate."""
    return np.concatenate([curve - (0, 4), (curve + (0, 4))[::-1]])


def collapse_lobe(chest: Chest, rng: np.random.Generator, side: str) -> np.ndarray:
    """An airless lobe: the right upper one folds up against the mediastinum, a lower one down behind the heart."""
    outward, down = lung_coordinates(chest, side)
    if rng.random() < 0.4:
        border = rng.uniform(0.22, 0.34) * (1 - 0.75 * np.clip(outward, 0, 1) ** 0.7)
        field = smoothstep((border - down) / 0.02)
    else:
        top = rng.uniform(0.42, 0.55)
        reach = rng.uniform(0.42, 0.62) * np.clip((down - top) / (1.05 - top), 0, 1.2) ** 1.2
        field = smoothstep((reach - outward) / 0.05) * smoothstep((down - top) / 0.05)
    return fill(chest, rng.uniform(0.8, 0.97) * field * (chest.lung[side] > 0))


def add_edema(chest: Chest, rng: np.random.Generator) -> list[np.ndarray]:
    """Bat-wing haze around both hila, blurred vessels, and Kerley B lines above the costophrenic angles."""
    frame, shape, regions = chest.frame, chest.shape, []
    strength = rng.uniform(0.30, 0.62)
    chest.vessels = 1.25 * frame.blur(chest.vessels, 1.6)
    for side in SIDES:
        sign, centre = side_sign(side), hilum(shape, side)
        radii = (rng.uniform(40, 56), rng.uniform(52, 72))
        distance = frame.radius2((centre[0] + sign * 20, centre[1] + 14), radii)
        wing = np.exp(-(distance**1.2))
        fluffy = np.clip(0.85 + 0.14 * frame.noise(rng, 16) + 0.08 * frame.noise(rng, 6), 0.3, 1.15)
        chest.fill_lung((strength * wing * fluffy + 0.10) * (chest.lung[side] > 0))
        lines = []
        for _ in range(rng.integers(5, 12)):
            x, y = lung_point(shape, side, 0.985, rng.uniform(0.68, 0.98))
            lines.append((np.array([(x, y), (x - sign * rng.uniform(8, 15), y + rng.normal(0, 1))]), 0.6))
        chest.soft += 5.0 * frame.tubes(lines, ((1.0, 1.0),)) * (chest.lung[side] > 0)
        regions.append((wing > 0.4) & (chest.lung[side] > 15))
    return regions


def shrink_lungs(shape: Shape, rng: np.random.Generator) -> Shape:
    return with_changes(shape, lung_height=shape.lung_height * rng.uniform(0.90, 0.96))


def add_fibrosis(chest: Chest, rng: np.random.Generator) -> list[np.ndarray]:
    """A net of fine lines (reticulation, honeycombing) at the bases and the periphery of both lungs."""
    frame, regions, strength = chest.frame, [], rng.uniform(0.26, 0.55)
    # The level lines of a smooth random field form closed meshes.
    mesh = np.maximum(*(np.exp(-((frame.noise(rng, cell) / 0.28) ** 2)) for cell in (4.5, 6.5)))
    for side in SIDES:
        outward, down = lung_coordinates(chest, side)
        basal = smoothstep((down - rng.uniform(0.30, 0.5)) / 0.4)
        peripheral = smoothstep((np.clip(outward, 0, 1) - 0.05) / 0.8)
        weight = np.clip(basal * (0.35 + 0.65 * peripheral) + 0.35 * peripheral**3, 0, 1) * (chest.lung[side] > 0)
        chest.fill_lung(strength * weight * (0.35 + 0.65 * mesh))
        regions.append((weight > 0.55) & (chest.lung[side] > 10) & (frame.y < dome_top(chest.shape, side) + 20))
    return regions
