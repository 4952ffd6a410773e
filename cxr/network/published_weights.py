"""DenseNet121 weights that were published for PyTorch, read and brought into this project's network.

Owns the names and the layout of torchvision's DenseNet121, which timm and TorchXRayVision share, and the folding of a
foreign normalisation into the first convolution. NumPy alone; files are treated as hostile.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxr.network.densenet import IMAGENET_MEAN, IMAGENET_STD
from cxr.network.model_info import ModelFileError
from cxr.network.pickle_machine import PickleError
from cxr.network.torch_pickle import TorchTensor, is_torch_file, open_torch_file
from cxr.system.file_search import SPECIAL_FILE, is_special

if TYPE_CHECKING:
    import keras

MAX_FILE_BYTES = 1_000_000_000  # a checkpoint with an optimiser's two copies has 85 MB
MAX_HEADER_BYTES = 10_000_000  # of a safetensors file; DenseNet121's has 0.1 MB
SUFFIXES = (".safetensors", ".pt", ".pth")  # what is named so is told what is wrong with it in these formats' words
MAX_OUTPUTS = 100_000  # the largest published heads are ImageNet's 21,841 classes
NUM_SHOWN = 3  # names in a message
READABLE_DTYPES = ("F16", "F32", "F64")  # safetensors' names

# Densely Connected Convolutional Networks (Huang et al. 2017), table 1, DenseNet-121 with growth rate 32.
BLOCKS = (6, 12, 24, 16)
GROWTH, BOTTLENECK, STEM_CHANNELS = 32, 128, 64
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")  # Keras' gamma, beta, moving mean and variance

CHECKPOINT_KEYS = ("model", "state_dict", "model_state_dict")  # under which training scripts keep the weights
# Buffers that are no weights: a count of training steps, and TorchXRayVision's operating points.
IGNORED = re.compile(r"(^|\.)(num_batches_tracked|op_threshs)$")
# Names of before PyTorch 0.4: "denselayer1.norm.1.weight" (torchvision/models/densenet.py renames them the same way).
OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
FIRST = "features.conv0.weight"
USUAL = IMAGENET_MEAN, IMAGENET_STD
SINGLE_CHANNEL = (0.5,), (1 / 2048,)  # TorchXRayVision's: pixels of -1024 to 1024


@dataclass(frozen=True)
class LazyTensor:
    """A tensor of a file that is open: its shape, and how to read it."""

    shape: tuple[int, ...]
    load: Callable[[], np.ndarray]


@dataclass(frozen=True, eq=False)
class PublishedWeights:
    """Weights in the form of this project's network.

    Attributes:
        backbone: float32 arrays by the name of their Keras layer, in the layer's own order.
        head: kernel (channels, outputs) and bias (outputs,); None where the file has no head.
    """

    backbone: dict[str, list[np.ndarray]]
    head: tuple[np.ndarray, np.ndarray] | None

    def copy_to(self, network: "keras.Model", columns: Sequence[int] = ()) -> None:
        """Give them to a network of `build_network`; with columns, the head too, one of its outputs for each."""
        for name, arrays in self.backbone.items():
            network.get_layer(name).set_weights(arrays)
        if columns:
            network.get_layer("logits").set_weights(self.select_outputs(columns))

    def select_outputs(self, columns: Sequence[int]) -> list[np.ndarray]:
        """Return the head's kernel and bias for some of its outputs, in the order given."""
        kernel, bias = self.head
        return [np.ascontiguousarray(kernel[:, columns]), bias[list(columns)]]


def is_published_format(path: str | os.PathLike) -> bool:
    """Tell whether a file starts like PyTorch's or safetensors', or is named like theirs. Raises: OSError."""
    if Path(path).suffix.lower() in SUFFIXES:
        return True
    with Path(path).open("rb") as file:
        start = file.read(9)
    return is_torch_file(start) or _is_safetensors(start)


def read_published_weights(
    path: str | os.PathLike,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    num_outputs: int | None = None,
) -> PublishedWeights:
    """Read a .safetensors, .pt, .pth or .bin file that holds DenseNet121 in torchvision's layout.

    Args:
        mean, std: what the network subtracts from grey values of 0 to 1, and then divides by: one number, or one per
            input channel. By default ImageNet's for three channels, and TorchXRayVision's for a single one.
        num_outputs: how many outputs the head must have; None for any number, or no head.
    Raises:
        ModelFileError: the file is missing, damaged, not DenseNet121, holds NaN, or something else than tensors.
    """
    path = Path(path)
    try:
        if is_special(path):
            raise ModelFileError(f"{path}: expected a weights file, found {SPECIAL_FILE}.")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ModelFileError(f"{path}: larger than {MAX_FILE_BYTES:,} bytes, which no DenseNet121 is.")
        with _open_tensors(path) as tensors:
            named = _canonical(tensors, path)
            mean, std = _normalisation(named[FIRST], mean, std)
            _check_shapes(named, len(mean), num_outputs, path)
            return _converted(named, mean, std, path)
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such weights file.") from None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except PickleError as error:
        raise ModelFileError(f"{path}: expected a PyTorch state dict of DenseNet121, found {error}.") from error


def fold_normalisation(kernel: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Change the first convolution so that it gives, after this project's normalisation, what it gave after another.

    The radiograph is grey: channel c of the other network held (g - mean_c) / std_c, here it holds
    (g - m_c) / s_c with ImageNet's values. What a kernel element contributes is g * sum_c(W_c / s_c) -
    sum_c(W_c * m_c / s_c), so only these two sums must be kept: of all kernels that keep them, the one nearest to the
    old one is taken, or, where that had a single channel, the smallest. With ImageNet's own mean and deviation nothing
    changes. Exact at the border too, for padding follows normalisation in both networks.

    Args:
        kernel: (out, channels, h, w) as PyTorch has it, of 1 or 3 channels.
        mean, std: one value per channel.
    Returns: float64 (out, 3, h, w).
    """
    old = np.asarray(kernel, np.float64)
    their_mean, their_std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    our_mean, our_std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    kept = np.stack([1 / their_std, their_mean / their_std])  # (2, channels)
    sums = np.einsum("kc,ochw->okhw", kept, old)
    start = old if old.shape[1] == 3 else np.zeros((old.shape[0], 3, *old.shape[2:]))
    ours = np.stack([1 / our_std, our_mean / our_std])  # (2, 3)
    missing = sums - np.einsum("kc,ochw->okhw", ours, start)
    return start + np.einsum("ck,okhw->ochw", np.linalg.pinv(ours), missing)


def expected_layers() -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield every weighted layer of DenseNet121's backbone: PyTorch's name, Keras' name, and a shape.

    The shape is a convolution's (out, in, h, w), with 0 input channels for the first one, which may have 1 or 3; or a
    batch normalisation's (channels,).
    """
    yield "features.conv0", "conv1_conv", (STEM_CHANNELS, 0, 7, 7)
    yield "features.norm0", "conv1_bn", (STEM_CHANNELS,)
    channels = STEM_CHANNELS
    for block, num_layers in enumerate(BLOCKS, 1):
        for number in range(1, num_layers + 1):
            theirs, ours = f"features.denseblock{block}.denselayer{number}", f"conv{block + 1}_block{number}"
            yield f"{theirs}.norm1", f"{ours}_0_bn", (channels,)
            yield f"{theirs}.conv1", f"{ours}_1_conv", (BOTTLENECK, channels, 1, 1)
            yield f"{theirs}.norm2", f"{ours}_1_bn", (BOTTLENECK,)
            yield f"{theirs}.conv2", f"{ours}_2_conv", (GROWTH, BOTTLENECK, 3, 3)
            channels += GROWTH
        if block < len(BLOCKS):
            yield f"features.transition{block}.norm", f"pool{block + 1}_bn", (channels,)
            yield f"features.transition{block}.conv", f"pool{block + 1}_conv", (channels // 2, channels, 1, 1)
            channels //= 2
    yield "features.norm5", "bn", (channels,)


def _expected_shapes(num_channels: int) -> dict[str, tuple[int, ...]]:
    """List every tensor of the backbone with its shape."""
    shapes = {}
    for name, _, shape in expected_layers():
        if len(shape) == 1:
            shapes |= {f"{name}.{part}": shape for part in BATCH_NORM}
        else:
            shapes[f"{name}.weight"] = (shape[0], shape[1] or num_channels, *shape[2:])
    return shapes


def _check_shapes(tensors: Mapping[str, LazyTensor], num_channels: int, num_outputs: int | None, path: Path) -> None:
    """Compare names and shapes with DenseNet121's, before any of the tensors is read."""
    expected = _expected_shapes(num_channels)
    head = {name: tensors[name].shape for name in ("classifier.weight", "classifier.bias") if name in tensors}
    if head or num_outputs is not None:
        channels = expected["features.norm5.weight"][0]
        count = num_outputs or head.get("classifier.bias", (1,))[0]
        expected |= {"classifier.weight": (count, channels), "classifier.bias": (count,)}
        if count > MAX_OUTPUTS:
            raise ModelFileError(f"{path}: a head of {count:,} outputs; expected at most {MAX_OUTPUTS:,}.")
    missing, extra = [name for name in expected if name not in tensors], [n for n in tensors if n not in expected]
    for problem, names in (("are missing", missing), ("are not part of it", extra)):
        if names:
            shown = ", ".join(ascii(name)[1:-1][:80] for name in names[:NUM_SHOWN])
            raise ModelFileError(
                f"{path}: expected the {len(expected)} tensors of DenseNet121, found {len(tensors)}; {len(names)} "
                f"{problem}: {shown}{', ...' * (len(names) > NUM_SHOWN)}."
            )
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise ModelFileError(f"{path}: {name} has the shape {_shown(tensors[name].shape)}, expected {shape}.")


def _normalisation(
    first: LazyTensor, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and deviation for each input channel that the first convolution has."""
    single = first.shape[1:2] == (1,)
    if mean is None or std is None:
        return SINGLE_CHANNEL if single else USUAL
    repeats = 3 if len(mean) == 1 and not single else 1
    return tuple(mean) * repeats, tuple(std) * repeats


def _converted(
    tensors: Mapping[str, LazyTensor], mean: Sequence[float], std: Sequence[float], path: Path
) -> PublishedWeights:
    """Read and check every tensor, and lay it out as Keras has it."""

    def load(name: str) -> np.ndarray:
        array = tensors[name].load()
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ModelFileError(f"{path}: {name} holds {array.dtype}, NaN or Inf; expected finite numbers.")
        if name.endswith("running_var") and array.min() < 0:
            raise ModelFileError(f"{path}: {name} holds a negative variance.")
        return array.astype(np.float32)

    backbone = {}
    for theirs, ours, shape in expected_layers():
        if len(shape) == 1:
            backbone[ours] = [load(f"{theirs}.{part}") for part in BATCH_NORM]
            continue
        kernel = load(f"{theirs}.weight")
        if f"{theirs}.weight" == FIRST:
            kernel = fold_normalisation(kernel, mean, std).astype(np.float32)
        backbone[ours] = [np.ascontiguousarray(kernel.transpose(2, 3, 1, 0))]  # (h, w, in, out)
    head = None
    if "classifier.weight" in tensors:
        head = np.ascontiguousarray(load("classifier.weight").T), load("classifier.bias")
    return PublishedWeights(backbone, head)


def _canonical(tensors: Mapping[str, LazyTensor], path: Path) -> dict[str, LazyTensor]:
    """Give the tensors torchvision's names: without what a wrapper put before them, and old names as new ones."""
    prefixes = [name.removesuffix(FIRST) for name in tensors if name == FIRST or name.endswith(f".{FIRST}")]
    if len(prefixes) != 1:
        shown = ", ".join(ascii(name)[1:-1][:80] for name in list(tensors)[:NUM_SHOWN])
        found = f"{len(tensors)} tensors ({shown}, ...)" if tensors else "no tensors"
        raise ModelFileError(f"{path}: expected one DenseNet121 (a tensor named {FIRST}), found {found}.")
    named: dict[str, LazyTensor] = {}
    for name, tensor in tensors.items():
        if IGNORED.search(name):
            continue
        plain = OLD_NAME.sub(r"\1\2.", name.removeprefix(prefixes[0]))
        plain = plain.replace("classifier.0.", "classifier.", 1)
        if plain in named:
            raise ModelFileError(f"{path}: {plain} is there twice, under an old and a new name.")
        named[plain] = tensor
    return named


@contextlib.contextmanager
def _open_tensors(path: Path) -> Iterator[Mapping[str, LazyTensor]]:
    """Open a file of either format; its tensors are read while it is open."""
    with path.open("rb") as file:
        start = file.read(9)
    if is_torch_file(start):
        with open_torch_file(path) as content:
            yield {name: LazyTensor(one.shape, one.load) for name, one in _state_dict(content).items()}
    elif _is_safetensors(start):
        with _open_safetensors(path) as tensors:
            yield tensors
    else:
        raise ModelFileError(f"{path}: neither PyTorch's nor safetensors' format; it starts with {start[:8]!r}.")


def _state_dict(content: object) -> dict[str, TorchTensor]:
    """Find the state dict: the content itself, or what a checkpoint holds under one of the usual keys."""
    candidates = [content, *(content.get(key) for key in CHECKPOINT_KEYS)] if isinstance(content, dict) else []
    for candidate in candidates:
        if isinstance(candidate, dict):
            tensors = {name: one for name, one in candidate.items() if isinstance(one, TorchTensor)}
            if tensors and all(isinstance(name, str) for name in tensors):
                return tensors
    raise PickleError(f"no tensors by name, neither at the top nor under {', '.join(CHECKPOINT_KEYS)}")


def _is_safetensors(start: bytes) -> bool:
    return len(start) == 9 and start[8:] == b"{"


@contextlib.contextmanager
def _open_safetensors(path: Path) -> Iterator[Mapping[str, LazyTensor]]:
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
    if header_bytes > min(MAX_HEADER_BYTES, path.stat().st_size - 8):
        raise ModelFileError(f"{path}: a header of {header_bytes:,} bytes; expected at most {MAX_HEADER_BYTES:,}.")
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError:
        raise ModelFileError(f"{path}: needs the package safetensors: pip install safetensors.") from None
    try:
        with safe_open(path, framework="np") as file:
            tensors = {}
            for name in file.keys():  # noqa: SIM118 - no mapping
                part = file.get_slice(name)
                if part.get_dtype() not in READABLE_DTYPES and not IGNORED.search(name):
                    raise ModelFileError(f"{path}: {name!a} holds {part.get_dtype()}; expected float32.")
                load = lambda name=name: file.get_tensor(name)  # noqa: E731
                tensors[name] = LazyTensor(tuple(part.get_shape()), load)
            yield tensors
    except SafetensorError as error:
        raise ModelFileError(f"{path}: a damaged safetensors file ({ascii(str(error))[1:-1][:200]}).") from error


def _shown(shape: tuple[int, ...]) -> str:
    return str(shape) if len(shape) <= 8 else f"of {len(shape)} dimensions"
