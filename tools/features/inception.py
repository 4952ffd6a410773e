"""InceptionV3 as a teacher of features: its graph for grey pictures, and its weights put in their places."""

from collections.abc import Sequence

import keras

from cxr.network.model_info import ModelFileError
from tools.features.inception_weights import CURE, NUM_CONVOLUTIONS, TEACHER, Convolution, number_in

MIN_TEACHER_SIZE = 75  # pixels, the least that keras.applications.InceptionV3 takes
MAP_LAYER = "mixed7"  # the last feature map before its last reduction, 768 channels


def build_teacher(image_size: int, precision: str = "float32") -> keras.Model:
    """Build InceptionV3 without its head for grey pictures, with random weights.

    Rethinking the Inception Architecture for Computer Vision (Szegedy et al. 2016), as keras.applications has it, but
    with a scale in every batch normalisation, which the fused one needs. The convolutions are named `conv_0` to
    `conv_93` in the order of their creation, their normalisations `norm_0` to `norm_93`. Google's archive of 2015 takes
    maxima where the last block averages here: 192 of the 2,048 pooled features are others than it has learned.

    Args:
        image_size: side of the input in pixels.
        precision: Keras dtype policy of the layers.
    Returns: a model from (n, size, size, 1), values 0-255, to float32 (n, h, w, 768), the map `mixed7`, and float32
        (n, 2048), the last features pooled.
    """
    grey = keras.Input((image_size, image_size, 1), name="picture")  # (n, size, size, 1), 0-255
    rgb = keras.layers.Concatenate(name="grey_to_rgb", dtype="float32")([grey, grey, grey])
    scaled = keras.layers.Rescaling(1 / 127.5, -1.0, name="to_signed_unit_range", dtype="float32")(rgb)  # -1 to 1
    usual = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        backbone = keras.applications.InceptionV3(input_tensor=scaled, include_top=False, weights=None)
    finally:
        keras.config.set_dtype_policy(usual)
    middle = backbone.get_layer(MAP_LAYER).output
    feature_map = keras.layers.Activation("linear", name="map", dtype="float32")(middle)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled", dtype="float32")(backbone.output)
    return _with_scales(keras.Model(grey, [feature_map, pooled], name="teacher_inception_v3"))


def _with_scales(network: keras.Model) -> keras.Model:
    """Rebuild the network with a scale in every batch normalisation, and with names that no session changes."""
    names = {}
    for kind, name in ((keras.layers.Conv2D, "conv"), (keras.layers.BatchNormalization, "norm")):
        created = sorted((one.name for one in network.layers if isinstance(one, kind)), key=number_in)
        names |= {old: f"{name}_{place}" for place, old in enumerate(created)}

    def rebuilt(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config() | {"name": names.get(layer.name, layer.name)}
        if isinstance(layer, keras.layers.BatchNormalization):
            config |= {"scale": True}
        return type(layer).from_config(config)

    return keras.models.clone_model(network, clone_function=rebuilt)


def set_weights(network: keras.Model, convolutions: Sequence[Convolution], source: str) -> None:
    """Give a teacher its weights.

    Args:
        network: from `build_teacher`; changed in place.
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
                f"{expected} of {TEACHER}. {CURE}"
            )
        conv.set_weights([weights.kernel])
        norm.set_weights(list(weights[1:]))
