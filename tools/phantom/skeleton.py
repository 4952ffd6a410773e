"""Ribs, clavicles, scapulae, humeri, spine and sternum: millimetres of bone along the beam."""

import numpy as np

from tools.phantom.geometry import Frame, smooth_curve, smoothstep
from tools.phantom.thorax import SIDES, Shape, lateral_border, side_sign

SHELL = ((1.0, 1.0), (0.7, -0.28))  # cortex at the rim, marrow inside


def add_bones(frame: Frame, shape: Shape) -> np.ndarray:
    """Thickness of compact bone along the beam, mm, float32 (size, size)."""
    age = 1 - 0.35 * shape.patient.age * (1.3 if shape.patient.female else 0.8)  # osteopenia
    bone = ribs(frame, shape) + clavicles(frame, shape) + shoulder_girdle(frame, shape) + spine(frame, shape)
    return (bone * age).astype(np.float32)


def ribs(frame: Frame, shape: Shape) -> np.ndarray:
    """Each rib is one arc around the thorax: behind it slopes down and outwards, in front down and inwards."""
    s = shape.lung_height / 232
    tilt = 0.78 if shape.ap_view else 1.0
    posterior, anterior = [], []
    for side in SIDES:
        for number in range(1, 12):
            start = (-20 + 23.0 * (number - 1) + 0.35 * (number - 1) ** 1.5) * s
            drop = (34 + 7.2 * min(number, 9)) * tilt * s
            angle = np.linspace(0.06, np.pi * 0.86, 40)
            y = start + drop * (1 - np.cos(angle)) / 2 - 7 * np.sin(np.minimum(angle, np.pi / 2) * 2)
            reach = float(lateral_border(shape, np.float64(max(start + 0.5 * drop, 6)))) + 3.5
            x = 17 + (reach - 17) * np.sin(angle) ** 0.92
            back = angle <= np.pi / 2 + 0.12
            width = (5.0 + 0.25 * min(number, 5)) * s
            points = np.stack([side_sign(side) * x, y], axis=1)
            posterior.append((points[back], width * np.interp(angle[back], [0, 0.5, 1.7], [0.75, 1.0, 1.0])))
            end = np.pi * (0.76 if number < 8 else 0.66)
            front = (angle >= np.pi / 2 - 0.12) & (angle <= end)
            if number <= 9:
                anterior.append((points[front], width * np.interp(angle[front], [1.5, end], [1.0, 1.35])))
    u = np.abs(frame.x) / np.maximum(lateral_border(shape, frame.y), 20)
    # A tube seen ever more along its length towards the chest wall shows a longer path.
    obliquity = 1 / np.sqrt(np.clip(1 - np.minimum(u, 1) ** 2, 0.42, 1))
    fade = 0.35 + 0.65 * smoothstep((u - 0.35) / 0.5)
    return (4.3 * frame.tubes(posterior, SHELL) + 2.7 * fade * frame.tubes(anterior, SHELL)) * obliquity


def clavicles(frame: Frame, shape: Shape) -> np.ndarray:
    s, turn = shape.patient.stature, shape.rotation
    rise = 16 if shape.ap_view else 0  # the beam's angle throws them above the apices
    bones = []
    for side in SIDES:
        sign = side_sign(side)
        points = [(11, 25 - rise), (32, 20 - rise), (62, 14 - rise), (98, -4 - 0.6 * rise), (132, -13), (158, -10)]
        curve = smooth_curve([(sign * x * s + turn, y * s) for x, y in points])
        bones.append((curve, np.interp(np.linspace(0, 1, len(curve)), [0, 0.12, 0.5, 1], [8, 6, 4.8, 6]) * s))
    return 7.5 * frame.tubes(bones, ((1.0, 1.0), (0.62, -0.3)))


def shoulder_girdle(frame: Frame, shape: Shape) -> np.ndarray:
    """Scapulae (over the lungs in AP views), humeral heads and shafts."""
    s = shape.patient.stature
    inward = -26 if shape.ap_view else 0
    blades, rims, bars = [], [], []
    for side in SIDES:
        sign = side_sign(side)
        blade = [(112 + inward, 2), (122 + 0.7 * inward, 55), (138 + 0.4 * inward, 132), (150, 120), (163, 70),
                 (174, 34), (165, 16), (140, 4)]  # fmt: skip
        outline = smooth_curve([(sign * x * s, y * s) for x, y in blade], closed=True)
        blades.append(outline)
        rims.append((np.concatenate([outline, outline[:1]]), 1.6))
        bars.append((smooth_curve([(sign * x * s, y * s) for x, y in
                                   ((118 + inward, 22), (148, 6), (172, -10), (186, -9))]), 3.6 * s))  # fmt: skip
        axis = [(193, 22), (206, 60), (212, 140), (214, 240)] if shape.arms_down else [(194, 22), (222, 52), (260, 90)]
        shaft = smooth_curve([(sign * x * s, y * s) for x, y in axis])
        bars.append((shaft, np.interp(np.linspace(0, 1, len(shaft)), [0, 0.2, 1], [19, 11, 10]) * s))
        bars.append((np.array([(sign * 190 * s, 8 * s), (sign * 192 * s, 34 * s)]), 19 * s))
    plate = 1.8 * np.clip(sum(frame.mask(blade) for blade in blades), 0, 1)
    return plate + 4.0 * frame.tubes(rims, ((1.0, 1.0),)) + 7.0 * frame.tubes(bars, ((1.0, 1.0), (0.78, -0.45)))


def spine(frame: Frame, shape: Shape) -> np.ndarray:
    """Vertebral bodies with end plates, pedicles and spinous processes, and the manubrium."""
    s = shape.patient.stature
    bodies, plates, rings, processes = [], [], [], []
    y, pitch = -96.0 * s, 15.5 * s
    while y < 330:
        half_width = np.interp(y / s, [-90, 0, 150, 320], [10, 13.5, 16, 21]) * s
        top, bottom, waist = y + 1.2, y + pitch - 3.2 * s, half_width * 0.9
        bodies.append(smooth_curve([(-half_width, top), (half_width, top), (waist, (top + bottom) / 2),
                                    (half_width, bottom), (-half_width, bottom), (-waist, (top + bottom) / 2)],
                                   closed=True, samples=3))  # fmt: skip
        plates += [(np.array([(-half_width, edge), (half_width, edge)]), 0.9) for edge in (top, bottom)]
        for sign in (-1, 1):
            circle = np.linspace(0, 2 * np.pi, 12)
            ring = np.stack([sign * 0.62 * half_width + 3.2 * s * np.cos(circle),
                             top + 0.35 * pitch + 4.2 * s * np.sin(circle)], axis=1)  # fmt: skip
            rings.append((ring, 0.8))
            processes.append((np.array([(sign * half_width * 0.8, top + 0.4 * pitch),
                                        (sign * (half_width + 12 * s), top + 0.2 * pitch)]), 3.2 * s))  # fmt: skip
        processes.append((np.array([(0, top + 0.6 * pitch), (0, top + 1.15 * pitch)]), 2.2 * s))
        y += pitch
        pitch = np.interp(y / s, [-90, 0, 150, 320], [15.5, 19, 23.5, 31]) * s
    canvas = sum(frame.mask(*bodies[start::2]) for start in (0, 1))
    bone = 2.6 * np.clip(canvas, 0, 1) + 2.2 * frame.tubes(plates, ((1.0, 1.0),))
    bone += 1.6 * frame.tubes(rings, ((1.0, 1.0),)) + 1.5 * frame.tubes(processes, ((1.0, 1.0),))
    manubrium = smooth_curve([(-20, 18), (20, 18), (24, 32), (13, 60), (-13, 60), (-24, 32)], closed=True)
    return bone + 2.0 * frame.mask(manubrium * s + (shape.rotation, 0))
