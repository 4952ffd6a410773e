"""How numbers are written: as many decimals as tell a probability from its threshold, and nothing as certain."""

import numpy as np
import pytest

from cxr.metrics.number_text import percent, probability, probability_beside, probability_by, threshold


@pytest.mark.parametrize(
    ("value", "limit", "expected"),
    [
        (0.62, 0.5, ("0.62", "0.50")),
        (0.496, 0.5, ("0.496", "0.500")),
        (0.49996, 0.5, ("0.49996", "0.50000")),
        (0.5, 0.5, ("0.50", "0.50")),
        (0.180, 0.17827, ("0.180", "0.178")),
        (0.0049, 0.5, ("<0.01", "0.50")),
        (0.9951, 0.5, (">0.99", "0.50")),
        (0.3, 0.004, ("0.300", "0.004")),
        (0.3, 0.9996, ("0.3000", "0.9996")),
        (1.0, 1.0, (">0.99", "1.00")),
    ],
)
def test_a_probability_and_its_threshold_show_which_is_larger(value, limit, expected):
    assert probability_beside(value, limit) == expected


def test_a_probability_shows_on_which_side_of_every_threshold_it_lies():
    assert probability_by(0.18, 0.5, 0.17827) == "0.180"
    assert probability_by(0.4996, 0.5, None) == "0.4996"
    assert [probability_by(value) for value in (0.001, 0.5, 0.999)] == ["<0.01", "0.50", ">0.99"]


def test_almost_nothing_and_almost_all_are_not_written_as_nothing_and_all():
    assert [percent(share) for share in (0, 0.004, 0.005, 0.5, 0.994, 0.996, 1)] == [
        *("0 %", "<1 %", "<1 %", "50 %", "99 %", ">99 %", "100 %")
    ]
    assert [probability(value) for value in (0, 0.0049, 0.005, 0.994, 1)] == ["<0.01", "<0.01", "0.01", "0.99", ">0.99"]
    assert [threshold(value) for value in (0, 0.004, 0.5, 0.9999, 1)] == ["0.00", "0.004", "0.50", "0.9999", "1.00"]


def test_single_precision_is_written_as_double():
    for value, limit in ((0.496, 0.5), (0.18, 0.17827), (0.1801, 0.17999), (0.25, 0.25)):
        single = np.float32(value)
        assert probability_beside(single, np.float64(limit)) == probability_beside(float(single), limit)
