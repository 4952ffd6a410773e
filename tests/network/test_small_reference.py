"""The limit of the input check where the validation split is tiny: Student's t of one and two degrees of freedom."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from cxr.network.input_check import upper_limit


@pytest.mark.parametrize(("num_reference", "t"), [(2, 63.657), (3, 9.925), (5, 4.604), (31, 2.750)])
def test_limit_of_few_radiographs_uses_the_exact_quantile(num_reference, t):
    """Oracle: the printed table of Student's t, one-sided 0.5 %."""
    reference = np.linspace(1.5, 2.0, num_reference)
    expected = reference.mean() + t * reference.std(ddof=1) * np.sqrt(1 + 1 / num_reference)
    assert_allclose(upper_limit(reference, 0.005), expected, rtol=1e-4)
