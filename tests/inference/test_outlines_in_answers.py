"""Outlines as a part of an answer: there where a model for them is asked, and no answer is lost when it fails."""

import numpy as np
import pytest
from quick_site import StandIn

from cxr.anatomy.outlines import Outlines
from cxr.heatmaps.explanation import explain

RADIOGRAPH = np.tile(np.arange(90, dtype=np.uint8), (70, 1))


class Halves:
    """Outlines whatever it is given: the halves of the picture as lungs."""

    def outline(self, radiograph):
        assert radiograph is RADIOGRAPH
        labels = np.ones((8, 8), np.uint8)
        labels[:, 4:] = 2
        return Outlines(labels, np.zeros((8, 8), bool), True, False, "No heart was found.")


class Failing:
    def outline(self, radiograph):
        raise RuntimeError("the request failed")


def test_answers_have_outlines_where_a_model_for_them_is_asked():
    assert explain(StandIn(), RADIOGRAPH).outlines is None
    answer = explain(StandIn(), RADIOGRAPH, outline_model=Halves())
    np.testing.assert_array_equal(answer.outlines.labels[0], [1, 1, 1, 1, 2, 2, 2, 2])
    np.testing.assert_array_equal(answer.heatmaps, explain(StandIn(), RADIOGRAPH).heatmaps)


def test_an_answer_goes_out_without_the_outlines_that_failed(caplog):
    answer = explain(StandIn(), RADIOGRAPH, outline_model=Failing(), maps_required=False)
    assert answer.outlines is None
    assert answer.heatmaps is not None
    assert "The outlines failed; the answer goes out without them." in caplog.text
    with pytest.raises(RuntimeError, match="the request failed"):
        explain(StandIn(), RADIOGRAPH, outline_model=Failing())
