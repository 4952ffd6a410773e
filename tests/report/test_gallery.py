"""Which cases the report shows, and what it says about them."""

import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from cxr.data.cache import digest_of
from cxr.heatmaps.overlay import overlay_heatmap
from cxr.metrics.per_finding import Predictions
from cxr.report.gallery import choose_cases, make_gallery

FINDINGS = ("Mass", "Pleural_Thickening")


def make_predictions(labels, probabilities):
    images = tuple(f"{row}.png" for row in range(len(labels)))
    probabilities = np.array(probabilities, float)
    return Predictions(
        images, images, FINDINGS, np.array(labels, np.float32), np.log(probabilities / (1 - probabilities))
    )


def test_cases_are_the_surest_of_each_kind_without_doubles():
    nan = float("nan")
    labels = [[1, 1], [1, 0], [0, 1], [nan, 0]]
    probabilities = [[0.9, 0.95], [0.8, 0.7], [0.6, 0.1], [0.99, 0.2]]
    cases = choose_cases(make_predictions(labels, probabilities))
    # Hits: row 0 is surest for finding 1, so that finding 0 goes to row 1. Errors: a miss (0.1), a false alarm (0.6) of
    # the same row is left out, and row 1's false alarm is of the same finding.
    assert cases == [(0, 1), (1, 0), (2, 1)]


def test_cases_need_no_positive_and_no_error():
    assert choose_cases(make_predictions([[0, 0]], [[0.1, 0.2]])) == []


@pytest.mark.parametrize(
    ("label", "probability", "heat", "caption", "hit"),
    [
        (1, 0.75, 1.0, "0.png: Pleural Thickening, labelled present, probability 0.75 (threshold 0.50), "
                       "hottest cell +1 logit (colours end at +4)", True),
        (1, 0.25, 1.0, "0.png: Pleural Thickening, labelled present, probability 0.25 (threshold 0.50), "
                       "hottest cell +1 logit (colours end at +4)", False),
        (0, 0.75, 1.0, "0.png: Pleural Thickening, labelled absent, probability 0.75 (threshold 0.50), "
                       "hottest cell +1 logit (colours end at +4)", False),
        (1, 0.25, 0.0, "0.png: Pleural Thickening, labelled present, probability 0.25 (threshold 0.50), "
                       "no positive evidence", False),
        (1, 0.4996, 0.0, "0.png: Pleural Thickening, labelled present, probability 0.4996 (threshold 0.5000), "
                         "no positive evidence", False),
    ],
)  # fmt: skip
def test_gallery_says_what_is_shown(tmp_path, label, probability, heat, caption, hit):
    radiograph = np.tile(np.arange(80, dtype=np.uint8), (70, 1))
    cv2.imwrite(str(tmp_path / "0.png"), radiograph)
    maps = np.zeros((2, 2, 2), np.float32)
    maps[1, 0, 0], maps[0, 0, 1] = heat, 4  # the other finding's peak ends the scale that they share
    predictions = make_predictions([[0, label]], [[0.5, probability]])
    (picture,) = make_gallery([(0, 1)], [maps], predictions, tmp_path, threshold=0.5)
    assert (picture.caption, picture.hit) == (caption, hit)
    assert picture.overlay.shape == (70, 80, 3)
    coloured = (picture.overlay != radiograph[..., np.newaxis]).any(axis=-1)
    assert not coloured[-5:, -5:].any()  # the cold corner is the radiograph's own
    assert coloured[0, 0] == (heat > 0)
    assert_array_equal(picture.overlay, overlay_heatmap(radiograph, maps[1], peak=4.0))


@pytest.mark.fault("C92")
def test_heat_is_never_laid_over_another_radiograph(tmp_path, caplog):
    """The file may have been exchanged since its pixels went into the cache."""
    cv2.imwrite(str(tmp_path / "0.png"), np.tile(np.arange(80, dtype=np.uint8), (70, 1)))
    content = np.frombuffer(digest_of((tmp_path / "0.png").read_bytes()), np.uint8)
    arguments = [(0, 1)], [np.ones((2, 2, 2), np.float32)], make_predictions([[0, 1]], [[0.5, 0.75]]), tmp_path, 0.5
    assert len(make_gallery(*arguments, [content])) == 1
    cv2.imwrite(str(tmp_path / "0.png"), np.tile(np.arange(80, dtype=np.uint8)[::-1], (70, 1)))
    assert make_gallery(*arguments, [content]) == []
    assert "0.png: left out of the report's pictures: the file has changed" in caplog.text
