"""The pages for everyone: keyboard alone, small screens, touch, what axe-core knows of screen readers, no model."""

import copy
import dataclasses

import numpy as np
import pytest
from browser import WCAG, running_site, upload_of, watch

from cxr.network.input_check import AspectStatistics, Source
from cxr.site.model_slot import ModelSlot


@pytest.fixture(scope="module")
def address(predictor):
    slot = ModelSlot("here")
    slot.predictor, slot.state = predictor, "ready"
    with running_site(slot) as address:
        yield address


@pytest.fixture
def open_page(browser, address):
    """Open pages with options of a browser context; all must end without an error in the console."""
    contexts, seen = [], []

    def open_one(**options):
        contexts.append(
            browser.new_context(**({"base_url": address, "viewport": {"width": 1280, "height": 800}} | options))
        )
        page = contexts[-1].new_page()
        page.set_default_timeout(10_000)
        seen.append(watch(page))
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not any(seen)


def open_start(page):
    page.goto("/")


def open_filled_start(page):
    page.goto("/")
    page.set_input_files("#file", [upload_of(), {"name": "scan.dcm", "mimeType": "", "buffer": b"x" * 200}])


def open_result(page):
    page.goto("/")
    page.click(".samples button >> nth=0")
    page.wait_for_selector(".scripted")


def open_several(page):
    page.goto("/")
    long = {"name": "notes" * 12 + ".txt", "mimeType": "text/plain", "buffer": b"text"}
    page.set_input_files("#file", [upload_of(1, "first.png"), long])
    page.click("form.upload button[type=submit]")
    page.wait_for_selector(".paged")


def open_one_of_several(page):
    open_several(page)
    page.click(".pictures a >> nth=0")
    page.wait_for_selector("section.scripted:visible")


PAGES = {
    "start": open_start,
    "filled start": open_filled_start,
    "result": open_result,
    "several": open_several,
    "one of several": open_one_of_several,
    "model card": lambda page: page.goto("/model"),
    "for programs": lambda page: page.goto("/api"),
    "error": lambda page: page.goto("/nothing"),
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_violation(open_page, name, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    width = {"light": 1280, "dark": 390}[scheme]
    page = open_page(color_scheme=scheme, viewport={"width": width, "height": 800}, reduced_motion="reduce")
    PAGES[name](page)
    found = axe.Axe().run(page, options=WCAG).response["violations"]
    assert [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in found] == []


@pytest.mark.parametrize("name", PAGES)
def test_at_320_pixels_no_page_scrolls_sideways(open_page, name):
    page = open_page(viewport={"width": 320, "height": 640})
    PAGES[name](page)
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    sticking_out = page.evaluate(
        """() => [...document.querySelectorAll("main *")].filter((part) => !part.closest(".scroll, pre, .hidden, thead")
            && part.getBoundingClientRect().right > 321 && part.offsetParent)
            .map((part) => part.outerHTML.slice(0, 90))"""
    )
    assert sticking_out == []


@pytest.mark.parametrize("width", [480, 640, 800, 960, 1100])  # 640 is 1280 at 200 % zoom
def test_the_result_fits_every_width(open_page, width):
    page = open_page(viewport={"width": width, "height": 500})
    open_result(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    table, side = (page.locator(one).bounding_box() for one in (".findings", ".side"))
    assert table["x"] + table["width"] <= side["x"] + side["width"] + 0.5


def test_targets_are_large_enough(open_page):
    """WCAG 2.2, 2.5.8: 24 pixels a side; a radio button's label counts, links within sentences do not."""
    page = open_page(viewport={"width": 320, "height": 640})
    for open_it in (open_filled_start, open_result):
        open_it(page)
        sizes = page.evaluate(
            """() => [...document.querySelectorAll(
                "button, summary, .findings tr:has(input), .switch, .segments label, .pictures tr")]
                .filter((part) => part.offsetParent)
                .map((part) => [part.outerHTML.slice(0, 60), part.offsetWidth, part.offsetHeight])"""
        )
        assert len(sizes) > 5
        assert [one for one in sizes if min(one[1:]) < 24] == []


def test_everything_is_done_by_keyboard_alone(open_page):
    page = open_page()
    open_start(page)

    def tab_to(selector):
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"The Tab key does not lead to {selector}")

    tab_to(".skip")
    tab_to("#file")
    tab_to(".samples button")
    page.keyboard.press("Enter")
    page.wait_for_selector(".scripted")
    tab_to(".stage")
    page.keyboard.press("+")
    assert page.inner_text(".zooming output") == "125 %"
    tab_to("[data-tool=opacity]")
    page.keyboard.press("Home")
    assert page.inner_text("label:has([data-tool=opacity]) output") == "0 %"
    tab_to(".rule-default")
    page.keyboard.press("ArrowRight")
    assert page.is_checked(".rule-chosen")
    tab_to(".view")
    first = page.inner_text(".reading.chosen")
    page.keyboard.press("ArrowDown")
    assert page.inner_text(".reading.chosen") != first
    outline = page.evaluate("getComputedStyle(document.querySelector('tr:has(.view:focus-visible)')).outlineStyle")
    assert outline == "solid"
    tab_to("[data-download=csv]")
    with page.expect_download():
        page.keyboard.press("Enter")


def test_on_a_phone_the_picture_stays_in_sight_and_hides_no_focus(open_page):
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    open_result(page)
    page.locator(".findings .view").nth(13).focus()
    page.keyboard.press("ArrowUp")
    for _ in range(12):
        page.keyboard.press("ArrowUp")
        stage, row = (page.locator(one).bounding_box() for one in (".stage", "tr:has(.view:focus)"))
        assert stage["y"] >= -1
        assert row["y"] >= stage["y"] + stage["height"] - 1


def test_two_fingers_zoom_the_picture(open_page):
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    open_result(page)
    box = page.locator(".overlay.pane").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)

    def touch(kind, *gaps):
        points = [{"x": x + gap, "y": y, "id": number} for number, gap in enumerate(gaps)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", -40, 40)
    for gap in (50, 60, 70, 80):
        touch("touchMove", -gap, gap)
    touch("touchEnd")
    assert int(page.inner_text(".zooming output").split()[0]) == pytest.approx(200, abs=10)
    assert page.evaluate("visualViewport.scale") == 1  # the picture was zoomed, not the page


def test_with_reduced_motion_nothing_turns(open_page):
    page = open_page(reduced_motion="reduce")
    open_start(page)
    page.evaluate("document.body.classList.add('sending')")
    page.evaluate("document.querySelector('form.upload .message').textContent = 'Sending'")
    look = "getComputedStyle(document.querySelector('form.upload .message'), '::before').animationName"
    assert page.evaluate(look) == "none"


# States of the model


def test_while_the_model_loads_the_page_waits_and_goes_on_by_itself(open_page, predictor):
    pooled = predictor.head_kernel.shape[0]
    far_away = AspectStatistics(np.full(pooled, 900.0), np.eye(pooled, 2), np.ones(2), 1.0)
    never_usual = (Source(features=far_away, centres=(0.0,), spreads=(0.1,)),)
    slot = ModelSlot("here")
    with running_site(slot) as address:
        page = open_page(base_url=address)
        page.goto("/")
        assert "the model is loading" in page.inner_text("main [role=status]")
        assert page.locator("form").count() == 0
        slot.predictor = copy.copy(predictor)
        slot.predictor.info = dataclasses.replace(slot.predictor.info, sources=never_usual)
        slot.state = "ready"
        page.wait_for_selector("form.upload")
        open_result(page)
        assert "unlike the radiographs" in page.inner_text(".says .warning")


@pytest.mark.parametrize(("state", "words"), [("missing", "no model file yet"), ("refused", "found but refused")])
def test_without_a_model_the_pages_say_how_to_get_one(open_page, state, words):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    slot = ModelSlot("nowhere")
    slot.state = state
    with running_site(slot) as address:
        page = open_page(base_url=address)
        for path in ("/", "/model"):
            page.goto(path)
            assert words in page.inner_text("main")
            assert "python main_train.py" in page.inner_text("pre")
            assert axe.Axe().run(page, options=WCAG).response["violations"] == []
        answer = page.request.post("/predict", multipart={"file": upload_of()})
        assert answer.status == 503
        assert "python main_train.py" in answer.text()
