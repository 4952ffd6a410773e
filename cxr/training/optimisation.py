"""What a training step minimises, how it moves the weights, and how it is run.

The losses are binary cross-entropy over the known labels, the box loss on where the evidence lies, and the squared
error of a teacher's features; the optimiser is AdamW.
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


def feature_loss(targets, features):
    """Return the mean squared error of a teacher's standardised features; a NaN among the targets adds nothing.

    FitNets (Romero et al. 2015) for the features that a head reads, as Chen et al. 2022 do.

    Args:
        targets, features: float (n, features).
    """
    known = keras.ops.logical_not(keras.ops.isnan(targets))
    error = keras.ops.where(known, targets, features) - features
    count = keras.ops.maximum(keras.ops.sum(keras.ops.cast(known, features.dtype)), 1.0)
    return keras.ops.sum(error * error) / count


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


class TrainingSteps:
    """The training steps of one phase, a batch each, by Keras' `train_on_batch`."""

    def __init__(
        self,
        trained: keras.Model,
        optimiser: keras.optimizers.Optimizer,
        losses: Sequence[Callable],
        shares: Sequence[float],
    ) -> None:
        """Compile the network; which layers are frozen is fixed from here on.

        Args:
            trained: one output per loss; its head is the layer `logits`.
            losses: (targets, output) -> scalar each, summed with the weights `shares`.
        """
        self.trained, self.optimiser, self.losses, self.shares = trained, optimiser, losses, shares
        if len(losses) == 1:
            trained.compile(optimiser, loss=losses[0])
        else:
            trained.compile(optimiser, loss=list(losses), loss_weights=list(shares))
        optimiser.build(trained.trainable_variables)

    def take(self, model_inputs: np.ndarray, targets: Any, rate: float) -> tuple[float, bool]:
        """Move the weights by one batch.

        Args:
            targets: of the one loss, or a tuple with those of each.
            rate: learning rate.
        Returns: the loss before the step, and whether the head's weights are finite after it.
        """
        self.optimiser.learning_rate = rate
        loss = float(np.ravel(self.trained.train_on_batch(model_inputs, targets))[0])  # the others are its parts
        head = self.trained.get_layer("logits").get_weights()
        return loss, all(bool(np.isfinite(weight).all()) for weight in head)

    def settle(self) -> None:
        """Make sure that the variables of network and optimiser hold the last step's values."""


class HeldSteps(TrainingSteps):
    """The same steps on JAX, where weights and optimiser stay in the compiled function's hands from batch to batch.

    `train_on_batch` reads and writes all 1,340 variables of DenseNet121 around every step, which on a GPU takes longer
    than the step. Between `take` and `settle` the variables hold nothing that may be read.
    """

    def __init__(self, *args: Any) -> None:
        """Write the step as a function without side effects, and have JAX compile it at the first batch."""
        super().__init__(*args)
        import jax

        head = {id(variable) for variable in self.trained.get_layer("logits").variables}
        places = [k for k, variable in enumerate(self.trained.trainable_variables) if id(variable) in head]

        def total_loss(trainable, others, model_inputs, targets):
            outputs, others = self.trained.stateless_call(trainable, others, model_inputs, training=True)
            pairs = [(targets, outputs)] if len(self.losses) == 1 else zip(targets, outputs, strict=True)
            losses = [loss(*pair) for loss, pair in zip(self.losses, pairs, strict=True)]
            return sum(share * loss for share, loss in zip(self.shares, losses, strict=True)), others

        def step(state, model_inputs, targets):
            trainable, others, moments = state
            slope = jax.value_and_grad(total_loss, has_aux=True)
            (loss, others), gradients = slope(trainable, others, model_inputs, targets)
            trainable, moments = self.optimiser.stateless_apply(moments, gradients, trainable)
            finite = sum(jax.numpy.sum(~jax.numpy.isfinite(trainable[place])) for place in places) == 0
            return (trainable, others, moments), loss, finite

        self._step = jax.jit(step, donate_argnums=0)
        rate = self.optimiser.learning_rate
        self._rate_place = next(k for k, variable in enumerate(self.optimiser.variables) if variable is rate)
        self._state: tuple[list[Any], list[Any], list[Any]] | None = None

    def _variables(self) -> tuple[list[Any], list[Any], list[Any]]:
        return self.trained.trainable_variables, self.trained.non_trainable_variables, self.optimiser.variables

    def take(self, model_inputs: np.ndarray, targets: Any, rate: float) -> tuple[float, bool]:
        """Move the weights by one batch."""
        if self._state is None:
            self._state = tuple([variable.value for variable in group] for group in self._variables())
        self._state[2][self._rate_place] = np.float32(rate)
        self._state, loss, finite = self._step(self._state, model_inputs, targets)
        return float(loss), bool(finite)

    def settle(self) -> None:
        """Write what the steps hold into the variables."""
        if self._state is None:
            return
        for group, values in zip(self._variables(), self._state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        self._state = None


def make_steps(
    trained: keras.Model,
    optimiser: keras.optimizers.Optimizer,
    losses: Sequence[Callable],
    shares: Sequence[float],
) -> TrainingSteps:
    """Choose how the steps are run; several devices share a batch in Keras' own way alone."""
    alone = keras.backend.backend() == "jax" and keras.distribution.distribution() is None
    return (HeldSteps if alone else TrainingSteps)(trained, optimiser, losses, shares)
