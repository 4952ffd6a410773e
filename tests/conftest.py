"""Fixtures of the tests that look at the pages in a browser."""

import pytest
from browser import make_predictor, running_browser


@pytest.fixture(scope="module")
def browser():
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def predictor(browser):
    """The small model; where there is no browser, the test is skipped before it is loaded."""
    return make_predictor()
