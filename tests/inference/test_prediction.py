"""A prediction carries its calibrated probabilities, so that every front end has them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from cxr.inference.prediction import calibrated_probabilities
from cxr.network.model_info import ModelInfo

ROOT = Path(__file__).resolve().parents[2]
PLATT = {"method": "platt", "slopes": [0.5, 2.0], "biases": [-1.0, 0.25]}


def test_calibrated_probabilities_follow_the_model_files_slopes_and_biases():
    """Oracle: the logistic function of slope * logit + bias, written out."""
    logits = np.array([[0.0, 1.0], [-3.0, 40.0]], np.float32)
    expected = 1 / (1 + np.exp(-np.array([[-1.0, 2.25], [-2.5, 80.25]])))
    found = calibrated_probabilities(ModelInfo(("A", "B"), 64, calibration=PLATT), logits)
    assert found.dtype == np.float64
    assert_allclose(found, expected, rtol=1e-12)


def test_without_a_calibration_there_are_none():
    assert calibrated_probabilities(ModelInfo(("A", "B"), 64), np.zeros((1, 2))) is None


def test_the_shipped_models_predictions_are_calibrated():
    """Oracle: the model file's own numbers, applied to the logits of the same call."""
    pytest.importorskip("openvino")
    program = """
import os
os.environ["KERAS_BACKEND"] = "openvino"
import numpy as np
from cxr.inference.predictor import Predictor
predictor = Predictor("model/chest_xray_densenet_model.h5")
size = predictor.info.image_size
said = predictor.predict(np.random.default_rng(0).integers(0, 256, (2, size, size, 1), np.uint8))
plain = predictor.info.calibration
scores = said.logits.astype(float) * plain["slopes"] + np.array(plain["biases"])
print(said.calibrated.shape == said.probabilities.shape)
print(np.abs(said.calibrated - 1 / (1 + np.exp(-scores))).max() < 1e-12)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
