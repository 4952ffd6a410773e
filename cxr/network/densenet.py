"""The network: DenseNet121 with its normalisation inside and one dense layer as its head.

Owns the graph; its file is in model_file, where its weights start from in start_weights.
"""

from collections.abc import Sequence

import keras

MIN_IMAGE_SIZE = 32  # pixels; DenseNet121 halves its input five times

# ImageNet's mean and standard deviation, RGB in 0-1, as keras.applications.densenet.preprocess_input has them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

SMALL_DATA_MOMENTUM = 0.9  # 0.99 lags behind for hundreds of steps: validation then looks random on small data

BFLOAT16_CAPABILITY = (8, 0)  # NVIDIA compute capability; Ampere is the first with bfloat16 matrix units


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


def choose_precision() -> str:
    """Return the dtype policy that trains fastest here: bfloat16 on a GPU that computes in it, else float32.

    bfloat16 has float32's range, so that no loss has to be scaled. On the CPU it gains nothing in training.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow" and keras.distribution.list_devices("gpu"):
        import tensorflow as tf

        details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
        capability = details.get("compute_capability", (0, 0))
    elif backend == "jax" and keras.distribution.list_devices()[0].startswith("gpu"):
        import jax

        capability = tuple(int(part) for part in str(jax.devices()[0].compute_capability).split("."))
    else:
        return "float32"
    return "mixed_bfloat16" if capability >= BFLOAT16_CAPABILITY else "float32"
