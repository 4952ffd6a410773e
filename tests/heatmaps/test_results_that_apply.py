"""Which test set's results an answer is trusted by: that of the source that the picture resembles, or none."""

import dataclasses

import numpy as np
import pytest

from cxr.heatmaps.explanation import Explanation, results_that_apply
from cxr.network.input_check import Source
from cxr.network.model_info import ModelInfo

REAL, PHANTOM, REST = Source("nih"), Source("phantom"), Source("")


def answer(source, input_check=0.4):
    return Explanation(np.array([0.5]), np.array([0.0]), None, None, input_check, source)


def info(sources, *test_sets):
    return ModelInfo(("Mass",), 64, sources=sources, test_sets={name: {} for name in test_sets})


@pytest.mark.parametrize(
    ("sources", "test_sets", "source", "expected"),
    [
        ((REAL, PHANTOM), ("nih", "phantom"), 0, "nih"),
        ((REAL, PHANTOM), ("nih", "phantom"), 1, "phantom"),
        ((REAL, PHANTOM), ("phantom", "nih"), 0, "nih"),  # whatever their order
        ((REST,), ("test",), 0, "test"),  # one source without a name: the test split
        ((REST, PHANTOM), ("test", "phantom"), 0, "test"),
        ((REST, PHANTOM), ("phantom",), 0, None),  # the phantom's results say nothing of the others
        ((REST,), ("test", "elsewhere"), 0, "test"),
        ((), ("test",), None, "test"),  # a file without statistics cannot tell
        ((REST,), (), 0, None),
    ],
)
def test_results_are_those_of_the_resembled_source(sources, test_sets, source, expected):
    assert results_that_apply(info(sources, *test_sets), answer(source)) == expected


def test_no_results_apply_where_the_picture_is_unlike_the_training_radiographs():
    known = info((REAL, PHANTOM), "nih", "phantom")
    assert results_that_apply(known, answer(0, input_check=1.0)) == "nih"
    assert results_that_apply(known, answer(0, input_check=1.01)) is None
    assert results_that_apply(dataclasses.replace(known, test_sets={}), answer(0)) is None
