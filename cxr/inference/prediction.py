"""What a network says about radiographs, as a record; calibrated as its model file says. Needs no Keras."""

from typing import NamedTuple

import numpy as np

from cxr.metrics.calibration import Calibration, calibrate_logits, sigmoid
from cxr.network.model_info import ModelInfo


class Prediction(NamedTuple):
    """What the network says about n model inputs.

    Attributes:
        probabilities, logits: float32 (n, findings).
        features: float32 (n, h, w, channels), the last activation of the backbone.
        calibrated: float64 (n, findings), calibrated probabilities; None where the model file holds no calibration.
    """

    probabilities: np.ndarray
    logits: np.ndarray
    features: np.ndarray
    calibrated: np.ndarray | None


def calibrated_probabilities(info: ModelInfo, logits: np.ndarray) -> np.ndarray | None:
    """Calibrate logits (n, findings) as the model file says: float64 probabilities, None without a calibration."""
    if not info.calibration:
        return None
    calibration = Calibration(tuple(info.calibration["slopes"]), tuple(info.calibration["biases"]))
    return sigmoid(calibrate_logits(logits, calibration))
