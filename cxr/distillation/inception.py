"""InceptionV3 for grey pictures: its graph, alone or with a head for findings, and its weights put in their places.

Rethinking the Inception Architecture for Computer Vision (Szegedy et al. 2016), as keras.applications has it, but with
a scale in every batch normalisation, which the fused one needs. The convolutions are named `conv_0` to `conv_93` in the
order of their creation, their normalisations `norm_0` to `norm_93`; layers that others look up are named as in
`build_network`: `relu` (the last feature map), `pooled`, `logits`, `probabilities`. Google's archive of 2015 takes
maxima where the last block averages here: 192 of the 2,048 pooled features are others than it has learned.
"""

from collections.abc import Sequence

import keras

from cxr.distillation.inception_weights import BACKBONE, CURE, NUM_CONVOLUTIONS, Convolution, number_in
from cxr.network.model_info import ModelFileError

MIN_TEACHER_SIZE = 75  # pixels, the least that keras.applications.InceptionV3 takes
MAP_LAYER = "mixed7"  # the last feature map before its last reduction, 768 channels


def build_inception(image_size: int, precision: str = "float32") -> keras.Model:
    """Build InceptionV3 without a head for grey pictures, with random weights.

    Args:
        image_size: side of the input in pixels.
        precision: Keras dtype policy of the layers.
    Returns: a model from (n, size, size, 1), values 0-255, to float32 (n, h, w, 768), the map `mixed7`, and float32
        (n, 2048), the last features pooled.
    """
    radiograph, feature_map, pooled = _graph(image_size, precision)
    return _with_scales(keras.Model(radiograph, [feature_map, pooled], name="inception_v3"))


def build_teacher(
    findings: Sequence[str], image_size: int, batch_norm_momentum: float = 0.99, precision: str = "float32"
) -> keras.Model:
    """Build InceptionV3 with a head for findings, with random weights, in the place of `build_network`.

    Args:
        findings: names in the order of the outputs.
        image_size: side of the input in pixels.
        batch_norm_momentum: share of the old moving statistics that a training step keeps.
        precision: Keras dtype policy of all but the head.
    Returns: a model from (n, size, size, 1), values 0-255, to float32 (n, findings), probabilities.
    Raises:
        ValueError: no findings, or an image too small for the network.
    """
    if not findings or image_size < MIN_TEACHER_SIZE:
        raise ValueError(
            f"A teacher needs at least one finding and an image size of at least {MIN_TEACHER_SIZE} pixels, received "
            f"{len(findings)} findings and {image_size} pixels."
        )
    radiograph, _, pooled = _graph(image_size, precision)
    logits = keras.layers.Dense(len(findings), name="logits", dtype="float32")(pooled)
    probabilities = keras.layers.Activation("sigmoid", name="probabilities", dtype="float32")(logits)
    return _with_scales(keras.Model(radiograph, probabilities, name="chest_xray_inception_v3"), batch_norm_momentum)


def _graph(image_size: int, precision: str) -> tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor]:
    """Return the flat graph's input, its map `mixed7` and its last features pooled; both are float32."""
    radiograph = keras.Input((image_size, image_size, 1), name="radiograph")  # (n, size, size, 1), 0-255
    rgb = keras.layers.Concatenate(name="grey_to_rgb", dtype="float32")([radiograph, radiograph, radiograph])
    scaled = keras.layers.Rescaling(1 / 127.5, -1.0, name="to_signed_unit_range", dtype="float32")(rgb)  # -1 to 1
    usual = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        backbone = keras.applications.InceptionV3(input_tensor=scaled, include_top=False, weights=None)
    finally:
        keras.config.set_dtype_policy(usual)
    middle = backbone.get_layer(MAP_LAYER).output
    feature_map = keras.layers.Activation("linear", name="map", dtype="float32")(middle)
    features = keras.layers.Activation("linear", name="relu", dtype="float32")(backbone.output)  # (n, h, w, 2048)
    return radiograph, feature_map, keras.layers.GlobalAveragePooling2D(name="pooled", dtype="float32")(features)


def _with_scales(network: keras.Model, momentum: float = 0.99) -> keras.Model:
    """Rebuild the network with a scale in every batch normalisation, and with names that no session changes."""
    names = {}
    for kind, name in ((keras.layers.Conv2D, "conv"), (keras.layers.BatchNormalization, "norm")):
        created = sorted((one.name for one in network.layers if isinstance(one, kind)), key=number_in)
        names |= {old: f"{name}_{place}" for place, old in enumerate(created)}

    def rebuilt(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config() | {"name": names.get(layer.name, layer.name)}
        if isinstance(layer, keras.layers.BatchNormalization):
            config |= {"scale": True, "momentum": momentum}
        return type(layer).from_config(config)

    return keras.models.clone_model(network, clone_function=rebuilt)


def set_weights(network: keras.Model, convolutions: Sequence[Convolution], source: str) -> None:
    """Give a network its weights; a head stays random.

    Args:
        network: from `build_inception` or `build_teacher`; changed in place.
        convolutions: from `read_inception_weights`.
        source: what messages call the file.
    Raises:
        ModelFileError: they are of another network.
    """
    for place, weights in enumerate(convolutions):
        conv, norm = network.get_layer(f"conv_{place}"), network.get_layer(f"norm_{place}")
        expected = [tuple(variable.shape) for layer in (conv, norm) for variable in layer.weights]
        found = [array.shape for array in weights]
        if found != expected:
            raise ModelFileError(
                f"{source}: convolution {place + 1} of {NUM_CONVOLUTIONS} has weights of shape {found}, expected "
                f"{expected} of {BACKBONE}. {CURE}"
            )
        conv.set_weights([weights.kernel])
        norm.set_weights(list(weights[1:]))
