"""The network: DenseNet121 with its normalisation inside and one dense layer as its head.

Owns the graph; its file is in model_file, where its weights start from in start_weights.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

MIN_IMAGE_SIZE = 32  # pixels; DenseNet121 halves its input five times

# ImageNet's mean and standard deviation, RGB in 0-1, as keras.applications.densenet.preprocess_input has them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

SMALL_DATA_MOMENTUM = 0.9  # 0.99 lags behind for hundreds of steps: validation then looks random on small data

BFLOAT16_CAPABILITY = (8, 0)  # NVIDIA compute capability; Ampere is the first with bfloat16 matrix units
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}  # of Linux' /proc/cpuinfo: instructions that multiply in bfloat16
PROCESSOR_FILE = Path("/proc/cpuinfo")


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation as one operation of TensorFlow, its input in any precision, its statistics in float32.

    Keras' own is a dozen operations over the whole feature map, all of them in float32: on a CPU more of a training
    step than the convolutions. Same variables and same numbers; a model file holds Keras' own.
    """

    def __init__(self, **config: Any) -> None:
        """Take what `BatchNormalization.get_config` gives."""
        super().__init__(**(config | {"dtype": "float32"}), autocast=False)

    def compute_output_spec(self, inputs: keras.KerasTensor, **_: Any) -> keras.KerasTensor:
        """Return the shape and type of the output: those of the input."""
        return keras.KerasTensor(inputs.shape, inputs.dtype)

    def call(self, inputs: Any, training: bool | None = None, mask: None = None) -> Any:
        """Normalise (n, h, w, channels) by the batch's statistics in training, else by the moving ones."""
        import tensorflow as tf

        if not (training and self.trainable):
            return self._normalise(inputs, tf.convert_to_tensor(self.moving_mean), self.moving_variance, False)[0]
        nothing = tf.constant([], tf.float32)
        normalised, mean, variance = self._normalise(inputs, nothing, nothing, True)
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), tf.float32)
        share = 1.0 - self.momentum
        self.moving_mean.assign(self.momentum * self.moving_mean + share * mean)
        # The operation returns the variance over count - 1; Keras keeps the one over count.
        biased = variance * ((count - 1.0) / count)
        self.moving_variance.assign(self.momentum * self.moving_variance + share * biased)
        return normalised

    def _normalise(self, inputs: Any, mean: Any, variance: Any, is_training: bool) -> Sequence[Any]:
        """Return the output, and the mean and variance that it was made with."""
        import tensorflow as tf

        scale, offset, variance = (tf.convert_to_tensor(one) for one in (self.gamma, self.beta, variance))
        return tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=scale,
            offset=offset,
            mean=mean,
            variance=variance,
            epsilon=self.epsilon,
            is_training=is_training,
        )[:3]


def build_network(
    findings: Sequence[str], image_size: int, batch_norm_momentum: float = 0.99, precision: str = "float32"
) -> keras.Model:
    """Build DenseNet121 for radiographs as one flat graph, with random weights.

    Layers that others look up by name: `relu` (the backbone's last activation), `pooled`, `logits`, `probabilities`.
    Densely Connected Convolutional Networks (Huang et al. 2017); one sigmoid per finding, as in CheXNet
    (Rajpurkar et al. 2017).

    Args:
        findings: names in the order of the outputs.
        image_size: side of the input in pixels.
        batch_norm_momentum: share of the old moving statistics that a training step keeps.
        precision: Keras dtype policy of the backbone, for training; a model file is always float32.
    Returns: a model from (n, size, size, 1), values 0-255, to float32 (n, findings), probabilities.
    Raises:
        ValueError: no findings, or an image too small for the network.
    """
    if not findings or image_size < MIN_IMAGE_SIZE:
        raise ValueError(
            f"The network needs at least one finding and an image size of at least {MIN_IMAGE_SIZE} pixels, received "
            f"{len(findings)} findings and {image_size} pixels."
        )
    radiograph = keras.Input((image_size, image_size, 1), name="radiograph")  # (n, size, size, 1), 0-255
    usual = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        backbone = keras.applications.DenseNet121(input_tensor=_normalise(radiograph), include_top=False, weights=None)
    finally:
        keras.config.set_dtype_policy(usual)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = batch_norm_momentum
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(backbone.output)  # (n, channels)
    # float32 under mixed precision too: the loss and the probabilities need the digits.
    logits = keras.layers.Dense(len(findings), name="logits", dtype="float32")(pooled)  # (n, findings)
    probabilities = keras.layers.Activation("sigmoid", name="probabilities", dtype="float32")(logits)
    return keras.Model(radiograph, probabilities, name="chest_xray_densenet121")


def _normalise(radiograph: keras.KerasTensor) -> keras.KerasTensor:
    """Repeat grey to three channels and apply ImageNet's mean and variance: the one normalisation of the project."""
    rgb = keras.layers.Concatenate(name="grey_to_rgb", dtype="float32")([radiograph, radiograph, radiograph])
    unit = keras.layers.Rescaling(1 / 255, name="to_unit_range", dtype="float32")(rgb)
    variance = [std**2 for std in IMAGENET_STD]
    return keras.layers.Normalization(
        mean=list(IMAGENET_MEAN), variance=variance, name="imagenet_normalisation", dtype="float32"
    )(unit)


def fuse(network: keras.Model) -> keras.Model:
    """Return the network with its weights and fused batch normalisation, for training on a CPU with TensorFlow.

    Elsewhere it is returned as it is: XLA, which compiles the whole step there, fuses by itself.
    """
    if not on_tensorflow_cpu():
        return network

    def fused(layer: keras.layers.Layer) -> keras.layers.Layer:
        if type(layer) is keras.layers.BatchNormalization:
            return FusedBatchNormalization(**layer.get_config())
        return type(layer).from_config(layer.get_config())

    clone = keras.models.clone_model(network, clone_function=fused)
    clone.set_weights(network.get_weights())
    return clone


def is_plain(network: keras.Model) -> bool:
    """Whether a network is what a model file holds: Keras' own layers, in float32."""
    return not any(
        isinstance(layer, FusedBatchNormalization) or layer.compute_dtype != "float32" for layer in network.layers
    )


def on_tensorflow_cpu() -> bool:
    """Whether Keras computes with TensorFlow on the processor."""
    return keras.backend.backend() == "tensorflow" and not keras.distribution.list_devices("gpu")


def choose_precision() -> str:
    """Return the dtype policy that trains fastest here: bfloat16 where CPU or GPU multiplies in it, else float32.

    bfloat16 has float32's range, so that no loss has to be scaled.
    """
    backend = keras.backend.backend()
    if on_tensorflow_cpu():
        return "mixed_bfloat16" if _cpu_multiplies_bfloat16() else "float32"
    if backend == "tensorflow":
        import tensorflow as tf

        details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
        capability = details.get("compute_capability", (0, 0))
    elif backend == "jax" and keras.distribution.list_devices()[0].startswith("gpu"):
        import jax

        capability = tuple(int(part) for part in str(jax.devices()[0].compute_capability).split("."))
    else:
        return "float32"
    return "mixed_bfloat16" if capability >= BFLOAT16_CAPABILITY else "float32"


def _cpu_multiplies_bfloat16() -> bool:
    """Whether the processor has the instructions and TensorFlow uses them, which only its oneDNN kernels do."""
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0" or not PROCESSOR_FILE.is_file():
        return False
    lines = PROCESSOR_FILE.read_text("utf-8", errors="replace").splitlines()
    return any(BFLOAT16_FLAGS & set(line.split()) for line in lines if line.startswith("flags"))
