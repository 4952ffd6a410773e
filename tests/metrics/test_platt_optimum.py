"""The fit of the calibration finds the one minimum of its penalised loss."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from cxr.metrics.calibration import BIAS_PRECISION, MIN_SLOPE, SLOPE_PRECISION, fit_calibration

ROOT = Path(__file__).resolve().parents[2]


def newton(logits, labels):
    """Oracle: Newton's method on slope and bias, with halved steps."""
    design = np.stack([logits, np.ones_like(logits)], axis=1)
    precisions, prior = np.array([SLOPE_PRECISION, BIAS_PRECISION]), np.array([1.0, 0.0])

    def loss(one):
        scores = design @ one
        return (np.logaddexp(0, scores) - labels * scores).sum() + (precisions * (one - prior) ** 2).sum() / 2

    parameters = prior
    for _ in range(100):
        probabilities = 1 / (1 + np.exp(-design @ parameters))
        gradient = design.T @ (probabilities - labels) + precisions * (parameters - prior)
        curvature = (design.T * (probabilities * (1 - probabilities))) @ design + np.diag(precisions)
        step = np.linalg.solve(curvature, gradient)
        while loss(parameters - step) > loss(parameters) and np.abs(step).max() > 1e-12:
            step = step / 2
        parameters = parameters - step
    return parameters


@pytest.mark.parametrize("scale", [0.3, 1.0, 8.0])
@pytest.mark.parametrize("num_rows", [30, 400])
def test_fit_is_the_minimum_of_the_penalised_loss(num_rows, scale):
    rng = np.random.default_rng(num_rows)
    labels = (rng.random((num_rows, 1)) < 0.3).astype(float)
    logits = scale * (2 * labels - 1 + rng.normal(size=labels.shape))
    calibration = fit_calibration(labels, logits)
    slope, bias = newton(logits[:, 0], labels[:, 0])
    own_slope, own_bias = newton(slope * logits[:, 0] + bias, labels[:, 0])
    assert_allclose(calibration.slopes, [own_slope * slope], rtol=1e-6)
    assert_allclose(calibration.biases, [own_slope * bias + own_bias], rtol=1e-6, atol=1e-7)


def test_a_finding_ranked_backwards_is_flattened_to_the_bound():
    labels = np.array([[0.0]] * 50 + [[1.0]] * 50)
    calibration = fit_calibration(labels, np.where(labels == 1, -3.0, 3.0))
    assert 0 < calibration.slopes[0] <= MIN_SLOPE


def test_serving_needs_no_scipy_for_calibrated_probabilities():
    program = (
        "import sys, cxr.metrics.calibration, cxr.network.input_check; "
        "print('scipy.stats' in sys.modules, 'scipy.optimize' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "False"]
