"""The 14 findings: how each changes the thorax, and what it adds along the beam.

A finding acts twice: `reshape` changes the geometry before anything is drawn (heart size, breath, shifts), `draw`
changes the path-length maps and returns the regions it occupies. Appearances follow the Fleischner Society glossary
(Hansell et al. 2008; Bankier et al. 2024) as far as a frontal radiograph shows them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tools.phantom import airspace, pleura
from tools.phantom.anatomy import Chest
from tools.phantom.geometry import smoothstep
from tools.phantom.placement import displace_lung, lung_point, solid_spot
from tools.phantom.thorax import Shape, dome_top, heart_outline, with_changes

Regions = list[np.ndarray]  # boolean (size, size), one per lesion


@dataclass(frozen=True)
class Finding:
    """One finding. `boxed` is False where there is no place to point at (it is everywhere)."""

    draw: Callable[[Chest, np.random.Generator], Regions]
    reshape: Callable[[Shape, np.random.Generator], Shape] | None = None
    boxed: bool = True


def enlarge_heart(shape: Shape, rng: np.random.Generator) -> Shape:
    return with_changes(shape, ctr=float(0.515 + 0.15 * rng.beta(1.4, 1.8)))


def outline_heart(chest: Chest, rng: np.random.Generator) -> Regions:
    return [chest.frame.mask(heart_outline(chest.shape)) > 0.5]


def hyperinflate(shape: Shape, rng: np.random.Generator) -> Shape:
    """Low flat domes, pruned vessels, lucent lungs, a narrow heart (unless it is enlarged as well)."""
    return with_changes(
        shape,
        lung_height=min(shape.lung_height * rng.uniform(1.08, 1.16), 268 * shape.patient.stature),
        half_width=shape.half_width * rng.uniform(1.0, 1.03),
        dome_flatness=float(rng.uniform(0.8, 1.0)),
        vessel_density=float(rng.uniform(0.35, 0.6)),
        lung_density=float(rng.uniform(0.13, 0.18)),
        ctr=shape.ctr if shape.ctr > 0.5 else float(rng.uniform(0.34, 0.41)),
    )


def add_bullae(chest: Chest, rng: np.random.Generator) -> Regions:
    """Thin-walled air spaces, mostly apical; they are part of emphysema and get no box of their own."""
    for _ in range(rng.integers(0, 4)):
        side = str(rng.choice(["right", "left"]))
        centre = lung_point(chest.shape, side, rng.uniform(0.3, 0.85), rng.uniform(0.08, 0.6))
        radius = rng.uniform(9, 22)
        inside = chest.frame.ellipsoid(centre, (radius, radius * rng.uniform(0.8, 1.2)), 1.0)
        air = np.minimum(2 * radius * inside, 0.8 * chest.both_lungs)
        chest.gas = np.maximum(chest.gas, air)
        chest.vessels *= 1 - 0.8 * inside
        rim = np.exp(-(((inside - 0.12) / 0.10) ** 2))
        chest.soft += 1.5 * rim * (chest.both_lungs > 10)
    return []


def congest(shape: Shape, rng: np.random.Generator) -> Shape:
    return with_changes(shape, upper_diversion=float(rng.uniform(0.8, 1.2)), vessel_density=1.15)


def add_nodules(chest: Chest, rng: np.random.Generator) -> Regions:
    """One to three round opacities of at most 3 cm; now and then calcified.

    The boxes of NIH's 79 nodules measure 46 to 98 of 1024 pixels (10 % to 90 %, BBox_List_2017.csv), about 14 to 30 mm
    once the loose drawing is allowed for: what is smaller, a reader of a radiograph hardly reports.
    """
    regions = []
    for _ in range(rng.choice([1, 2, 3], p=[0.68, 0.2, 0.12])):
        diameter = rng.uniform(13, 30)
        regions.append(add_ball(chest, rng, diameter, lobes=1))
    return regions


def add_mass(chest: Chest, rng: np.random.Generator) -> Regions:
    """A round, lobulated opacity of more than 3 cm."""
    return [add_ball(chest, rng, 33 + 45 * rng.beta(1.2, 1.8), lobes=int(rng.integers(2, 6)))]


def add_ball(chest: Chest, rng: np.random.Generator, diameter: float, lobes: int) -> np.ndarray:
    centre = solid_spot(chest, rng, diameter)
    shape_x = rng.uniform(0.92, 1.08)
    ball = chest.frame.ellipsoid(centre, (diameter / 2 * shape_x, diameter / 2 / shape_x), diameter, rng.uniform(0, 90))
    for _ in range(lobes - 1):
        angle, size = rng.uniform(0, 2 * np.pi), diameter * rng.uniform(0.45, 0.7)
        at = (centre[0] + 0.3 * diameter * np.cos(angle), centre[1] + 0.3 * diameter * np.sin(angle))
        ball = np.maximum(ball, chest.frame.ellipsoid(at, (size / 2, size / 2), size))
    ball = chest.frame.blur(ball, rng.uniform(0.4, 1.2))
    region = ball > 0.15 * diameter
    displace_lung(chest, 1.15 * ball)
    if diameter <= 22 and rng.random() < 0.3:
        chest.bone += 0.12 * ball  # a calcified granuloma
    return region


def add_hernia(chest: Chest, rng: np.random.Generator) -> Regions:
    """Hiatal hernia: a rounded retrocardiac opacity above the diaphragm with an air-fluid level."""
    shape, frame = chest.shape, chest.frame
    radii = (rng.uniform(25, 44), rng.uniform(23, 38))
    centre = (shape.shift + rng.uniform(-6, 26), dome_top(shape, "left") - radii[1] * rng.uniform(0.55, 0.95))
    sac = frame.ellipsoid(centre, radii, 1.9 * radii[0])
    displace_lung(chest, sac)
    level = centre[1] + rng.uniform(-0.35, 0.35) * radii[1]
    inner = frame.ellipsoid(centre, (radii[0] - 4, radii[1] - 4), 1.7 * radii[0])
    chest.soft -= rng.uniform(0.75, 1.0) * inner * smoothstep((level - frame.y) / 1.5 + 0.5)
    chest.soft += 3.0 * np.exp(-(((np.sqrt(frame.radius2(centre, radii)) - 0.95) / 0.05) ** 2))
    return [sac > 0]


FINDINGS: dict[str, Finding] = {
    "Atelectasis": Finding(airspace.add_atelectasis, airspace.lose_volume),
    "Cardiomegaly": Finding(outline_heart, enlarge_heart),
    "Effusion": Finding(pleura.add_effusion, pleura.plan_effusion),
    "Infiltration": Finding(airspace.add_infiltration),
    "Mass": Finding(add_mass),
    "Nodule": Finding(add_nodules),
    "Pneumonia": Finding(airspace.add_pneumonia),
    "Pneumothorax": Finding(pleura.add_pneumothorax, pleura.plan_pneumothorax),
    "Consolidation": Finding(airspace.add_consolidation),
    "Edema": Finding(airspace.add_edema, congest),
    "Emphysema": Finding(add_bullae, hyperinflate, boxed=False),
    "Fibrosis": Finding(airspace.add_fibrosis, airspace.shrink_lungs),
    "Pleural_Thickening": Finding(pleura.add_pleural_thickening),
    "Hernia": Finding(add_hernia),
}

# Shapes first change globally, then locally; what fills or opens the pleural space is drawn before what is placed
# in the lung that remains, and small solid lesions come last so that nothing is drawn over them.
RESHAPE_ORDER = ("Cardiomegaly", "Emphysema", "Fibrosis", "Edema", "Atelectasis", "Effusion", "Pneumothorax")
DRAW_ORDER = ("Cardiomegaly", "Emphysema", "Fibrosis", "Edema", "Effusion", "Pneumothorax", "Pleural_Thickening",
              "Atelectasis", "Consolidation", "Pneumonia", "Infiltration", "Hernia", "Mass", "Nodule")  # fmt: skip
