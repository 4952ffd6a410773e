"""The pages in a real browser: what a visitor can do on them, and that the pictures drawn there are the right ones."""

import base64
import csv
import io
import json
import re

import cv2
import numpy as np
import pytest
from browser import EMPTY_FINDING, radiograph_file, running_site, upload_of, watch
from served_model import FINDINGS

from cxr.heatmaps.overlay import overlay_heatmap
from cxr.imaging.radiograph import decode_radiograph
from cxr.inference.explanation import rank_findings
from cxr.inference.table_columns import COLUMNS, table_header, table_row
from cxr.site.model_slot import ModelSlot
from gradcam import explain


@pytest.fixture(scope="module")
def address(predictor):
    slot = ModelSlot("here", load=lambda path, precision: predictor)
    slot.predictor, slot.state = predictor, "ready"
    with running_site(slot) as address:
        yield address


@pytest.fixture
def page(browser, address):
    """A page of its own that must end without an error in the console and without a dialog."""
    context = browser.new_context(base_url=address, viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.set_default_timeout(10_000)
    seen = watch(page)
    yield page
    context.close()
    assert seen == []


@pytest.fixture
def page_without_script(browser, address):
    context = browser.new_context(base_url=address, java_script_enabled=False)
    yield context.new_page()
    context.close()


def analyse(page, *files):
    """Send files from the start page and wait for the result."""
    page.goto("/")
    page.set_input_files("#file", list(files))
    page.click("form.upload button[type=submit]")
    page.wait_for_selector("section.scripted" if len(files) == 1 else "main.paged")


def choose(page, finding):
    page.click(f"section.result:visible .findings label:has-text('{finding.replace('_', ' ')}')")


def move(page, tool, value):
    """Move a slider as a visitor does, so that the page hears of it."""
    page.locator(f"section.result:visible [data-tool={tool}]").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', {bubbles: true})); }", value
    )


def downloaded(page, kind):
    with page.expect_download() as waiting:
        page.click(f"[data-download={kind}]:visible")
    return waiting.value.suggested_filename, waiting.value.path().read_bytes()


def exported(page):
    """The overlay that the page saves, RGB."""
    _, data = downloaded(page, "png")
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1].astype(int)


def shown_radiograph(page):
    """The radiograph as the page got it, a JPEG: uint8 (height, width)."""
    source = page.get_attribute("section.result:visible .shot[data-rank='0']", "src")
    data = base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)


def text_of(page, selector):
    return " ".join(page.inner_text(selector).split())


# Start page


def test_an_upload_is_previewed_and_answered_with_the_models_numbers(page, predictor):
    page.goto("/")
    page.set_input_files("#file", [upload_of(3)])
    row = page.locator(".queue li")
    assert row.locator("img").evaluate("async (image) => { await image.decode(); return image.naturalWidth; }") == 180
    assert "film.png" in row.inner_text()
    page.click("form.upload button[type=submit]")
    page.wait_for_selector("section.scripted")
    answer = explain(predictor, decode_radiograph(radiograph_file(3)))
    ranking = rank_findings(answer.probabilities)
    rows = page.locator(".findings tbody tr")
    assert rows.locator("th label").all_inner_texts() == [FINDINGS[k].replace("_", " ") for k in ranking]
    meters = [float(one.get_attribute("aria-valuenow")) for one in rows.locator("[role=meter]").all()]
    np.testing.assert_allclose(meters, answer.probabilities[ranking], atol=1e-4)
    num_above = int((answer.probabilities >= 0.5).sum())
    assert 0 < num_above < 14  # else the test could not tell
    assert text_of(page, "h1:visible").startswith(f"{num_above} of 14 findings reach")
    assert "no diagnosis" in text_of(page, ".says")


def test_files_can_be_dropped_pasted_and_removed(page):
    page.goto("/")
    give = """([kind, name, size, type]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(size)], name, {type}));
        const event = kind === "paste"
            ? new ClipboardEvent(kind, {clipboardData: transfer, bubbles: true})
            : new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true});
        return document.body.dispatchEvent(event);
    }"""
    assert page.evaluate(give, ["drop", "one.dcm", 2000, ""]) is False  # the browser does not open the file itself
    page.evaluate(give, ["paste", "two.dcm", 3000, ""])
    assert page.locator(".queue .name").all_inner_texts() == ["one.dcm", "two.dcm"]
    assert "browsers cannot draw DICOM" in text_of(page, ".queue li >> nth=0")
    assert text_of(page, "form.upload button[type=submit]") == "Analyse 2 pictures"
    page.click("text=Remove >> nth=0")
    assert page.evaluate("[...document.getElementById('file').files].map((file) => file.name)") == ["two.dcm"]
    page.evaluate(give, ["drop", "huge.dcm", 33 * 2**20, ""])
    assert "huge.dcm: more than 32 MiB together" in text_of(page, "form.upload .message")
    for number in range(9):
        page.evaluate(give, ["drop", f"more{number}.dcm", 10, ""])
    assert "at most 8 files at once" in text_of(page, "form.upload .message")
    assert page.locator(".queue li").count() == 8


def test_while_sending_a_live_message_says_so(page):
    page.goto("/")
    page.evaluate("addEventListener('submit', (event) => event.preventDefault())")  # it would never be answered
    page.set_input_files("#file", [upload_of()])
    page.click("form.upload button[type=submit]")
    assert text_of(page, "form.upload [role=status]") == "Sending 1 picture and waiting for the model…"


def test_a_sample_tells_its_label_after_the_answer(page):
    page.goto("/")
    assert not any(finding in text_of(page, ".samples") for finding in FINDINGS)
    page.click(".samples button >> nth=0")
    page.wait_for_selector("section.scripted")
    label = re.search(r"This sample is labelled: ([^.]+)\.", text_of(page, ".truth")).group(1)
    assert label.replace(" ", "_") in FINDINGS
    assert page.locator(".findings tr:has(.tag) label").all_inner_texts() == [label]


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
        expected = overlay_heatmap(radiograph, result.heatmaps[k])
        assert np.abs(expected.astype(int) - radiograph[:, :, np.newaxis]).mean() > 5  # there is something to see
        difference = np.abs(exported(page) - expected)
        assert difference.mean() < 0.5
        assert difference.max() <= 4  # a colour step, where float32 and float64 round differently


@pytest.mark.parametrize("opacity", [0, 35, 100])
def test_opacity_is_that_of_the_python_overlay(page, result, opacity):
    choose(page, FINDINGS[3])
    move(page, "opacity", opacity)
    expected = overlay_heatmap(shown_radiograph(page), result.heatmaps[3], opacity=opacity / 100)
    assert np.abs(exported(page) - expected).mean() < 0.5
    assert text_of(page, "label:has([data-tool=opacity]) output") == f"{opacity} %"


def test_one_scale_for_all_findings_ends_at_the_largest_peak(page, result):
    choose(page, FINDINGS[3])
    page.check("[data-tool=common]")
    top = result.heatmaps.max()
    assert result.heatmaps[3].max() < top
    expected = overlay_heatmap(shown_radiograph(page), result.heatmaps[3], peak=float(top))
    assert np.abs(exported(page) - expected).mean() < 0.5
    assert text_of(page, ".legend .end").startswith(f"+{top:.2g}")


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
        assert row.locator(".rule").inner_text().strip() == f"{words} {thresholds[k]:.2f}"
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
    assert downloaded(page, "png")[0] == "film_Mass.png"


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


def test_the_print_view_is_one_page(page, result):
    report = page.pdf(prefer_css_page_size=True, print_background=True)
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", report)) == 1


# Several files


def test_several_files_lead_from_a_table_to_their_results(page, predictor):
    files = [upload_of(1, "first.png"), {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"text"}]
    analyse(page, *files, upload_of(2, "third.png"))
    assert page.locator(".pictures tbody a").all_inner_texts() == ["first.png", "notes.txt", "third.png"]
    assert page.locator(".pictures tbody img").count() == 2
    assert "not a PNG, JPEG or DICOM" in text_of(page, ".pictures tr:has-text('notes.txt')")
    rows = list(csv.DictReader(io.StringIO(downloaded(page, "csv")[1].decode())))
    for seed, name in ((1, "first.png"), (2, "third.png")):
        answer = explain(predictor, decode_radiograph(radiograph_file(seed)))
        (row,) = [row for row in rows if row["Image"] == name]
        np.testing.assert_allclose([float(row[one]) for one in FINDINGS], answer.probabilities, atol=1e-6)
        page.focus(f".pictures a:has-text('{name}')")
        page.keyboard.press("Enter")
        page.wait_for_selector("section.scripted:visible")
        assert page.locator("section.result:visible").count() == 1
        assert text_of(page, "section.result:visible h2") == name
        choose(page, "Mass")
        expected = overlay_heatmap(shown_radiograph(page), answer.heatmaps[FINDINGS.index("Mass")])
        assert np.abs(exported(page) - expected).mean() < 0.5
        page.click("text=All radiographs >> visible=true")
        page.wait_for_selector("#summary", state="visible")
    page.click(".pictures a:has-text('notes.txt')")
    assert "not a PNG, JPEG or DICOM" in text_of(page, "section.failure:visible")
    page.go_back()
    page.wait_for_selector("#summary", state="visible")


# Errors, hostile names, no script


def test_errors_are_pages_in_the_same_design(page):
    page.goto("/")
    page.set_input_files("#file", {"name": "x.png", "mimeType": "image/png", "buffer": b"no picture"})
    page.click("form.upload button[type=submit]")
    page.wait_for_selector("text=Error 415")
    assert "not a PNG, JPEG or DICOM" in text_of(page, "main")
    page.click("text=Back to the start page")
    assert page.is_visible("form.upload")
    for path in ("/nothing", "/samples/none.png"):
        assert page.goto(path).status == 404
        assert "Error 404" in text_of(page, "main")
        assert page.evaluate("getComputedStyle(document.querySelector('header.site')).display") == "flex"  # styled


def test_a_form_without_a_file_comes_back_with_the_error_and_the_focus(page):
    page.goto("/")
    page.evaluate("document.getElementById('file').required = false")
    page.click("form.upload button[type=submit]")
    page.wait_for_selector("#file-error")
    assert page.evaluate("document.activeElement.id") == "file"
    assert "file-error" in page.get_attribute("#file", "aria-describedby")


@pytest.mark.parametrize(
    "name",
    ["<img src=x onerror=alert(1)>.png", '"><script>alert(1)</script>.png', "a\u202egnp.exe.png", "x" * 200 + ".png"],
)
def test_H06_hostile_file_names_are_shown_as_text(page, name):
    analyse(page, upload_of(1, name), upload_of(2, "<!--<script>&amp;.png"))
    assert page.locator(".pictures img:not([src^='data:'])").count() == 0
    assert page.locator("main script:not([type='application/json'])").count() == 0
    assert text_of(page, ".pictures a >> nth=1") == "<!--<script>&amp;.png"
    first = text_of(page, ".pictures a >> nth=0")
    assert "\u202e" not in first
    assert len(first) <= 60


def test_H11_back_shows_no_cached_radiograph(page):
    page_error = pytest.importorskip("playwright.sync_api").Error
    analyse(page, upload_of())
    assert "data:image/jpeg" in page.content()
    page.goto("/model")
    with pytest.raises(page_error, match="ERR_CACHE_MISS"):  # it kept nothing, and does not send the form by itself
        page.go_back()
    page.wait_for_url("chrome-error://**")
    assert "data:image/jpeg" not in page.content()
    assert page.locator("canvas").count() == 0
    page.goto("/predict")
    assert page.is_visible("form.upload")


def test_without_javascript_the_overlays_and_the_threshold_work(page_without_script, predictor):
    page = page_without_script
    page.goto("/")
    page.set_input_files("#file", [upload_of(7)])
    page.click("form.upload button[type=submit]")
    answer = explain(predictor, decode_radiograph(radiograph_file(7)))
    radiograph = decode_radiograph(radiograph_file(7))
    for rank, k in enumerate(rank_findings(answer.probabilities)[:3], 1):
        page.check(f".view[value='{rank}']", force=True)
        shown = page.locator(".shot:visible")
        assert shown.count() == 1
        data = base64.b64decode(shown.get_attribute("src").removeprefix("data:image/jpeg;base64,"))
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1].astype(int)
        assert np.abs(picture - overlay_heatmap(radiograph, answer.heatmaps[k])).mean() < 4  # JPEG
        assert FINDINGS[k].replace("_", " ") in text_of(page, ".reading:visible")
    page.check(".view[value='0']")
    assert page.get_attribute(".shot:visible", "alt") == "The radiograph"
    thresholds = np.array([0.5 if one is None else one for one in predictor.info.thresholds])
    page.check(".rule-chosen", force=True)
    assert text_of(page, "h1:visible").startswith(f"{(answer.probabilities >= thresholds).sum()} of 14 findings")
    assert not page.is_visible("[data-tool=opacity]")  # nothing that would not work


def test_without_javascript_samples_and_several_files_work(page_without_script):
    page = page_without_script
    page.goto("/")
    page.click(".samples button >> nth=1")
    assert "This sample is labelled" in text_of(page, ".says")
    page.goto("/")
    page.set_input_files("#file", [upload_of(1, "first.png"), upload_of(2, "second.png")])
    page.click("form.upload button[type=submit]")
    assert page.locator(".pictures tbody tr").count() == 2
    assert page.locator("section.result:visible").count() == 2
    page.click(".pictures a:has-text('second.png')")
    assert page.url.endswith("#picture-2")
