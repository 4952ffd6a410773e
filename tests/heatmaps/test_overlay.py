"""Overlays against their closed form."""

import matplotlib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from cxr.heatmaps.colormap import inferno
from cxr.heatmaps.overlay import OPACITY, overlay_heatmap, upsample_heatmap
from cxr.imaging.radiograph import to_model_input


def test_colours_are_matplotlibs_inferno():
    expected = matplotlib.colormaps["inferno"](np.arange(256))[:, :3] * 255
    assert_array_equal(inferno(), np.rint(expected))


def tent(position, num_cells, num_pixels):
    """Bilinear weight of one cell at each pixel: centres at half pixels, the border cells going on to the border."""
    centres = (np.arange(num_pixels) + 0.5) * num_cells / num_pixels - 0.5
    return np.maximum(0, 1 - np.abs(np.clip(centres, 0, num_cells - 1) - position))


@pytest.mark.parametrize("cell", [(0, 0), (3, 3), (2, 5), (6, 1)])
@pytest.mark.parametrize("shape", [(224, 224), (301, 457), (1024, 800), (65, 200)])
def test_overlay_of_one_hot_map_equals_the_closed_form(cell, shape):
    heatmap = np.zeros((7, 7), np.float32)
    heatmap[cell] = 0.02
    radiograph = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    relative = np.outer(tent(cell[0], 7, shape[0]), tent(cell[1], 7, shape[1]))
    assert_allclose(upsample_heatmap(heatmap, *shape), 0.02 * relative, atol=1e-7)

    overlay = overlay_heatmap(radiograph, heatmap)
    colours = matplotlib.colormaps["inferno"](np.rint(relative * 255).astype(int))[..., :3] * 255
    alpha = OPACITY * relative[..., np.newaxis]
    expected = radiograph[..., np.newaxis] * (1 - alpha) + colours * alpha
    assert np.abs(overlay - expected).max() <= 3  # 256 steps of heat; neighbouring colours differ by up to 5
    cold = relative == 0
    assert cold.mean() > 0.5
    for channel in range(3):
        assert_array_equal(overlay[..., channel][cold], radiograph[cold])
    hottest = np.unravel_index(relative.argmax(), shape)
    assert_allclose(overlay[hottest], expected[hottest], atol=2)


def test_overlay_puts_the_heat_back_where_the_model_input_saw_it():
    """A bright square, shrunk by the project's resize and averaged into cells, must come back onto itself."""
    radiograph = np.zeros((900, 630), np.uint8)
    radiograph[300:429, 360:450] = 255  # cell (7/3, 4) to about (10/3, 5) of 7 x 7
    model_input = to_model_input(radiograph, 224)[..., 0]
    cells = model_input.reshape(7, 32, 7, 32).mean(axis=(1, 3))
    heat = upsample_heatmap(cells, 900, 630).astype(float)
    rows, columns = np.indices(heat.shape)
    assert_allclose((rows * heat).sum() / heat.sum(), (300 + 428) / 2, atol=1.5)
    assert_allclose((columns * heat).sum() / heat.sum(), (360 + 449) / 2, atol=1.5)


@pytest.mark.parametrize("opacity", [0.0, 0.6, 1.0])
def test_overlay_without_evidence_is_the_radiograph(opacity):
    radiograph = np.random.default_rng(1).integers(0, 256, (90, 70), dtype=np.uint8)
    overlay = overlay_heatmap(radiograph, np.zeros((7, 7), np.float32), opacity=opacity)
    assert overlay.dtype == np.uint8
    assert_array_equal(overlay, np.stack([radiograph] * 3, axis=2))


def test_overlay_scale_does_not_depend_on_units_but_on_the_peak_given():
    radiograph = np.full((70, 70), 100, np.uint8)
    heatmap = np.random.default_rng(2).uniform(0, 1, (7, 7)).astype(np.float32)
    heatmap[3, 3] = 1
    assert_array_equal(overlay_heatmap(radiograph, heatmap), overlay_heatmap(radiograph, heatmap * 1e-6))
    shared = overlay_heatmap(radiograph, heatmap * 0.5, peak=1.0)
    expected = 100 * (1 - OPACITY / 2) + inferno()[128].astype(float) * OPACITY / 2
    assert_allclose(shared[35, 35], expected, atol=2)
    saturated = overlay_heatmap(radiograph, heatmap * 3, peak=1.0)
    assert_allclose(saturated[35, 35], 100 * (1 - OPACITY) + inferno()[255].astype(float) * OPACITY, atol=1)


@pytest.mark.parametrize(
    ("radiograph", "heatmap", "opacity", "message"),
    [
        (np.zeros((70, 70)), np.zeros((7, 7)), 0.6, "received float64"),
        (np.zeros((70, 70, 3), np.uint8), np.zeros((7, 7)), 0.6, r"received uint8 \(70, 70, 3\)"),
        (np.zeros((70, 70), np.uint8), np.zeros((1, 7, 7)), 0.6, r"received shape \(1, 7, 7\)"),
        (np.zeros((70, 70), np.uint8), np.full((7, 7), np.nan), 0.6, "finite heatmap"),
        (np.zeros((70, 70), np.uint8), np.full((7, 7), -1.0), 0.6, ">= 0"),
        (np.zeros((70, 70), np.uint8), np.zeros((7, 7)), 1.5, "received 1.5"),
    ],
)
def test_overlay_refuses(radiograph, heatmap, opacity, message):
    with pytest.raises(ValueError, match=message):
        overlay_heatmap(radiograph, heatmap, opacity=opacity)
