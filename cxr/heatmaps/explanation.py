"""What the model says about one radiograph and where it looked, and the words for it.

Owns the record, how it comes about, and its sentences; the formula behind the heatmaps is in cxr.heatmaps.gradcam.
"""

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from cxr.anatomy.outlines import Outlines
from cxr.heatmaps.gradcam import heatmaps
from cxr.heatmaps.places import Place, places_of
from cxr.imaging.radiograph import to_model_input
from cxr.network.input_check import check_inputs
from cxr.network.model_info import ModelInfo

if TYPE_CHECKING:
    from cxr.anatomy.outline_model import OutlineModel

INPUT_CHECK_LIMIT = 1.0  # above it a picture is too unlike the training radiographs
INPUT_CHECK_WARNING = "This picture is unlike the radiographs that the model was trained on. Do not trust the result."

logger = logging.getLogger(__name__)

Part = TypeVar("Part")


class Predicts(Protocol):
    """What predicts: in this project `cxr.inference.predictor.Predictor`.

    Attributes:
        info: of the model.
        head_kernel: float32 (channels, findings), of the dense layer behind the features.
    """

    info: ModelInfo
    head_kernel: np.ndarray

    def predict(self, model_inputs: np.ndarray) -> Any:
        """Return features, logits, probabilities and calibrated ones, as attributes, of uint8 (n, size, size, 1)."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """What the model says about one radiograph, and where it looked.

    Attributes:
        probabilities, logits: float32 (findings,).
        calibrated: float64 (findings,), calibrated probabilities; None where the model file holds no calibration.
        heatmaps: float32 (findings, h, w) >= 0, in logit units: what each cell adds to its finding's logit;
            None where they could not be computed.
        input_check: how unlike the training radiographs this one is, as a multiple of the limit that about 1 % of
            radiographs like the validation split's exceed; None where the model file holds no statistics.
        source: position in ModelInfo's sources of the one that the radiograph resembles; None as above.
        outlines: lungs and heart; None where no outline model was asked, or where it failed.
    """

    probabilities: np.ndarray
    logits: np.ndarray
    calibrated: np.ndarray | None
    heatmaps: np.ndarray | None
    input_check: float | None
    source: int | None = None
    outlines: Outlines | None = None

    @property
    def fails_input_check(self) -> bool:
        """Whether the radiograph is so unlike the training radiographs that the answer should not be trusted."""
        return self.input_check is not None and self.input_check > INPUT_CHECK_LIMIT

    @functools.cached_property
    def places(self) -> list[Place | None]:
        """Where each heatmap's heat lies; None without heat, heatmaps or credible lungs."""
        if self.heatmaps is None or self.outlines is None:
            return [None] * len(self.probabilities)
        return places_of(self.heatmaps, self.outlines)


def explain(
    predictor: Predicts,
    radiograph: np.ndarray,
    *,
    outline_model: "OutlineModel | None" = None,
    maps_required: bool = True,
) -> Explanation:
    """Answer for one radiograph, uint8 (height, width): one forward pass, all heatmaps, and the outlines if asked for.

    Args:
        outline_model: outlines lungs and heart; None for an answer without them.
        maps_required: raise where the heatmaps or the outlines fail; else log it and answer without them.
    """
    model_input = to_model_input(radiograph, predictor.info.image_size)
    prediction = predictor.predict(model_input[np.newaxis])
    features, kernel = prediction.features, predictor.head_kernel
    maps = _attempt(lambda: heatmaps(features, kernel)[0], "heatmaps", required=maps_required)
    outlines = None
    if outline_model is not None:
        outlines = _attempt(lambda: outline_model.outline(radiograph), "outlines", required=maps_required)
    pooled = prediction.features.mean(axis=(1, 2))
    checked = check_inputs(predictor.info.sources, model_input[np.newaxis], pooled)
    input_check, source = (None, None) if checked is None else (float(checked[0][0]), int(checked[1][0]))
    return Explanation(
        probabilities=prediction.probabilities[0],
        logits=prediction.logits[0],
        calibrated=None if prediction.calibrated is None else prediction.calibrated[0],
        heatmaps=maps,
        input_check=input_check,
        source=source,
        outlines=outlines,
    )


def _attempt(make: Callable[[], Part], what: str, *, required: bool) -> Part | None:
    """Make a part of an answer; where it fails and is not required, log it and do without."""
    try:
        return make()
    except (ArithmeticError, MemoryError, RuntimeError, TypeError, ValueError):  # all that NumPy and OpenVINO raise
        if required:
            raise
        logger.exception("The %s failed; the answer goes out without them.", what)
        return None


def results_that_apply(info: ModelInfo, explanation: Explanation) -> str | None:
    """Return the name of the test set whose results say how far to trust an answer; None where none does.

    That of the source that the radiograph resembles. Radiographs of no named source are answered for by the test split,
    where that is of no named source either.
    """
    if explanation.fails_input_check or not info.test_sets:
        return None
    main = next(iter(info.test_sets))
    if explanation.source is None:
        return main
    name = info.sources[explanation.source].name
    if name in info.test_sets:
        return name
    return main if main not in {source.name for source in info.sources} else None


def common_peak(heatmaps: np.ndarray) -> float:
    """Return the largest value of all maps (findings, h, w) of a picture: the end of the scale that they share."""
    return float(heatmaps.max())


def describe_heatmap(heatmap: np.ndarray, logit: float) -> str:
    """Say how strong the evidence is, whatever the colours show: it may be small beside the logit."""
    peak = float(heatmap.max())
    if peak == 0:
        return "no positive evidence, nothing is coloured"
    return f"hottest cell adds {peak:+.2g} to a logit of {logit:+.2g}"


def rank_findings(probabilities: np.ndarray) -> list[int]:
    """Return the positions of the findings, most probable first; equal ones in the finding order."""
    return np.argsort(-probabilities, kind="stable").tolist()


def above_threshold(info: ModelInfo, explanation: Explanation) -> list[int]:
    """Return the positions of the findings whose probability reaches the default threshold, most probable first."""
    return [k for k in rank_findings(explanation.probabilities) if explanation.probabilities[k] >= info.threshold]
