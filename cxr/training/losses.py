"""The training losses: binary cross-entropy over the known labels, and the box loss on where the evidence lies."""

from collections.abc import Callable

import keras
import numpy as np

BOX_FLOOR = 1e-9  # of a cell's coverage inside the logarithm
MAX_POSITIVE_WEIGHT = 20.0  # a finding with 3 positives in 1000 would otherwise weigh 332 and rule the gradient


def positive_weights(labels: np.ndarray) -> np.ndarray:
    """Weigh each finding's positives so that they count as much as its negatives: negatives / positives, capped.

    One weight per finding and not per image: Keras' `class_weight` takes the argmax of a multi-label row.

    Args:
        labels: (n, findings), NaN where blank; a label between 0 and 1 counts for both sides in its share.
    Returns: float32 (findings,), finite; 1 for a finding without positives or without negatives.
    """
    positives = np.nansum(labels, axis=0)
    negatives = np.nansum(1 - labels, axis=0)
    ratios = np.clip(negatives / np.maximum(positives, 1e-6), 1 / MAX_POSITIVE_WEIGHT, MAX_POSITIVE_WEIGHT)
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


def box_loss(coverage, cells):
    """Ask a finding's evidence to lie in its boxes: minus the log of the share of it that does, over softmax weights.

    Behind global average pooling and one dense layer, logit k is the mean over cells of `features @ W[:, k]` plus the
    bias: the evidence of every cell is known in closed form. A softmax over the cells turns it into shares that sum to
    1, whose gradient, unlike that of rectified evidence, is nowhere zero. Few boxes teach where to look (Li et al.
    2018, "Thoracic Disease Identification and Localization with Limited Supervision"); a finding without box is not
    touched.

    Args:
        coverage: float (n, h, w, findings), the share of each cell inside the finding's boxes; all zero without box.
        cells: float (n, h, w, findings), the dense layer applied to every cell (the bias cancels out).

    Returns:
        A scalar: the sum over the (picture, finding) pairs with boxes, divided by n.
    """
    num_images, height, width, num_findings = cells.shape[0], *coverage.shape[1:3], cells.shape[-1]
    flat = (num_images or -1, height * width, num_findings)
    evidence, inside = keras.ops.reshape(cells, flat), keras.ops.reshape(coverage, flat)
    shares = keras.ops.log_softmax(evidence, axis=1)
    boxed = keras.ops.cast(keras.ops.max(inside, axis=1) > 0, cells.dtype)  # (n, findings)
    # log(sum(inside * softmax)) by log-sum-exp; the floor stands for a cell that is not covered at all.
    log_inside = keras.ops.log(keras.ops.maximum(inside, BOX_FLOOR))
    log_share = keras.ops.logsumexp(shares + log_inside, axis=1)
    return -keras.ops.sum(log_share * boxed) / keras.ops.cast(keras.ops.shape(cells)[0], cells.dtype)
