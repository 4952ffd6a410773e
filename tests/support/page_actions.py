"""What a visitor does on the pages, and what the pages show and save, for tests in a real browser."""

import base64

import cv2
import numpy as np


def analyse(page, *files):
    """Send files from the start page and wait for the result."""
    page.goto("/")
    page.set_input_files("#file", list(files))
    page.click("form.upload button[type=submit]")
    page.wait_for_selector("section.scripted" if len(files) == 1 else "main.paged")


def choose(page, finding):
    page.click(f"section.result:visible .findings label:has-text('{finding.replace('_', ' ')}')")


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
