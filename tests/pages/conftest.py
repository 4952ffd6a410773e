"""A running site and a page of it, for the tests in a real browser; a module may have its own of either."""

import pytest
from browser import running_site, watch

from cxr.site.model_slot import ModelSlot


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
