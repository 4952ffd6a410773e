"""What the model says about one radiograph, and the words for it.

Owns the record and its sentences; the method behind the heatmaps is gradcam's work.
"""

from dataclasses import dataclass

import numpy as np

UNUSUAL_TEXT = "This picture is unlike the radiographs that the model was trained on. Do not trust the result."


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


def describe_heatmap(heatmap: np.ndarray, logit: float) -> str:
    """Say what the colours stand for: the scale ends at this map's own peak, which may be small beside the logit."""
    peak = float(heatmap.max())
    if peak == 0:
        return "no positive evidence, nothing is coloured"
    return f"hottest cell adds {peak:+.2g} to a logit of {logit:+.2g}"


def rank_findings(probabilities: np.ndarray) -> list[int]:
    """Return the positions of the findings, most probable first; equal ones in the finding order."""
    return np.argsort(-probabilities, kind="stable").tolist()
