"""Start weights: ImageNet's, a file's, or none; and the small weights-only file.

Owns where a training run starts from. Files are read with h5py alone, layer by layer, so that a file of Keras 2 (layer
names with "/", which Keras 3 cannot load as a model) serves as well as one of Keras 3.
"""

import hashlib
import http.client
import json
import os
import re
import threading
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import keras
import numpy as np

from cxr.data.columns import name_key
from cxr.network.known_models import KNOWN_MODELS, fetch
from cxr.network.model_file import INFO_ATTRIBUTE, read_model_info
from cxr.network.model_info import ModelFileError, ModelInfo
from cxr.network.published_weights import is_published_format, read_published_weights
from cxr.system.atomic_files import replacing
from cxr.system.hdf5_guard import open_guarded

IMAGENET_URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/densenet/"
    "densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
IMAGENET_MD5 = "30ee3e1110167f948a6b9946edeeb738"  # as pinned in keras/src/applications/densenet.py
CONNECT_SECONDS = 10  # a network that does not answer by then counts as none
DOWNLOAD_SECONDS = 300  # 29 MB at 100 kB/s
ORIGIN_ATTRIBUTE = "cxr_weights_origin"
CURE = "Give another file to --weights, imagenet or none."
FINDINGS_ATTRIBUTE = "cxr_findings"  # JSON list; present where the file holds a head for them


@dataclass(frozen=True)
class StartWeights:
    """Where a network's weights came from.

    Attributes:
        origin: in words, for ModelInfo.
        pretrained: False for random weights.
        note: a line for the user where they are not what was asked for, else "".
        head: True where they came with a head for the very same findings.
    """

    origin: str
    pretrained: bool
    note: str = ""
    head: bool = False


def load_start_weights(
    model: keras.Model, findings: Sequence[str], source: str, fallback: str | os.PathLike | None = None
) -> StartWeights:
    """Give the model the weights that `--weights` asks for.

    Args:
        model: from `build_network`; changed in place.
        findings: the model's; a file with a head for the same findings gives its head too.
        source: "imagenet", "none", the name of a published model, or the path of a weights or model file.
        fallback: weights file that takes ImageNet's place where that cannot be fetched.
    Raises:
        ModelFileError: the file at `source` is missing, damaged or does not fit.
    """
    if source == "none":
        return StartWeights("none (random)", pretrained=False)
    if source in KNOWN_MODELS or (Path(source).is_file() and is_published_format(source)):
        return _load_published(model, findings, source)
    if source != "imagenet":
        return _load_file(model, findings, Path(source))
    try:
        path = fetch_imagenet_weights()
    except OSError as error:
        reason = f"ImageNet weights could not be fetched ({error})"
    else:
        _load_file(model, findings, path)
        return StartWeights("ImageNet (keras.applications)", pretrained=True)
    if fallback is not None and Path(fallback).is_file():
        start = _load_file(model, findings, Path(fallback))
        return replace(start, note=f"{reason}; starting from {fallback} instead: {start.origin}.")
    note = f"{reason}; starting from random weights instead."
    return StartWeights("none (random; ImageNet weights could not be fetched)", pretrained=False, note=note)


def fetch_imagenet_weights() -> Path:
    """Return DenseNet121's ImageNet weights, as `fetch_weights` does."""
    return fetch_weights(IMAGENET_URL, IMAGENET_MD5)


def fetch_weights(url: str, md5: str) -> Path:
    """Return a file of keras.applications from Keras' own cache folder, downloading it once; the wait is bounded.

    Raises:
        OSError: no network, no answer in time, or a damaged download.
    """
    folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras", "models")
    path = folder / url.rsplit("/", 1)[1]
    if path.is_file() and _md5(path.read_bytes()) == md5:
        return path
    content = _download(url)
    if _md5(content) != md5:
        raise OSError(f"the download has another checksum than {md5}")
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temp:
        temp.write_bytes(content)
    return path


def _download(url: str) -> bytes:
    """Read a URL in a thread of its own: DNS has no timeout and would hold the program up."""
    connected, outcome = threading.Event(), {}

    def read() -> None:
        try:
            with urllib.request.urlopen(url, timeout=CONNECT_SECONDS) as answer:  # noqa: S310 - a constant https address
                connected.set()
                outcome["content"] = answer.read()
        except (OSError, http.client.HTTPException) as error:
            outcome["error"] = str(getattr(error, "reason", error))
        finally:
            connected.set()

    thread = threading.Thread(target=read, daemon=True, name="download")
    thread.start()
    if connected.wait(CONNECT_SECONDS):
        thread.join(DOWNLOAD_SECONDS)
    if "content" not in outcome:
        raise OSError(outcome.get("error", "no answer in time"))
    return outcome["content"]


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()  # the checksum that Keras pins


def save_start_weights(model: keras.Model, path: str | os.PathLike, origin: str, findings: Sequence[str] = ()) -> None:
    """Write weights in half precision (14 MB), atomically, for use with `--weights PATH`.

    Args:
        origin: what the weights were trained on, in words; shown to whoever starts from them.
        findings: those of the head, which is then written too; without them only the backbone is.
    Raises:
        ModelFileError: a weight is not finite, or too large for half precision.
    """
    path = Path(path)
    with replacing(path) as temp, h5py.File(temp, "w") as file:
        file.attrs[ORIGIN_ATTRIBUTE] = origin
        layers = _backbone_layers(model)
        if findings:
            file.attrs[FINDINGS_ATTRIBUTE] = json.dumps(list(findings))
            layers.append(model.get_layer("logits"))
        file.attrs["layer_names"] = [layer.name for layer in layers]
        for layer in layers:
            _write_layer(file.create_group(layer.name), layer)


def _write_layer(group: h5py.Group, layer: keras.Layer) -> None:
    names = [f"{layer.name}/{variable.name}" for variable in layer.weights]
    group.attrs["weight_names"] = names
    for name, weight in zip(names, layer.get_weights(), strict=True):
        with np.errstate(over="ignore"):  # told below, with the layer's name
            half = weight.astype(np.float16)
        if not np.isfinite(half).all():
            raise ModelFileError(f"Weight {name} is not finite in half precision; nothing was written.")
        # Chunked per weight, which HDF5's byte shuffling and deflate need; without them the file is 15 MB.
        group.create_dataset(name, data=half, chunks=half.shape, shuffle=True, compression="gzip")


def _load_published(model: keras.Model, findings: Sequence[str], source: str) -> StartWeights:
    """Give the model a published network's weights, and its head where that knows every finding by name."""
    known = KNOWN_MODELS.get(source)
    if known is None:
        path = Path(source)
        read_published_weights(path).copy_to(model)
        note = f"{path.name} is read as made for ImageNet's normalisation, or TorchXRayVision's if it has one channel"
        return StartWeights(f"file {path.name}", pretrained=True, note=f"{note}; a new head is trained.")
    weights = read_published_weights(fetch(known), known.mean, known.std, len(known.outputs) or None)
    places = {name_key(name): column for column, name in enumerate(known.outputs) if name}
    columns = [places[name_key(name)] for name in findings if name_key(name) in places]
    head = len(columns) == len(findings)
    weights.copy_to(model, columns if head else ())
    note = "" if head or not known.outputs else f"{known.name} does not know every finding; a new head is trained."
    return StartWeights(f"{known.name}: {known.trained_on}", pretrained=True, note=note, head=head)


def _load_file(model: keras.Model, findings: Sequence[str], path: Path) -> StartWeights:
    """Copy the weights of a file into the model: the backbone's, and the head's where the findings are the same."""
    with open_guarded(path, "weights file", CURE) as file:
        stored, origin = read_layers(file, path), file.attrs.get(ORIGIN_ATTRIBUTE)
        info = read_model_info(path) if INFO_ATTRIBUTE in file.attrs else None
        known = info.findings if info else _text_list(file.attrs.get(FINDINGS_ATTRIBUTE, "[]"), path)
    layers = _backbone_layers(model)
    _set_weights(layers, _match(layers, stored, path), path)
    head, same_findings = model.get_layer("logits"), list(known) == list(findings)
    if same_findings:
        _set_weights([head], [stored[head.name]], path)
    if origin is None:
        origin = f"{path.name}: {info.weights_origin}, then {_training_of(info)}" if info else f"file {path.name}"
    heads = [arrays[0] for arrays in stored.values() if arrays[0].ndim == 2]  # a dense layer is a head
    note = ""
    if not known and heads:  # of a file that is not this project's
        note = f"{path.name} has a head of {heads[-1].shape[1]} outputs without names; a new one is trained."
    return StartWeights(origin, pretrained=True, note=note, head=same_findings)


def _training_of(info: ModelInfo) -> str:
    """Say what a model file has learned from, as far as its record knows."""
    known = [
        f"{source.num_images:,} {source.description or (f'images of {source.name}' if source.name else 'images')}"
        for source in info.sources
        if source.num_images
    ]
    return f"trained on {' and '.join(known)}" if known else "trained"


def read_layers(file: h5py.File, path: Path) -> dict[str, list[np.ndarray]]:
    """Read {layer name: its weights} from a Keras HDF5 file of any age; "/" in names becomes "_" as in Keras 3."""
    group = file.get("model_weights", file)
    if "layer_names" not in group.attrs:
        return _read_keras_3(file, path)
    layers: dict[str, list[np.ndarray]] = {}
    for layer_name in _names(group, "layer_names"):
        weight_names = _names(group[layer_name], "weight_names")
        # A whole model that is one layer of another keeps all its layers' weights in one group.
        nested = len({name.rpartition("/")[0] for name in weight_names}) > 1
        for name in weight_names:
            array = _read_array(group[layer_name][name], layer_name, path)
            owner = name.rpartition("/")[0] if nested else layer_name
            layers.setdefault(owner.replace("/", "_"), []).append(array)
    return layers


def _read_keras_3(file: h5py.File, path: Path) -> dict[str, list[np.ndarray]]:
    """Read {layer name: its weights} from what Keras 3 writes as NAME.weights.h5.

    Its groups are numbered by class (layers/conv2d_3/vars/0); since Keras 3.7 an attribute holds the layer's name.
    """
    groups: list[str] = []
    file.visit(groups.append)
    layers: dict[str, list[np.ndarray]] = {}
    for place in groups:
        owner, _, last = place.rpartition("/")
        group = file[place]
        if last != "vars" or not isinstance(group, h5py.Group) or not len(group) or place.startswith("optimizer/"):
            continue
        name = str(group.attrs.get("name", owner.rpartition("/")[2]))
        if name in layers:
            raise ModelFileError(f"{path}: two layers are named {name!a}. {CURE}")
        numbers = sorted(group, key=lambda number: int(number) if number.isdecimal() else -1)
        layers[name] = [_read_array(group[number], name, path) for number in numbers]
    if not layers:
        raise ModelFileError(
            f"{path}: expected Keras' HDF5 layout, as of model.save('NAME.h5') or "
            f"model.save_weights('NAME.weights.h5'), which is not there. {CURE}"
        )
    return layers


def _read_array(dataset: h5py.Dataset, layer_name: str, path: Path) -> np.ndarray:
    array = np.asarray(dataset)
    if not np.isfinite(array).all():
        raise ModelFileError(f"{path}: layer {layer_name} holds NaN or Inf. {CURE}")
    return array


def _text_list(text: object, path: Path) -> list[str]:
    """Read a JSON list of names from another's attribute."""
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelFileError(f"{path}: expected a list of findings in {FINDINGS_ATTRIBUTE}. {CURE}")
    return names


def _names(group: h5py.Group, key: str) -> list[str]:
    """Read a list of names; Keras splits long lists into key0, key1, ..."""
    parts = [group.attrs[key]] if key in group.attrs else []
    while f"{key}{len(parts)}" in group.attrs:
        parts.append(group.attrs[f"{key}{len(parts)}"])
    return [name.decode() if isinstance(name, bytes) else str(name) for part in parts for name in part]


def _backbone_layers(model: keras.Model) -> list[keras.Layer]:
    """List the layers with weights, the head left out."""
    return [layer for layer in model.layers if layer.weights and layer.name != "logits"]


def _match(layers: list[keras.Layer], stored: dict[str, list[np.ndarray]], path: Path) -> list[list[np.ndarray]]:
    """Find each layer's weights by name, or by their class and order where none of the names is known."""
    by_name = [stored.get(layer.name) for layer in layers]
    if all(by_name):
        return by_name
    by_class = [stored.get(name) for name in _names_by_class(layers)]
    if all(by_class):
        return by_class
    missing = [layer.name for layer, weights in zip(layers, by_name, strict=True) if weights is None]
    if len(missing) == len(layers) and len(stored) >= len(layers):
        return list(stored.values())[: len(layers)]
    raise ModelFileError(
        f"{path}: expected the {len(layers)} weighted layers of DenseNet121, found {len(stored)} layers; "
        f"{len(missing)} are missing, for example {missing[0]}. Give a DenseNet121 file to --weights."
    )


def _names_by_class(layers: list[keras.Layer]) -> list[str]:
    """Name layers as Keras 3 does where they have no names: conv2d, conv2d_1, ..., batch_normalization, ..."""
    counts: Counter[str] = Counter()
    names = []
    for layer in layers:
        kind = re.sub(r"(?<!^)(?=[A-Z][a-z])", "_", type(layer).__name__).lower()
        names.append(f"{kind}_{counts[kind]}" if counts[kind] else kind)
        counts[kind] += 1
    return names


def _set_weights(layers: list[keras.Layer], weights: list[list[np.ndarray]], path: Path) -> None:
    for layer, arrays in zip(layers, weights, strict=True):
        expected, found = [tuple(one.shape) for one in layer.weights], [array.shape for array in arrays]
        if found != expected:
            raise ModelFileError(f"{path}: layer {layer.name} expects weights of shape {expected}, found {found}.")
        layer.set_weights([array.astype(np.float32) for array in arrays])
