"""The training loss: binary cross-entropy over the labels that are known, plain or weighted per finding."""

from collections.abc import Callable

import keras
import numpy as np

MAX_POSITIVE_WEIGHT = 20.0  # a finding with 3 positives in 1000 would otherwise weigh 332 and rule the gradient


def positive_weights(labels: np.ndarray) -> np.ndarray:
    """Weigh each finding's positives so that they count as much as its negatives: negatives / positives, capped.

    One weight per finding and not per image: Keras' `class_weight` takes the argmax of a multi-label row.

    Args:
        labels: (n, findings), NaN where blank.
    Returns: float32 (findings,), finite; 1 for a finding without positives or without negatives.
    """
    positives = (labels == 1).sum(axis=0)
    negatives = (labels == 0).sum(axis=0)
    ratios = np.clip(negatives / np.maximum(positives, 1), 1 / MAX_POSITIVE_WEIGHT, MAX_POSITIVE_WEIGHT)
    return np.where((positives > 0) & (negatives > 0), ratios, 1.0).astype(np.float32)


def make_loss(weights: np.ndarray | None = None) -> Callable:
    """Make the loss function that Keras compiles: (labels, logits) -> scalar.

    Computed from logits, where no probability can round to 0 or 1 and its logarithm to infinity. A blank label (NaN)
    adds nothing, neither to the sum nor to the count.

    Args:
        weights: of `positive_weights`, or None for plain binary cross-entropy.
    """

    def masked_binary_crossentropy(labels, logits):
        known = keras.ops.logical_not(keras.ops.isnan(labels))
        present = keras.ops.where(known, labels, keras.ops.zeros_like(labels))
        positive_loss, negative_loss = keras.ops.softplus(-logits), keras.ops.softplus(logits)
        if weights is not None:
            positive_loss = positive_loss * weights
        cells = present * positive_loss + (1.0 - present) * negative_loss
        known = keras.ops.cast(known, cells.dtype)
        return keras.ops.sum(cells * known) / keras.ops.maximum(keras.ops.sum(known), 1.0)

    return masked_binary_crossentropy
