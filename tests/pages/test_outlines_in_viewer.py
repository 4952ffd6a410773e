"""Outlines and widths on the page: drawn where the answer says, by switches of their own."""

import numpy as np
import pytest
from browser import running_site, upload_of
from drawn_outlines import DrawnOutlines, drawn_outlines
from page_actions import analyse, exported, text_of

from cxr.anatomy.cardiothoracic import cardiothoracic_ratio
from cxr.anatomy.polygons import polygons_of
from cxr.site.model_slot import ModelSlot

HEIGHT, WIDTH = 220, 180


@pytest.fixture(scope="module")
def address(predictor):
    slot = ModelSlot("here", load=lambda path, precision: predictor)
    slot.predictor, slot.outline_model, slot.state = predictor, DrawnOutlines(), "ready"
    with running_site(slot) as address:
        yield address


@pytest.fixture
def lines(page):
    """Which pixels of the overlay change when switches are set: a function of {tool: checked}."""
    analyse(page, upload_of(7))
    page.uncheck("[data-tool=outlines]")
    bare = exported(page)
    assert bare.shape[:2] == (HEIGHT, WIDTH)

    def changed(**tools):
        for tool, checked in tools.items():
            page.set_checked(f"[data-tool={tool}]", checked)
        return (exported(page) != bare).any(axis=2)

    return changed


def near(points):
    """Where a pixel is within two of one of the points, (n, 2) of x and y in pixels."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return (np.hypot(columns[..., None] - points[:, 0], rows[..., None] - points[:, 1]) < 2.5).any(axis=2)


def points_along(line, count=60):
    """Points along a line through the given ones."""
    ends = np.stack([line[:-1], line[1:]])
    return np.concatenate([ends[0] + share * (ends[1] - ends[0]) for share in np.linspace(0, 1, count)])


def test_outlines_are_drawn_where_the_organs_are(lines):
    drawn = lines(outlines=True)
    polygons = [np.vstack([one, one[:1]]) for found in polygons_of(drawn_outlines()).values() for one in found]
    along = np.concatenate([points_along(one * (WIDTH, HEIGHT), 12) for one in polygons])
    assert not (drawn & ~near(along)).any()
    pixels = np.minimum(along.astype(int), (WIDTH - 1, HEIGHT - 1))
    assert drawn[pixels[:, 1], pixels[:, 0]].mean() > 0.97
    assert not lines(outlines=False).any()


def test_widths_are_drawn_on_demand(lines, page):
    assert not page.is_checked("[data-tool=ratio]")
    drawn = lines(ratio=True)
    ratio = cardiothoracic_ratio(drawn_outlines(), WIDTH, HEIGHT)
    for left, right, y in (ratio.heart, ratio.thorax):
        columns = np.arange(int(left) + 1, int(right) - 1)
        assert drawn[int(y), columns].all()
        assert not drawn[int(y), : int(left) - 3].any()
        assert not drawn[int(y), int(right) + 3 :].any()
    assert f"{ratio.ratio:.2f} of the thorax's width" in text_of(page, "dl.about")


def test_the_radiograph_beside_has_the_same_outlines(lines, page):
    lines(outlines=True)
    page.click("label:has-text('Side by side')")
    page.uncheck("[data-tool=heat]")
    pictures = page.evaluate("[...document.querySelectorAll('.pane canvas')].map((one) => one.toDataURL())")
    assert pictures[0] == pictures[1]
