"""From path lengths to grey levels: attenuation, scatter, quantum noise, detector blur, display curve."""

from dataclasses import dataclass

import cv2
import numpy as np

from tools.phantom.geometry import Frame, smoothstep

# Three energies stand for a filtered 110-125 kVp spectrum: weight, and linear attenuation of water, compact bone
# and steel per millimetre (NIST XCOM mass attenuation coefficients times density).
SPECTRUM = ((0.30, 0.0227, 0.0815, 1.50), (0.42, 0.0193, 0.0500, 0.65), (0.28, 0.0172, 0.0370, 0.32))


@dataclass(frozen=True)
class Exposure:
    """How one radiograph is taken and displayed."""

    tilt_degrees: float  # the patient leans
    offset: tuple[float, float]  # mm
    zoom: float
    scatter: float  # scattered share behind the thickest part
    photons: float  # quanta per detector pixel in the open field
    blur_mm: float
    black: float  # optical densities (natural log of attenuation) shown as black and white
    white: float
    gamma: float
    toe: float
    detail: float  # strength of the unsharp mask
    equalise: float  # strength of the low-frequency compression


def draw_exposure(rng: np.random.Generator, ap_view: bool) -> Exposure:
    portable = ap_view
    return Exposure(
        tilt_degrees=float(rng.normal(0, 2.2 if portable else 1.0)),
        offset=(float(rng.normal(0, 7 if portable else 4)), float(rng.normal(0, 6))),
        zoom=float(rng.normal(0.99, 0.06)),
        scatter=float(rng.uniform(0.5, 0.9) if portable else rng.uniform(0.25, 0.6)),
        photons=float(np.exp(rng.uniform(np.log(2e4), np.log(2e5)))),
        blur_mm=float(rng.uniform(0.25, 0.5)),
        black=float(rng.normal(0.12, 0.12)),
        white=float(rng.normal(0.13, 0.10)),
        gamma=float(np.exp(rng.normal(0.2, 0.2))),
        toe=float(rng.uniform(0.0, 0.5)),
        detail=float(rng.uniform(0.4, 1.2)),
        equalise=float(rng.uniform(0.0, 0.3)),
    )


def detector_affine(frame: Frame, exposure: Exposure, pixels: int) -> np.ndarray:
    """The 2 x 3 matrix that maps patient-frame pixels onto the detector's."""
    matrix = cv2.getRotationMatrix2D((frame.size / 2, frame.size / 2), exposure.tilt_degrees, exposure.zoom)
    matrix[:, 2] += (pixels - frame.size) / 2 + np.array(exposure.offset) / frame.mm
    return matrix


def expose(water: np.ndarray, bone: np.ndarray, metal: np.ndarray, exposure: Exposure, mm: float,
           rng: np.random.Generator) -> np.ndarray:  # fmt: skip
    """Detector signal relative to the open field, float32 (n, n): Beer-Lambert, then scatter, blur and quanta."""
    primary = np.zeros_like(water)
    for weight, mu_water, mu_bone, mu_metal in SPECTRUM:
        line = water * np.float32(mu_water) + bone * np.float32(mu_bone - mu_water)
        if metal.any():
            line = line + metal * np.float32(mu_metal)
        primary += np.float32(weight) * np.exp(-line)
    frame = Frame(water.shape[0], mm, 0.0)
    # Scatter is what the neighbourhood lets through, spread widely, hence weak behind air and strong behind tissue.
    wide = frame.blur(np.minimum(primary, 0.25), 28)
    signal = primary + np.float32(0.35 * exposure.scatter) * wide
    signal = frame.blur(signal, exposure.blur_mm)
    noise = rng.standard_normal(signal.shape, dtype=np.float32)
    signal = signal + np.sqrt(signal / np.float32(exposure.photons)) * noise
    return np.maximum(signal, np.float32(1e-4))


def display(signal: np.ndarray, field: np.ndarray, exposure: Exposure, mm: float) -> np.ndarray:
    """Grey levels 0..1 (bone bright) by logarithm, range compression, detail, window and characteristic curve.

    Args:
        signal: detector signal relative to the open field.
        field: 1 inside the collimated field, 0 outside; the automatic window looks inside only.
    """
    frame = Frame(signal.shape[0], mm, 0.0)
    density = -np.log(signal)
    if exposure.equalise:
        low = frame.blur(density, 22)
        density = density - np.float32(exposure.equalise) * (low - np.float32(low.mean()))
    density = density + np.float32(0.5 * exposure.detail) * (density - frame.blur(density, 5))
    density = density + np.float32(exposure.detail) * (density - frame.blur(density, 1.6))
    centre = density[:: max(1, signal.shape[0] // 64), :: max(1, signal.shape[0] // 64)]
    inside = centre[field[:: max(1, signal.shape[0] // 64), :: max(1, signal.shape[0] // 64)] > 0.5]
    low, high = np.percentile(inside, [3, 98])
    span = high - low
    black, white = low + span * (exposure.black - 0.30), high + span * (exposure.white + 0.02)
    grey = np.clip((density - black) / (white - black), 0, 1) ** np.float32(exposure.gamma)
    s_curve = smoothstep(grey)
    return (1 - np.float32(exposure.toe)) * grey + np.float32(exposure.toe) * s_curve
