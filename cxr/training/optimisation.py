"""What a training step minimises, and how it moves the weights.

The losses are binary cross-entropy over the known labels, and the box loss on where the evidence lies; the optimiser
is AdamW.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from cxr.network.densenet import on_tensorflow_cpu

CLIP_NORM = 1.0  # also spreads a NaN of any gradient to every weight, where the check after the batch finds it
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


def make_optimiser(learning_rate: float, weight_decay: float) -> keras.optimizers.Optimizer:
    """Make AdamW with gradients clipped by their common norm; only kernels decay.

    Decoupled Weight Decay Regularization (Loshchilov and Hutter 2019), algorithm 2.
    """
    kind = FusedAdamW if on_tensorflow_cpu() else keras.optimizers.AdamW
    optimiser = kind(learning_rate, weight_decay=weight_decay, global_clipnorm=CLIP_NORM)
    optimiser.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimiser


class FusedAdamW(keras.optimizers.AdamW):
    """AdamW with one operation of TensorFlow per variable, and one more per kernel that decays.

    Keras' own needs twenty, for DenseNet121's 364 variables most of the step's graph and of the time to build it.
    """

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Move all variables and their moments."""
        import tensorflow as tf

        variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        gradients, _ = tf.clip_by_global_norm(grads, self.global_clipnorm)
        rate = tf.cast(self.learning_rate, tf.float32)
        decay, step = rate * self.weight_decay, tf.cast(self.iterations + 1, tf.float32)
        betas = tf.constant(self.beta_1), tf.constant(self.beta_2)
        known = {"lr": rate, "epsilon": tf.constant(self.epsilon)}
        known |= {f"beta{k}": beta for k, beta in enumerate(betas, 1)}
        known |= {f"beta{k}_power": tf.pow(beta, step) for k, beta in enumerate(betas, 1)}
        for variable, gradient in zip(variables, gradients, strict=True):
            if self._use_weight_decay(variable):
                variable.value.assign_sub(decay * variable.value)
            index = self._get_variable_index(variable)
            moments = (self._momentums[index].value.handle, self._velocities[index].value.handle)
            tf.raw_ops.ResourceApplyAdam(var=variable.value.handle, m=moments[0], v=moments[1], grad=gradient, **known)
        self.iterations.assign_add(1)
