"""A real browser and a running site for the tests of the pages: one of each for a test module."""

import contextlib
import dataclasses
import functools
import shutil
import threading
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
from served_model import FINDINGS, served_model
from werkzeug.serving import make_server

import app as site
from cxr.decoding.pool import Decoder
from cxr.heatmaps.overlay import encode_png
from cxr.inference.predictor import Predictor
from cxr.site.model_slot import ModelSlot

EMPTY_FINDING = "Hernia"  # its map has no positive evidence in any picture
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OTHER_NAMES = "--host-resolver-rules=MAP *.example 127.0.0.1, MAP *.example. 127.0.0.1, MAP xray 127.0.0.1"
WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def radiograph_file(seed: int = 0, shape: tuple[int, int] = (220, 180)) -> bytes:
    """Make a smooth grey picture: no radiograph, but the site takes it for one."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 5), dtype=np.uint8)
    return encode_png(cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC))


def upload_of(seed: int = 0, name: str = "film.png", **options: object) -> dict[str, object]:
    """Return a file in the form in which Playwright chooses it in a file input."""
    return {"name": name, "mimeType": "image/png", "buffer": radiograph_file(seed, **options)}


@functools.cache
def make_predictor() -> Predictor:
    """The small test model, as if it had been trained: thresholds, calibration and test results."""
    predictor = Predictor(served_model().path)
    n = len(FINDINGS)
    results = {
        "auroc": dict.fromkeys(FINDINGS, 0.75) | {"Mass": None},
        "mean_auroc": 0.75,
        "mean_auroc_interval": [0.7, 0.8],
        "num_defined": n - 1,
        "num_images": 40,
        "accuracy": 0.9,
        "baseline_accuracy": 0.8,
    }
    predictor.info = dataclasses.replace(
        predictor.info,
        thresholds=(None, *np.linspace(0.2, 0.8, n - 1).tolist()),
        threshold_rule="highest F1 on the validation split",
        calibration={"method": "platt", "slopes": [0.8] * n, "biases": [-0.1] * n},
        split_sizes={split: {"images": 40, "patients": 30} for split in ("train", "val", "test")},
        settings={"epochs": 2, "versions": {"keras": "3"}},
        test_metrics=results,
        test_sets={"test": {"description": "", "views": {}, **results}},
    )
    predictor.head_kernel = predictor.head_kernel.copy()
    predictor.head_kernel[:, FINDINGS.index(EMPTY_FINDING)] = -1  # of features that are never negative
    return predictor


def _closing(application: Callable) -> Callable:
    """Read every answer whole and close it: Werkzeug's server leaves files open where the browser goes away."""

    def answer(environ: dict, start_response: Callable) -> list[bytes]:
        with contextlib.closing(application(environ, start_response)) as body:
            return [b"".join(body)]

    return answer


@contextlib.contextmanager
def running_site(slot: ModelSlot, **options: object) -> Iterator[str]:
    """Serve a site on a free port: yields its address."""
    decoder = Decoder(1)
    server = make_server("127.0.0.1", 0, _closing(site.create_app(slot, decoder, **options)), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        decoder.close()


@contextlib.contextmanager
def running_browser() -> Iterator[object]:
    """Start the system's Chromium, or skip where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed; apt-get install chromium")
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", OTHER_NAMES])
        yield browser
        browser.close()


def watch(page: object) -> list[str]:
    """Collect what must not happen on a page: errors, blocked content, dialogs. Answers of 4xx and 5xx may happen."""
    seen: list[str] = []
    page.on("pageerror", lambda error: seen.append(str(error)))
    page.on("dialog", lambda dialog: (seen.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on(
        "console",
        lambda message: (
            seen.append(message.text)
            if message.type in ("error", "warning") and "the server responded with a status of" not in message.text
            else None
        ),
    )
    return seen
