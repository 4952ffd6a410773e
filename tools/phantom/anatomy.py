"""The path lengths through body, lungs, heart, great vessels, airways and abdomen."""

import numpy as np

from tools.phantom.geometry import Frame, smooth_curve, smoothstep
from tools.phantom.thorax import (
    LEFT,
    RIGHT,
    SIDES,
    Shape,
    dome_line,
    dome_top,
    heart_outline,
    interp32,
    lateral_border,
    medial_border,
    side_sign,
)


class Chest:
    """Path-length maps of one examination, in the patient frame; the findings change them before projection.

    Attributes:
        chord: mm of thorax cavity open to the lung along the beam, both sides, before displacement.
        lung: side -> mm of lung along the beam.
        heart: mm of heart along the beam.
        vessels: mm of pulmonary vessels along the beam, already limited to the lung.
        aeration: 1 where the lung holds its air, 0 where it is filled or airless.
        soft: extra mm of soft tissue (negative: air in place of soft tissue).
        gas: mm of gas in place of lung, such as pleural air.
        bone, metal: mm of bone and of metal.
    """

    def __init__(self, frame: Frame, shape: Shape, rng: np.random.Generator):
        self.frame, self.shape = frame, shape
        self.body = body_thickness(frame, shape)
        self.heart = heart_thickness(frame, shape)
        self.displaced = np.maximum(self.heart + great_vessels(frame, shape), 0)  # cubic upsampling undershoots
        self.lung = {side: lung_chord(frame, shape, side) for side in SIDES}
        for side in SIDES:
            self.lung[side] = np.maximum(self.lung[side] - self.displaced, 0)
        self.airways = airways(frame, shape)
        self.soft = abdominal_gas(frame, shape, rng)
        self.aeration = np.ones_like(self.body)
        self.gas = frame.zeros()
        self.bone = frame.zeros()
        self.metal = frame.zeros()
        self.vessels = frame.zeros()

        self._open_field = {side: self.lung[side] > 6 for side in SIDES}

    def lung_field(self, side: str) -> np.ndarray:
        """Where a reader sees this lung before any finding, boolean (size, size)."""
        return self._open_field[side]

    @property
    def both_lungs(self) -> np.ndarray:
        return self.lung[RIGHT] + self.lung[LEFT]

    def fill_lung(self, fraction: np.ndarray) -> None:
        """Replace a fraction (0..1) of the air along the beam by water."""
        self.aeration *= 1 - np.clip(fraction, 0, 1)

    def water_equivalent(self) -> np.ndarray:
        """Millimetres of water along the beam, bone and metal left out."""
        lung = self.both_lungs
        vessels = np.minimum(self.vessels, 0.8 * lung)
        air = np.maximum(lung - vessels - self.gas, 0) * self.aeration * (1 - self.shape.lung_density) + self.gas
        return np.maximum(self.body + self.soft - air - self.airways, 0)


def body_thickness(frame: Frame, shape: Shape) -> np.ndarray:
    """Path length through trunk, neck, shoulders, arms and breasts."""
    x, y = np.abs(frame.x), frame.y
    patient, scale = shape.patient, shape.patient.stature
    wall = 18 + 44 * patient.habitus**1.3
    trunk_heights = [-80, -45, -25, 0, 40, 90, 150, 220, 300, 420]
    neck = 52 + 12 * patient.habitus
    width = interp32(y, np.array(trunk_heights) * scale,
                      [neck + 4, neck, neck + 24, 120, shape.half_width + wall - 8, shape.half_width + wall + 6,
                       shape.half_width + wall, shape.half_width + wall - 2, shape.half_width + wall - 4,
                       shape.half_width + wall + 4])  # fmt: skip
    depth = np.float32(0.62 + 0.5 * patient.habitus) * interp32(
        y, np.array(trunk_heights) * scale, [112, 108, 112, 138, 182, 208, 220, 222, 226, 226]
    )
    trunk = depth * np.maximum(1 - (x / width) ** 3.2, 0) ** (1 / 2.2)
    slope = np.float32(scale) * interp32(x, [45, 75, 110, 150, 185, 215, 235], [-70, -36, -22, -12, 4, 34, 80])
    girdle_depth = (98 + 55 * patient.habitus) * np.sqrt(smoothstep((y - slope) / 60))
    lower = np.float32(scale) * interp32(x, [0, shape.half_width, 235], [40, 95, 150])
    girdle = girdle_depth * np.sqrt(smoothstep((lower - y) / 60 + 0.2)) * (x < 236)
    total = np.maximum(frame.blur(np.maximum(trunk, girdle).astype(np.float32), 3), 0)
    if shape.arms_down:
        lean = shape.half_width + wall + 52 + 0.05 * y
        radius = 34 + 16 * patient.habitus
        arm = 2 * np.sqrt(np.maximum(radius**2 - (x - lean) ** 2, 0)) * smoothstep((y - 15) / 60)
        total = np.maximum(total, arm.astype(np.float32))
    if patient.breast > 0:
        total += breasts(frame, shape)
    elif patient.habitus < 0.75:  # pectoral muscles fold into the axilla
        total += 12 * smoothstep((150 * scale - y) / 90) * smoothstep((y - 20) / 60) * smoothstep((x - 55) / 30)
    return total.astype(np.float32)


def breasts(frame: Frame, shape: Shape) -> np.ndarray:
    patient = shape.patient
    total = frame.zeros()
    sag = 0 if shape.ap_view else 14
    for side in SIDES:
        centre_x = side_sign(side) * (0.60 + 0.05 * patient.breast + (0.08 if shape.ap_view else 0)) * shape.half_width
        centre_y = (152 + sag + 16 * patient.breast) * patient.stature
        radius = 48 + 24 * patient.breast
        below = frame.y > centre_y
        squash = np.where(below, 1.0, 0.55).astype(np.float32)  # hangs: a sharp lower edge, no upper one
        r2 = ((frame.x - centre_x) / radius) ** 2 + ((frame.y - centre_y) * squash / (0.85 * radius)) ** 2
        profile = np.maximum(1 - r2, 0)
        sharpness = 1 - 0.5 * smoothstep((frame.y - centre_y + 0.6 * radius) / (1.2 * radius))
        total += (16 + 40 * patient.breast) * profile**sharpness
    return total


def lung_depth(shape: Shape, y: np.ndarray) -> np.ndarray:
    """Inner front-to-back depth of the thorax at height y, mm."""
    full = (150 + 24 * shape.patient.habitus) * shape.patient.stature
    return full * (1 - 0.82 * np.exp(-np.maximum(y + 4, 0) / (42 * shape.patient.stature)))


def lung_chord(frame: Frame, shape: Shape, side: str) -> np.ndarray:
    """Thorax cavity along the beam on one side, bounded by chest wall, mediastinal pleura and diaphragm, mm."""
    x, y = frame.x * side_sign(side), frame.y
    lateral = np.maximum(lateral_border(shape, y), 1)
    chord = lung_depth(shape, y) * np.sqrt(np.maximum(1 - (np.maximum(x, 0) / lateral) ** 2, 0))
    medial = medial_border(shape, y) + side_sign(side) * shape.shift
    # Part of the lung ends at the pleural line; the rest wraps around heart and spine and thins out gradually.
    open_share = 0.13 * smoothstep((x - medial) / 5) + 0.87 * smoothstep((x - 0.5 * medial) / (2.0 * medial))
    chord = chord * open_share * (y > 0)
    # Beam and diaphragm: behind the dome the sulcus reaches far down, before it only a little.
    below = np.maximum(frame.y - dome_line(shape, side, frame.x), 0)
    reach = np.clip((lateral - x) / 25, 0.02, 1)
    sulcus = 0.24 * smoothstep((x - 0.2 * lateral) / (0.45 * lateral))
    behind = sulcus * (1 - np.sqrt(np.clip(below / (1.5 * shape.sulcus_depth * reach + 1), 0, 1)))
    before = (1 - sulcus) * (1 - np.sqrt(np.clip(below / (0.16 * shape.sulcus_depth * reach + 1), 0, 1)))
    return (chord * (behind + before)).astype(np.float32)


def heart_thickness(frame: Frame, shape: Shape) -> np.ndarray:
    outline = heart_outline(shape)
    centre = outline.mean(axis=0)
    depth = (112 + 110 * shape.ctr) * shape.patient.stature
    total = frame.zeros()
    for fraction, share in ((1.0, 0.27), (0.93, 0.27), (0.82, 0.25), (0.62, 0.21)):
        step = share * frame.mask(centre + (outline - centre) * fraction)
        total += step if fraction == 1 else frame.blur(step, 40 * (1 - fraction) ** 0.7)
    return depth * frame.blur(total, 1.3) * smoothstep(total * 8)


def great_vessels(frame: Frame, shape: Shape) -> np.ndarray:
    """Superior vena cava, ascending aorta, arch, descending aorta, pulmonary trunk and hila, mm along the beam."""
    s, move = shape.patient.stature, shape.shift + 0.4 * shape.rotation
    old = shape.patient.age
    knob = (15 + 3.5 * old) * (1.05 if shape.ap_view else 1.0)
    arch = (14 + 6 * old + move, (62 - 8 * old) * s)
    trunk_end = dome_top(shape, LEFT) + 50
    tubes = [
        (np.array([(-20, -30), (-22, 20), (-23, 60 * s), (-25, 125 * s)]) + (move, 0), 12),
        (smooth_curve([(3, 130 * s), (-9 - 6 * old, 100 * s), (-4, 72 * s), arch]) + (0.3 * move, 0), 15.0),
        (smooth_curve([arch, (24 + 3 * old, 85 * s), (17 + 6 * old, 150 * s), (8, trunk_end)]), 11.5 + 2 * old),
        (np.array([(21, -40), (22, 0), (20, 50 * s)]) + (0.5 * move, 0), 8.0),
    ]
    vessels = 2 * 11 * frame.tubes(tubes)
    vessels += frame.ellipsoid(arch, (knob + 9, knob), 60)
    vessels += frame.ellipsoid((20 + move, 94 * s), (22, 23 * s), 55)
    vessels += frame.ellipsoid((37 + 0.8 * move, 99 * s), (13, 17 * s), 30, -20)
    vessels += frame.ellipsoid((-36 + 0.8 * move, 107 * s), (12, 21 * s), 30, 14)
    return frame.blur(vessels.astype(np.float32), 0.8)


def bronchial_tree(shape: Shape) -> list[tuple[np.ndarray, float]]:
    """Trachea and main bronchi as (points mm, half-width mm)."""
    s, move = shape.patient.stature, 0.8 * shape.shift + 0.3 * shape.rotation
    carina = (1 + move, 80 * s)
    trachea = smooth_curve([(0, -110), (0.3 * move, -20), (1.5 + 0.8 * move, 40 * s), carina])
    right = smooth_curve([carina, (-13 + move, 96 * s), (-24 + move, 114 * s), (-29 + move, 130 * s)])
    left = smooth_curve([carina, (17 + move, 96 * s), (33 + move, 108 * s), (41 + move, 122 * s)])
    return [(trachea, 8.2 * s), (right, 6.3 * s), (left, 5.3 * s)]


def lung_outline(frame: Frame, shape: Shape, side: str) -> np.ndarray:
    """Where readers outline this lung, boolean (size, size): behind the heart, but not behind the diaphragm.

    From the mediastinal pleura to the chest wall, from the apex to the dome, whatever fills the lung: readers that
    outlined lungs on radiographs of patients mostly drew the medial border straight through the heart's shadow.
    """
    x = frame.x * side_sign(side)
    medial = medial_border(shape, frame.y) + side_sign(side) * shape.shift
    inside = (x > medial) & (x < lateral_border(shape, frame.y))
    return inside & (frame.y > 0) & (frame.y < dome_line(shape, side, frame.x))


def airways(frame: Frame, shape: Shape) -> np.ndarray:
    trachea, *bronchi = bronchial_tree(shape)
    return frame.blur(1.7 * trachea[1] * frame.tubes([trachea]) + 9.0 * frame.tubes(bronchi), 0.8)


def abdominal_gas(frame: Frame, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Gastric bubble under the left dome (with a level when upright) and, at times, gas in the colon; negative mm."""
    gas = frame.zeros()
    if rng.random() < 0.8:
        radii = (rng.uniform(18, 34), rng.uniform(9, 20))
        centre = (rng.uniform(0.36, 0.55) * shape.half_width, dome_top(shape, LEFT) + radii[1] + rng.uniform(7, 12))
        bubble = frame.ellipsoid(centre, radii, rng.uniform(22, 55), rng.uniform(-12, 12))
        if not shape.ap_view:
            bubble *= smoothstep((centre[1] + rng.uniform(0.0, 0.8) * radii[1] - frame.y) / 1.2)
        gas += bubble
    for _ in range(rng.poisson(1.2)):
        centre = (rng.uniform(0.2, 0.85) * shape.half_width * rng.choice([-1, 1], p=[0.3, 0.7]),
                  shape.lung_height + rng.uniform(48, 110))  # fmt: skip
        radii = rng.uniform(8, 20, size=2)
        gas += frame.ellipsoid(tuple(centre), tuple(radii), rng.uniform(10, 30), rng.uniform(-40, 40))
    return -frame.blur(gas, 0.8)
