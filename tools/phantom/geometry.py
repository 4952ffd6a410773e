"""The millimetre grid, smooth curves, and path lengths of simple bodies along the beam."""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

SUBPIXEL_BITS = 4  # cv2 draws at 1/16 pixel
AA_GROWTH = 0.75  # pixels by which cv2's anti-aliased polygons outgrow their outline (measured)


@dataclass(frozen=True)
class Frame:
    """A square grid of pixel centres in the patient's frontal plane.

    Args:
        size: pixels per side.
        mm: millimetres per pixel.
        top: y of the upper edge, mm (negative: above the lung apices).
    """

    size: int
    mm: float
    top: float

    @cached_property
    def x(self) -> np.ndarray:
        """x of the columns, float32 (1, size), mm; 0 is the midline."""
        return ((np.arange(self.size) + 0.5 - self.size / 2) * self.mm).astype(np.float32)[None, :]

    @cached_property
    def y(self) -> np.ndarray:
        """y of the rows, float32 (size, 1), mm."""
        return ((np.arange(self.size) + 0.5) * self.mm + self.top).astype(np.float32)[:, None]

    def zeros(self) -> np.ndarray:
        return np.zeros((self.size, self.size), np.float32)

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Convert (n, 2) points in mm to pixel coordinates (pixel centres at whole numbers)."""
        origin = np.array([self.size / 2 - 0.5, -self.top / self.mm - 0.5])
        return np.asarray(points, np.float64) / self.mm + origin

    def fill(self, canvas: np.ndarray, outline: np.ndarray, value: int = 255) -> None:
        """Fill a polygon given in mm on a uint8 canvas, anti-aliased."""
        points, inward = band(self.to_pixels(outline), AA_GROWTH)
        following = np.roll(points, -1, axis=0)
        clockwise = np.sum(points[:, 0] * following[:, 1] - following[:, 0] * points[:, 1]) > 0
        points = points + inward if clockwise else points - inward
        fixed = np.round(points * (1 << SUBPIXEL_BITS)).astype(np.int32)
        cv2.fillPoly(canvas, [fixed], value, cv2.LINE_AA, SUBPIXEL_BITS)

    def mask(self, *outlines: np.ndarray) -> np.ndarray:
        """Coverage of the union of polygons, float32 0..1."""
        canvas = np.zeros((self.size, self.size), np.uint8)
        for outline in outlines:
            self.fill(canvas, outline)
        return canvas.astype(np.float32) / 255

    def blur(self, image: np.ndarray, sigma_mm: float) -> np.ndarray:
        """Gaussian blur with a width in mm; wide ones are computed on a coarser grid."""
        sigma = sigma_mm / self.mm
        if sigma < 0.25:
            return image
        step = max(1, int(sigma // 4))
        if step == 1:
            return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        small_size = (max(8, image.shape[1] // step), max(8, image.shape[0] // step))
        small = cv2.resize(image, small_size, interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), sigma * small_size[0] / image.shape[1], borderType=cv2.BORDER_REPLICATE)
        return cv2.resize(small, image.shape[::-1], interpolation=cv2.INTER_CUBIC)

    def noise(self, rng: np.random.Generator, correlation_mm: float) -> np.ndarray:
        """Smooth random field with zero mean and unit variance, float32."""
        cells = max(4, round(self.size * self.mm / correlation_mm))
        coarse = rng.standard_normal((cells, cells), dtype=np.float32)
        field = cv2.resize(coarse, (self.size, self.size), interpolation=cv2.INTER_CUBIC)
        return field / max(float(field.std()), 1e-6)

    def ellipsoid(self, centre: tuple, radii: tuple, depth: float, tilt_degrees: float = 0.0) -> np.ndarray:
        """Path length through an ellipsoid: `depth` mm at its centre, 0 outside."""
        return depth * np.sqrt(np.maximum(1 - self.radius2(centre, radii, tilt_degrees), 0))

    def radius2(self, centre: tuple, radii: tuple, tilt_degrees: float = 0.0) -> np.ndarray:
        """Squared distance from `centre` in units of the (tilted) radii; 1 on the ellipse."""
        dx, dy = self.x - np.float32(centre[0]), self.y - np.float32(centre[1])
        if tilt_degrees:
            cos, sin = np.cos(np.radians(tilt_degrees)), np.sin(np.radians(tilt_degrees))
            dx, dy = np.float32(cos) * dx + np.float32(sin) * dy, np.float32(cos) * dy - np.float32(sin) * dx
        return (dx / np.float32(radii[0])) ** 2 + (dy / np.float32(radii[1])) ** 2

    def tubes(self, tubes: list, levels: tuple = ((1.0, 0.45), (0.8, 0.3), (0.5, 0.25))) -> np.ndarray:
        """Path length through tubes, as a fraction of their diameter (0..1), without adding where they overlap.

        Args:
            tubes: (points (n, 2) mm, half-widths scalar or (n,) mm) pairs.
            levels: (fraction of the half-width, share of the height) steps that build the profile from outside in.
        """
        scale = 1 << SUBPIXEL_BITS
        bands = []
        for points, half_widths in tubes:
            centre, offset = band(np.asarray(points, np.float64), half_widths)
            bands.append((self.to_pixels(centre) * scale, offset * (scale / self.mm)))
        total = self.zeros()
        for fraction, share in levels:
            canvas = np.zeros((self.size, self.size), np.uint8)
            for centre, offset in bands:
                outline = np.concatenate([centre + fraction * offset, (centre - fraction * offset)[::-1]])
                cv2.fillPoly(canvas, [np.rint(outline).astype(np.int32)], 255, cv2.LINE_AA, SUBPIXEL_BITS)
            total += canvas * np.float32(share / 255)
        return total


def band(points: np.ndarray, half_widths: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """A curve's points and, at each, the offset to the edge of a band of the given half-width: both (n, 2)."""
    tangent = np.empty_like(points)
    tangent[1:-1] = points[2:] - points[:-2]
    tangent[0], tangent[-1] = points[1] - points[0], points[-1] - points[-2]
    norm = np.sqrt(tangent[:, 0] ** 2 + tangent[:, 1] ** 2) + 1e-9
    offset = np.empty_like(points)
    offset[:, 0], offset[:, 1] = -tangent[:, 1], tangent[:, 0]
    return points, offset * (half_widths / norm)[:, None]


def smooth_curve(points: list, closed: bool = False, samples: int = 8) -> np.ndarray:
    """Catmull-Rom spline through control points, (n, 2); `samples` points per span."""
    points = np.asarray(points, np.float64)
    if closed:
        padded = np.concatenate([points[-1:], points, points[:2]])
    else:
        padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = np.linspace(0, 1, samples, endpoint=False)
    basis = 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2], axis=1
    )
    spans = np.stack([padded[:-3], padded[1:-2], padded[2:-1], padded[3:]], axis=1)  # (spans, 4, 2)
    curve = (basis @ spans).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, points[-1:]])


def smoothstep(value: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, a smooth cubic between."""
    t = np.clip(value, 0, 1)
    polynomial = 3 - 2 * t
    polynomial *= t
    polynomial *= t
    return polynomial
