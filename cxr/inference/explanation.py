"""What the model says about one radiograph and where it looked, and the words for it.

Owns the record, how it comes about, and its sentences; the formula behind the heatmaps is in cxr.heatmaps.gradcam.
"""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cxr.heatmaps.gradcam import heatmaps
from cxr.imaging.radiograph import to_model_input
from cxr.network.input_check import layout_features, novelty
from cxr.network.model_info import ModelInfo

if TYPE_CHECKING:
    from cxr.inference.predictor import Predictor

UNUSUAL_TEXT = "This picture is unlike the radiographs that the model was trained on. Do not trust the result."

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Explanation:
    """What the model says about one radiograph, and where it looked.

    Attributes:
        probabilities, logits: float32 (findings,).
        heatmaps: float32 (findings, h, w) >= 0, in logit units: what each cell adds to its finding's logit;
            None where they could not be computed.
        novelty: how far the radiograph lies from the training radiographs, as a multiple of the limit that about 1 %
            of radiographs like the validation split's exceed; None where the model file holds no statistics.
    """

    probabilities: np.ndarray
    logits: np.ndarray
    heatmaps: np.ndarray | None
    novelty: float | None

    @property
    def unusual(self) -> bool:
        """Whether the radiograph is so unlike the training radiographs that the answer should not be trusted."""
        return self.novelty is not None and self.novelty > 1


def explain(predictor: "Predictor", radiograph: np.ndarray, *, maps_required: bool = True) -> Explanation:
    """Answer for one radiograph, uint8 (height, width): one forward pass, all heatmaps.

    Args:
        maps_required: raise where the heatmaps fail; else log it and answer without them.
    """
    model_input = to_model_input(radiograph, predictor.info.image_size)
    probabilities, logits, features = predictor.predict(model_input[np.newaxis])
    try:
        maps = heatmaps(features, predictor.head_kernel)[0]
    except (ArithmeticError, MemoryError, RuntimeError, TypeError, ValueError):  # all that NumPy raises
        if maps_required:
            raise
        logger.exception("The heatmaps failed; the answer goes out without them.")
        maps = None
    unlike = measure_novelty(predictor.info, model_input[np.newaxis], features.mean(axis=(1, 2)))
    return Explanation(probabilities[0], logits[0], maps, None if unlike is None else float(unlike[0]))


def measure_novelty(info: ModelInfo, model_inputs: np.ndarray, pooled: np.ndarray) -> np.ndarray | None:
    """Measure how unlike the training radiographs model inputs are, from them and their pooled features.

    Args:
        model_inputs: uint8 (n, size, size, 1).
        pooled: float (n, channels).

    Returns:
        float32 (n,), above 1 where the answer should not be trusted; None where the model file holds no statistics.
    """
    aspects = [(info.feature_statistics, pooled), (info.layout_statistics, layout_features(model_inputs))]
    known = [(statistics, rows) for statistics, rows in aspects if statistics is not None]
    return novelty(known) if known else None


def describe_heatmap(heatmap: np.ndarray, logit: float) -> str:
    """Say what the colours stand for: the scale ends at this map's own peak, which may be small beside the logit."""
    peak = float(heatmap.max())
    if peak == 0:
        return "no positive evidence, nothing is coloured"
    return f"hottest cell adds {peak:+.2g} to a logit of {logit:+.2g}"


def rank_findings(probabilities: np.ndarray) -> list[int]:
    """Return the positions of the findings, most probable first; equal ones in the finding order."""
    return np.argsort(-probabilities, kind="stable").tolist()
