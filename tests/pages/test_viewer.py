"""The viewer: drawn overlay, opacity, scale, window, zoom, threshold, downloads."""

import csv
import io
import json

import numpy as np
import pytest
from browser import EMPTY_FINDING, radiograph_file, upload_of
from page_actions import analyse, choose, downloaded, exported, shown_radiograph, text_of
from served_model import FINDINGS

from cxr.heatmaps.boxes_from_heatmaps import boxes_from_heatmap, in_pixels
from cxr.heatmaps.explanation import rank_findings
from cxr.heatmaps.overlay import overlay_heatmap
from cxr.imaging.radiograph import DRAWN, decode_radiograph, decode_with_notices
from cxr.inference.table_columns import COLUMNS, table_header, table_row
from gradcam import explain


def move(page, tool, value):
    """Move a slider as a visitor does, so that the page hears of it."""
    page.locator(f"section.result:visible [data-tool={tool}]").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', {bubbles: true})); }", value
    )


def written_beside(limit, value):
    """Write a threshold with the fewest decimals, two at least, that tell it from the value, from 0 and from 1."""
    for decimals in range(2, 10):
        written = [f"{number:.{decimals}f}" for number in (limit, value, 0, 1)]
        if written[0] not in written[1:]:
            return written[0]


# Result


@pytest.fixture
def result(page, predictor):
    """A result page, and the explanation in Python's own numbers."""
    analyse(page, upload_of(7))
    return explain(predictor, decode_radiograph(radiograph_file(7)))


@pytest.mark.parametrize("shape", [(220, 180), (1100, 900)], ids=["as it is", "shrunk"])
def test_the_drawn_overlay_equals_the_python_overlay(page, predictor, shape):
    analyse(page, upload_of(7, shape=shape))
    result = explain(predictor, decode_radiograph(radiograph_file(7, shape=shape)))
    radiograph = shown_radiograph(page)
    assert radiograph.shape == ((1024, 838) if shape[0] > 1024 else shape)
    coloured = [k for k in rank_findings(result.probabilities) if result.heatmaps[k].any()]
    for k in coloured[:2]:
        choose(page, FINDINGS[k])
        expected = overlay_heatmap(radiograph, result.heatmaps[k], peak=float(result.heatmaps.max()))
        assert np.abs(expected.astype(int) - radiograph[:, :, np.newaxis]).mean() > 5  # there is something to see
        difference = np.abs(exported(page) - expected)
        assert difference.mean() < 0.5
        assert difference.max() <= 4  # a colour step, where float32 and float64 round differently


@pytest.mark.parametrize("opacity", [0, 35, 100])
def test_opacity_is_that_of_the_python_overlay(page, result, opacity):
    choose(page, FINDINGS[3])
    move(page, "opacity", opacity)
    peak = float(result.heatmaps.max())
    expected = overlay_heatmap(shown_radiograph(page), result.heatmaps[3], peak=peak, opacity=opacity / 100)
    assert np.abs(exported(page) - expected).mean() < 0.5
    assert text_of(page, "label:has([data-tool=opacity]) output") == f"{opacity} %"


def test_the_scale_ends_at_the_largest_peak_of_all_findings_and_by_choice_at_the_maps_own(page, result):
    peaks = result.heatmaps.max(axis=(1, 2))
    k = int(np.argmin(np.where(peaks > 0, peaks, np.inf)))
    top, own = peaks.max(), peaks[k]
    assert own < top / 2
    choose(page, FINDINGS[k])
    assert text_of(page, ".legend .end") == f"+{top:.2g} logit, the largest peak of all findings"
    page.check("[data-tool=own]")
    expected = overlay_heatmap(shown_radiograph(page), result.heatmaps[k])
    assert np.abs(exported(page) - expected).mean() < 0.5
    assert text_of(page, ".legend .end") == f"+{float(own):.2g} logit, this map's own peak"


@pytest.mark.parametrize("shape", [(220, 180), (1100, 900)], ids=["as it is", "shrunk"])
def test_boxes_are_drawn_where_python_finds_them(page, predictor, shape):
    analyse(page, upload_of(7, shape=shape))
    heatmaps = explain(predictor, decode_radiograph(radiograph_file(7, shape=shape))).heatmaps
    k = int(np.argmax(heatmaps.max(axis=(1, 2))))
    choose(page, FINDINGS[k])
    assert not page.is_visible(".reading.chosen .boxed")
    page.uncheck("[data-tool=heat]")
    before = exported(page)
    page.check("[data-tool=boxes]")
    changed = np.abs(exported(page) - before).max(axis=2) > 0
    (height, width), boxes = changed.shape, boxes_from_heatmap(heatmaps[k])
    assert boxes
    border = np.zeros_like(changed)
    reach = 3 + width // 100  # pixels: the line and its rim
    for x, y, w, h in (in_pixels(box, width, height) for box in boxes):
        border[y : y + h, x : x + w] = True
        inner = changed[y + reach : y + h - reach, x + reach : x + w - reach]
        border[y + reach : y + h - reach, x + reach : x + w - reach] = False
        assert not inner.any() or len(boxes) > 1
        sides = changed[y + h // 2, x : x + reach], changed[y + h // 2, x + w - reach : x + w]
        assert all(side.any() for side in (*sides, changed[y : y + reach, x + w // 2]))
    assert not (changed & ~border).any()
    assert page.is_visible(".reading.chosen .boxed")
    choose(page, EMPTY_FINDING)
    assert np.abs(exported(page) - before).max() == 0


def test_heatmap_off_invert_window_and_level_change_the_radiograph(page, result):
    grey = shown_radiograph(page).astype(float)
    page.uncheck("[data-tool=heat]")
    assert np.abs(exported(page) - grey[:, :, np.newaxis]).max() == 0
    move(page, "window", 40)
    move(page, "level", 60)
    page.check("[data-tool=invert]")
    expected = 255 - np.clip((grey - 0.4 * 255) / 0.4, 0, 255)  # 40 % to 80 % of the grey scale
    assert np.abs(exported(page) - expected[:, :, np.newaxis]).max() <= 1
    page.click("[data-tool=reset]")
    assert np.abs(exported(page) - grey[:, :, np.newaxis]).max() == 0


def test_a_map_without_positive_evidence_says_so_and_colours_nothing(page, result):
    choose(page, EMPTY_FINDING)
    assert "No positive evidence" in text_of(page, ".reading.chosen")
    assert text_of(page, ".legend .end") == "no heat in this map"
    assert np.abs(exported(page) - shown_radiograph(page)[:, :, np.newaxis]).max() == 0


def test_choosing_a_finding_says_its_numbers_aloud(page, result, predictor):
    k = 5
    choose(page, FINDINGS[k])
    words = text_of(page, ".reading.chosen")
    assert f"Nodule: probability {result.probabilities[k]:.2f} (threshold 0.50)" in words
    assert f"+{result.heatmaps[k].max():.2g}" in words
    assert "AUROC 0.75" in words
    assert " ".join(page.text_content("#spoken").split()) == words
    assert page.get_attribute(".overlay canvas", "aria-label").endswith("evidence for Nodule")


def test_the_threshold_choice_changes_headline_marks_and_words(page, result, predictor):
    thresholds = np.array([0.5 if one is None else one for one in predictor.info.thresholds])
    above, above_chosen = result.probabilities >= 0.5, result.probabilities >= thresholds
    assert above.sum() != above_chosen.sum()
    assert text_of(page, "h1:visible").startswith(f"{above.sum()} of 14 findings")
    page.check(".rule-chosen", force=True)
    assert text_of(page, "h1:visible").startswith(f"{above_chosen.sum()} of 14 findings")
    assert str(above_chosen.sum()) in page.text_content("#spoken")
    for rank, k in enumerate(rank_findings(result.probabilities)):
        row = page.locator(".findings tbody tr").nth(rank)
        words = "above" if above_chosen[k] else "below"
        shown = written_beside(thresholds[k], result.probabilities[k])
        assert row.locator(".rule").inner_text().strip() == f"{words} {shown}"
        mark = row.locator(".mark:visible")
        assert float(mark.get_attribute("x")) == pytest.approx(100 * thresholds[k] - 0.5, abs=0.06)


def test_the_downloads_hold_the_models_numbers(page, result, predictor):
    name, data = downloaded(page, "csv")
    rows = list(csv.DictReader(io.StringIO(data.decode())))
    assert name == "film.csv"
    header, expected = table_header(FINDINGS, COLUMNS), table_row("film.png", predictor.info, result, (), COLUMNS)
    assert len(rows) == 1
    assert list(rows[0]) == header
    for column, cell in zip(header, expected, strict=True):
        try:
            np.testing.assert_allclose(float(rows[0][column]), float(cell), rtol=1e-5, atol=1e-6, err_msg=column)
        except ValueError:
            assert rows[0][column] == cell, column
    name, data = downloaded(page, "json")
    answer = json.loads(data)
    assert name == "film.json"
    assert answer["model"]["digest"] == predictor.info.digest
    for k, finding in enumerate(answer["findings"]):
        np.testing.assert_allclose(finding["heatmap"], result.heatmaps[k], rtol=1e-5)
    choose(page, "Mass")
    name, data = downloaded(page, "png")
    assert name == "film_Mass.png"
    assert DRAWN in decode_with_notices(data).notices  # a whole PNG that says it is no radiograph


def test_zoom_and_pan_by_buttons_keys_wheel_and_mouse(page, result):
    canvas = page.locator(".overlay canvas")
    box = canvas.bounding_box()
    centre = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def zoom():
        return round(canvas.bounding_box()["width"] / box["width"], 2)

    page.click("[data-zoom=in]")
    assert zoom() == 1.25
    page.focus(".stage")
    page.keyboard.press("+")
    assert zoom() == 1.56
    left = canvas.bounding_box()["x"]
    page.keyboard.press("ArrowRight")
    assert canvas.bounding_box()["x"] < left
    page.mouse.move(*centre)
    page.mouse.wheel(0, -400)
    page.wait_for_function("document.querySelector('.zooming output').textContent > '200'")
    before = canvas.bounding_box()
    page.mouse.down()
    page.mouse.move(centre[0] + 40, centre[1] + 25, steps=4)
    page.mouse.up()
    after = canvas.bounding_box()
    assert after["x"] - before["x"] == pytest.approx(40, abs=1)
    assert after["y"] - before["y"] == pytest.approx(25, abs=1)
    height, width = exported(page).shape[:2]
    assert (height, width) == (220, 180)  # the whole picture, whatever is in view
    page.keyboard.press("0")
    page.focus(".stage")
    page.keyboard.press("0")
    assert zoom() == 1
    page.keyboard.press("-")
    assert zoom() == 1


def test_side_by_side_shows_the_radiograph_beside_its_overlay(page, result):
    assert not page.is_visible(".plain canvas")
    page.check("input[value=beside]", force=True)
    plain, overlay = (page.locator(f".{name} canvas").bounding_box() for name in ("plain", "overlay"))
    assert plain["y"] == overlay["y"]
    assert plain["x"] + plain["width"] <= overlay["x"]
    assert plain["width"] == pytest.approx(overlay["width"], abs=1)
