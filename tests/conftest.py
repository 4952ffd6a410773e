"""Fixtures and options for all tests."""

import signal

import cv2
import numpy as np
import pytest
from browser import make_predictor, running_browser


def pytest_addoption(parser):
    parser.addoption("--fault", metavar="ID", help="run only the tests of one row of docs/reliability.md")


def pytest_configure():
    """Where `nohup` has SIGHUP ignored, outlive it by a handler instead: what is ignored, tests' programs inherit."""
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


def pytest_xdist_auto_num_workers(config):
    """Run the whole suite in two processes, which halves its time; chosen files and tests run in this one."""
    return 2 if config.args_source is config.ArgsSource.TESTPATHS else 0


def pytest_collection_modifyitems(config, items):
    fault = config.getoption("--fault")
    if fault:
        chosen = [item for item in items if any(fault in mark.args for mark in item.iter_markers("fault"))]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


@pytest.fixture(scope="module")
def browser():
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def predictor(browser):
    """The small model; where there is no browser, the test is skipped before it is loaded."""
    return make_predictor()


@pytest.fixture
def image_dir(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for k in range(5):
        smooth = cv2.resize(rng.integers(0, 256, (5, 5), np.uint8), (90, 80), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(tmp_path / "images" / f"{k}.png"), smooth)
    return tmp_path / "images"
