"""The pages in a real browser: what a visitor can do on them, and that the pictures drawn there are the right ones."""

import base64
import csv
import io
import re

import cv2
import numpy as np
import pytest
from browser import radiograph_file, upload_of
from page_actions import analyse, choose, downloaded, exported, shown_radiograph, text_of
from served_model import FINDINGS

from cxr.heatmaps.explanation import rank_findings
from cxr.heatmaps.overlay import overlay_heatmap
from cxr.imaging.radiograph import decode_radiograph
from gradcam import explain


@pytest.fixture
def page_without_script(browser, address):
    context = browser.new_context(base_url=address, java_script_enabled=False)
    yield context.new_page()
    context.close()


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


def test_the_print_view_is_a_page_and_one_for_the_report_draft(page):
    analyse(page, upload_of(7))
    report = page.pdf(prefer_css_page_size=True, print_background=True)
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", report)) == 2


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
        mass, peak = answer.heatmaps[FINDINGS.index("Mass")], float(answer.heatmaps.max())
        expected = overlay_heatmap(shown_radiograph(page), mass, peak=peak)
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
    page.wait_for_selector("form.upload")
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


@pytest.mark.fault("H06")
@pytest.mark.parametrize(
    "name",
    ["<img src=x onerror=alert(1)>.png", '"><script>alert(1)</script>.png', "a\u202egnp.exe.png", "x" * 200 + ".png"],
)
def test_hostile_file_names_are_shown_as_text(page, name):
    analyse(page, upload_of(1, name), upload_of(2, "<!--<script>&amp;.png"))
    assert page.locator(".pictures img:not([src^='data:'])").count() == 0
    assert page.locator("main script:not([type='application/json'])").count() == 0
    assert text_of(page, ".pictures a >> nth=1") == "<!--<script>&amp;.png"
    first = text_of(page, ".pictures a >> nth=0")
    assert "\u202e" not in first
    assert len(first) <= 60


@pytest.mark.fault("H11")
def test_back_shows_no_cached_radiograph(page):
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
        assert (
            np.abs(picture - overlay_heatmap(radiograph, answer.heatmaps[k], peak=answer.heatmaps.max())).mean() < 4
        )  # JPEG
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
