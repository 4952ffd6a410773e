"""Who is radiographed, and the outlines of thorax, diaphragm and heart in one examination."""

from dataclasses import dataclass, field, replace

import numpy as np

from tools.phantom.geometry import smooth_curve

LUNG_DENSITY = 0.26  # of water, aerated adult lung near full inspiration
RIGHT, LEFT = "right", "left"  # the patient's sides; right is the image's left
SIDES = (RIGHT, LEFT)


@dataclass(frozen=True)
class Patient:
    """What stays the same from one examination to the next. Lengths in mm."""

    female: bool
    habitus: float  # 0 slim .. 1 heavy
    stature: float  # scales the thorax
    thorax_half_width: float
    apex_narrowness: float
    breast: float  # 0 none .. 1 large
    age: float  # 0 young .. 1 old: aorta, bones
    heart_tilt: float  # 0 vertical .. 1 lying
    dome_bulge: float


@dataclass(frozen=True)
class Shape:
    """The thorax of one examination: patient, view and breath, as changed by the findings. Lengths in mm."""

    patient: Patient
    ap_view: bool
    half_width: float  # inner half-width of the thorax at its widest
    lung_height: float  # apex to the right dome
    ctr: float  # cardiothoracic ratio
    dome_lift: dict  # side -> mm upwards
    dome_flatness: float  # 0 domed .. 1 flat
    shift: float  # mediastinal shift, mm, + to the patient's left
    rotation: float  # displacement of anterior against posterior structures, mm
    lung_density: float
    vessel_density: float  # 1 normal
    upper_diversion: float  # 0 normal .. 1 upper-lobe vessels as wide as the lower ones
    arms_down: bool
    sulcus_depth: float
    plan: dict = field(default_factory=dict)  # finding -> what its reshaping decided for its drawing


def draw_patient(rng: np.random.Generator) -> Patient:
    female = bool(rng.random() < 0.45)
    habitus = float(np.clip(rng.beta(2.0, 2.6), 0.02, 0.98))
    return Patient(
        female=female,
        habitus=habitus,
        stature=float(rng.normal(0.95 if female else 1.02, 0.035)),
        thorax_half_width=float(rng.normal(126 if female else 137, 5)),
        apex_narrowness=float(rng.normal(0, 1)),
        breast=float(np.clip(rng.normal(0.35 + 0.5 * habitus, 0.2), 0.05, 1)) if female else 0.0,
        age=float(rng.random()),
        heart_tilt=float(np.clip(rng.normal(0.25 + 0.5 * habitus, 0.15), 0, 1)),
        dome_bulge=float(rng.normal(0, 1)),
    )


def draw_shape(rng: np.random.Generator, patient: Patient) -> Shape:
    """Draw view, breath and posture of one examination of a healthy thorax."""
    ap_view = bool(rng.random() < 0.4)
    breath = float(np.clip(rng.normal(0.45 if ap_view else 0.75, 0.17), 0.05, 1))
    height = (172 + 62 * breath - 14 * patient.habitus) * patient.stature
    lift = float(rng.normal(-11, 4))  # the left dome lies lower
    return Shape(
        patient=patient,
        ap_view=ap_view,
        half_width=patient.thorax_half_width * (0.97 + 0.04 * breath),
        lung_height=float(height),
        ctr=float(np.clip(rng.normal(0.455 if ap_view else 0.43, 0.025), 0.36, 0.487)),
        dome_lift={RIGHT: 0.0, LEFT: lift},
        dome_flatness=float(np.clip(rng.normal(0.25, 0.1), 0, 0.5)),
        shift=float(rng.normal(0, 1.5)),
        rotation=float(rng.normal(0, 3.5 if ap_view else 2.0)),
        lung_density=float(LUNG_DENSITY + 0.07 * (1 - breath) + rng.normal(0, 0.01)),
        vessel_density=float(np.clip(rng.normal(1, 0.1), 0.75, 1.3)),
        upper_diversion=0.7 if ap_view and rng.random() < 0.5 else 0.0,  # lying down evens out the flow
        arms_down=bool(ap_view and rng.random() < 0.75),
        sulcus_depth=float(rng.normal(50, 6) * (0.8 if ap_view else 1.0)),
    )


def interp32(at: np.ndarray, points: list, values: list) -> np.ndarray:
    return np.interp(at, points, values).astype(np.float32)


def side_sign(side: str) -> int:
    """+1 for the patient's left (x > 0), -1 for the right."""
    return 1 if side == LEFT else -1


def lateral_border(shape: Shape, y: np.ndarray) -> np.ndarray:
    """Distance of the chest wall's inner surface from the midline at height y, mm."""
    narrow = 1 + 0.035 * shape.patient.apex_narrowness
    table = [(0, 0.34 / narrow), (3, 0.43 / narrow), (10, 0.54 / narrow), (27, 0.68 / narrow), (55, 0.80 / narrow),
             (90, 0.895), (130, 0.955), (170, 0.99), (205, 1.0), (245, 0.99), (300, 0.96), (420, 0.94)]  # fmt: skip
    curve = smooth_curve([(height * shape.patient.stature, width) for height, width in table])
    return interp32(y, curve[:, 0], curve[:, 1] * shape.half_width)


def medial_border(shape: Shape, y: np.ndarray) -> np.ndarray:
    """Distance of the mediastinal pleura from the (shifted) midline, mm; heart and great vessels bulge beyond it."""
    curve = smooth_curve(
        [(0, 0.33), (3, 0.27), (10, 0.23), (28, 0.205), (60, 0.185), (110, 0.17), (160, 0.15), (300, 0.13)]
    )
    return interp32(y, curve[:, 0] * shape.patient.stature, curve[:, 1] * shape.half_width)


def dome_top(shape: Shape, side: str) -> float:
    return shape.lung_height - shape.dome_lift[side]


def dome_line(shape: Shape, side: str, x: np.ndarray) -> np.ndarray:
    """Height y of the diaphragm's upper outline over x (the edge a frontal radiograph shows), mm."""
    distance = x * side_sign(side)
    crest = (0.5 + 0.02 * shape.patient.dome_bulge) * shape.half_width
    wall = lateral_border(shape, np.float64(dome_top(shape, side) + 0.6 * shape.sulcus_depth))
    outward = np.clip((distance - crest) / (wall - crest), 0, None)
    inward = np.clip((crest - distance) / crest, 0, None)
    flat = 1 - shape.dome_flatness
    drop = shape.sulcus_depth * (0.65 * flat + 0.35) * outward**2.0 + 30 * flat * inward**1.7
    return dome_top(shape, side) + drop


def heart_outline(shape: Shape) -> np.ndarray:
    """Closed outline of the cardiac silhouette, (n, 2) mm; its width is exactly the cardiothoracic ratio's."""
    width = shape.ctr * 2 * shape.half_width
    right_share = 0.36 - 0.06 * shape.patient.heart_tilt
    left, right = width * (1 - right_share), width * right_share
    base = dome_top(shape, LEFT) + 3
    tilt = shape.patient.heart_tilt
    tall = shape.patient.stature * (118 + 60 * (shape.ctr - 0.45)) * (1.06 - 0.12 * tilt)
    table = [(-0.50, 0.03), (-0.68, 0.22), (-0.90, 0.44), (-1.0, 0.64), (-0.95, 0.82), (-0.62, 0.97), (0.0, 1.03),
             (0.5, 1.03), (0.84, 0.98), (0.97, 0.88), (1.0, 0.74 + 0.06 * tilt), (0.89, 0.57 + 0.05 * tilt),
             (0.70, 0.38), (0.53, 0.22), (0.40, 0.08), (0.30, -0.06), (0.0, -0.12)]  # fmt: skip
    points = [(u * (left if u > 0 else right), base - tall * (1 - v)) for u, v in table]
    outline = smooth_curve(points, closed=True)
    # The spline may overshoot its control points: scale each side so that the widths are exact.
    outline[:, 0] = np.where(
        outline[:, 0] > 0, outline[:, 0] * left / outline[:, 0].max(), outline[:, 0] * right / -outline[:, 0].min()
    )
    outline[:, 0] += shape.shift + 0.6 * shape.rotation
    return outline


def cardiothoracic_ratio(shape: Shape) -> float:
    """Measure the ratio from the outlines, as a reader does: heart width over the widest inner thorax."""
    outline = heart_outline(shape)
    heights = np.linspace(0, max(dome_top(shape, side) + shape.sulcus_depth for side in SIDES), 400)
    return float(np.ptp(outline[:, 0]) / (2 * lateral_border(shape, heights).max()))


def with_changes(shape: Shape, **changes) -> Shape:
    """A copy of the shape with some fields replaced (`dome_lift` is merged by side)."""
    if "dome_lift" in changes:
        changes["dome_lift"] = {**shape.dome_lift, **changes["dome_lift"]}
    return replace(shape, **changes)
