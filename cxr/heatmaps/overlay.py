"""Lay a heatmap over its radiograph, as pixels.

Owns the geometry and the colours of an overlay; where the heat comes from is in gradcam.
"""

import functools

import cv2
import numpy as np

from cxr.heatmaps.colormap import inferno

OPACITY = 0.6  # of the colour at a map's peak; the anatomy below stays visible
LEGEND_GREY = 96  # 0-255, about that of soft tissue
JPEG_QUALITY = 90  # percent; no visible blocks, a fifth of the bytes of a PNG


def upsample_heatmap(heatmap: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bring a heatmap to the radiograph's size, bilinearly: float32 (height, width).

    The inverse of the plain resize of the whole radiograph: cell (i, j) of (h, w) covers the pixels from i * height / h
    to (i + 1) * height / h. OpenCV's INTER_LINEAR has this half-pixel convention: the centre of cell i lies on the row
    (i + 0.5) * height / h - 0.5, and the border cells go on to the border.
    """
    return cv2.resize(heatmap.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)


def overlay_heatmap(
    radiograph: np.ndarray, heatmap: np.ndarray, *, peak: float | None = None, opacity: float = OPACITY
) -> np.ndarray:
    """Lay a heatmap over its radiograph: hue and opacity grow with the heat, and cold pixels stay as they are.

    Args:
        radiograph: uint8 (height, width).
        heatmap: float (h, w) >= 0.
        peak: the heat that gets the end of the colour scale; this map's maximum by default. Give the same peak to
            several maps to compare them.
        opacity: of the colour at the peak, 0 to 1.

    Returns:
        uint8 (height, width, 3), RGB. Where there is no heat, and everywhere under an all-zero map, the three
        channels equal the radiograph.

    Raises:
        ValueError: another type, shape or range.
    """
    if radiograph.dtype != np.uint8 or radiograph.ndim != 2:
        raise ValueError(
            f"Expected a radiograph uint8 (height, width), received {radiograph.dtype} {radiograph.shape}."
        )
    if heatmap.ndim != 2 or not np.isfinite(heatmap).all() or heatmap.min() < 0:
        raise ValueError(f"Expected a finite heatmap (h, w) >= 0, received shape {heatmap.shape}.")
    if not 0 <= opacity <= 1:
        raise ValueError(f"Expected an opacity from 0 to 1, received {opacity}.")
    top = float(heatmap.max()) if peak is None else peak
    if top <= 0:  # 0 / 0 would be NaN; no evidence is no colour
        return np.repeat(radiograph[:, :, np.newaxis], 3, axis=2)
    relative = upsample_heatmap(np.minimum(heatmap / top, 1), *radiograph.shape)
    heat = cv2.convertScaleAbs(relative, alpha=255)  # uint8 (height, width), rounded
    rgba = np.take(_blended_colours(opacity), (heat.astype(np.uint16) << 8) | radiograph)  # one uint32 per pixel
    return cv2.cvtColor(rgba.view(np.uint8).reshape(*radiograph.shape, 4), cv2.COLOR_RGBA2RGB)


@functools.lru_cache(maxsize=8)
def _blended_colours(opacity: float) -> np.ndarray:
    """Return the overlay's colours: uint32 (256 * 256,), at heat * 256 + grey, as the bytes R, G, B, 0."""
    alpha = (opacity * np.arange(256) / 255).reshape(256, 1, 1)
    grey = np.arange(256.0).reshape(1, 256, 1)
    colour = inferno().astype(float).reshape(256, 1, 3)
    rgba = np.zeros((256, 256, 4), np.uint8)
    rgba[..., :3] = np.rint(grey * (1 - alpha) + colour * alpha)
    return rgba.view(np.uint32).ravel()


def encode_png(picture: np.ndarray) -> bytes:
    """Encode uint8 (height, width) grey or (height, width, 3) RGB as PNG."""
    return cv2.imencode(".png", picture if picture.ndim == 2 else picture[:, :, ::-1])[1].tobytes()


def fit_for_display(radiograph: np.ndarray, max_side: int) -> np.ndarray:
    """Shrink a radiograph, uint8 (height, width), until no side is longer than `max_side`; never enlarge it."""
    height, width = radiograph.shape
    scale = max_side / max(height, width)
    if scale >= 1:
        return radiograph
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(radiograph, size, interpolation=cv2.INTER_AREA)


def draw_legend(height: int, width: int) -> np.ndarray:
    """Draw the colour scale as it looks on grey, from no heat to the peak: uint8 (height, width, 3), RGB."""
    return overlay_heatmap(np.full((height, width), LEGEND_GREY, np.uint8), np.linspace(0, 1, 64)[np.newaxis])


def encode_jpeg(picture: np.ndarray) -> bytes:
    """Encode uint8 (height, width) grey or (height, width, 3) RGB as JPEG, for pages."""
    pixels = picture if picture.ndim == 2 else picture[:, :, ::-1]
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
