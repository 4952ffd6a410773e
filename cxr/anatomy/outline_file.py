"""The file of the outline network: one Keras .h5 with a record and a digest over everything in it.

Owns what the record says and whether the file can be trusted, by the same checks as the classifier's file.
"""

import dataclasses
import json
import math
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from cxr.anatomy.outline_network import STRIDE, STRUCTURES
from cxr.network.content_checks import check_layers
from cxr.network.model_file import (
    build_verified,
    check_digest,
    check_keras_version,
    content_digest,
    save_warnings_silenced,
)
from cxr.network.model_info import DISCLAIMER
from cxr.system.atomic_files import replacing
from cxr.system.hdf5_guard import ModelFileError, open_guarded
from cxr.system.json_values import json_values

SCHEMA_VERSION = 1
RECORD_ATTRIBUTE = "cxr_outline_info"
CURE = "Restore the file or make it again with tools.train_anatomy."
MAX_FILE_BYTES = 8_000_000
MAX_INPUT_SIZE = 512  # pixels
MAX_CHANNELS = 256  # of a layer's output
MAX_RECORD_LENGTH = 100_000  # characters
RETIRED = frozenset({"scores"})  # fields of older records, which nothing reads
SELF_CHECK_CELLS = 4  # of the self-check picture's answer, on each side
LAYER_CLASSES = {
    "Activation",
    "BatchNormalization",
    "Concatenate",
    "Conv2D",
    "InputLayer",
    "MaxPooling2D",
    "Rescaling",
    "UpSampling2D",
}


@dataclass(frozen=True)
class OutlineInfo:
    """What a reader of the file must know beside the weights.

    Attributes:
        structures: names of the network's outputs, in order.
        input_size: side of its input in pixels.
        data: what it was trained on, in words, with licences.
        settings: of the training.
        self_check: logits of the self-check picture, means over SELF_CHECK_CELLS ** 2 parts of the grid for each
            structure, row by row.
    """

    structures: tuple[str, ...] = STRUCTURES
    input_size: int = 0
    data: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    self_check: tuple[float, ...] = ()
    disclaimer: str = DISCLAIMER
    keras_version: str = ""
    created: str = ""
    digest: str = ""
    schema_version: int = SCHEMA_VERSION


def save_outline_network(network: keras.Model, info: OutlineInfo, path: str | os.PathLike) -> OutlineInfo:
    """Write network and record to a temporary file, read it back, and put it in the old one's place.

    Returns: `info` with Keras' version, date and digest as stored.
    Raises:
        ModelFileError: the file would not be read.
        OSError: the file system refuses.
    """
    created = datetime.now(UTC).isoformat(timespec="seconds")
    info = dataclasses.replace(info, keras_version=keras.__version__, created=created, digest="")
    with replacing(Path(path)) as temp:
        with save_warnings_silenced():
            network.save(str(temp), include_optimizer=False)
        with h5py.File(temp, "r+") as file:
            file.attrs[RECORD_ATTRIBUTE] = json.dumps(json_values(info), sort_keys=True)
            digest = content_digest(file, max_bytes=2**62, record=RECORD_ATTRIBUTE)
            info = dataclasses.replace(info, digest=digest)
            file.attrs[RECORD_ATTRIBUTE] = json.dumps(json_values(info), sort_keys=True)
        load_outline_network(temp)
    return info


def load_outline_network(path: str | os.PathLike) -> tuple[keras.Model, OutlineInfo]:
    """Verify a file of `save_outline_network`, then build the network from it.

    Raises:
        ModelFileError: with what was expected and what was found.
    """
    path = Path(path)
    network, info = build_verified(path, read_outline_info, CURE)
    size, grid = info.input_size, info.input_size // STRIDE
    expected = (None, size, size, 1), (None, grid, grid, len(STRUCTURES))
    found = tuple(network.input_shape), tuple(network.output_shape)
    if found != expected:
        raise ModelFileError(
            f"{path}: expected input {expected[0]} and output {expected[1]}, found {found[0]} and {found[1]}. {CURE}"
        )
    largest = max(math.prod(layer.output.shape[1:]) for layer in network.layers)
    if largest > MAX_CHANNELS * grid**2:
        raise ModelFileError(f"{path}: a layer gives {largest:,} numbers; expected at most {MAX_CHANNELS * grid**2:,}.")
    return network, info


def read_outline_info(path: str | os.PathLike) -> OutlineInfo:
    """Verify digest, finite weights, layer classes and record without building the network.

    Raises:
        ModelFileError: with what was expected and what was found.
    """
    path = Path(path)
    check_keras_version()
    with open_guarded(path, "file of the outline network", CURE) as file:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ModelFileError(f"{path}: has {size:,} bytes; expected at most {MAX_FILE_BYTES:,}. {CURE}")
        text = file.attrs.get(RECORD_ATTRIBUTE)
        if not isinstance(text, str) or len(text) > MAX_RECORD_LENGTH:
            raise ModelFileError(f"{path}: holds no record {RECORD_ATTRIBUTE!r} of an outline network. {CURE}")
        info = _info(json.loads(text), path)
        check_digest(file, path, info.digest, CURE, RECORD_ATTRIBUTE)
        check_layers(file, path, LAYER_CLASSES)
        return info


def _info(plain: dict[str, Any], path: Path) -> OutlineInfo:
    """Rebuild the record, and check the fields that decide what is computed."""
    plain = {name: value for name, value in plain.items() if name not in RETIRED}
    known = {one.name for one in dataclasses.fields(OutlineInfo)}
    numbers = plain.get("self_check", ())
    fits = {
        "schema_version": plain.get("schema_version") == SCHEMA_VERSION,
        "structures": tuple(plain.get("structures", ())) == STRUCTURES,
        "input_size": type(plain.get("input_size")) is int and 0 < plain["input_size"] <= MAX_INPUT_SIZE,
        "self_check": len(numbers) == len(STRUCTURES) * SELF_CHECK_CELLS**2 and np.isfinite(numbers).all(),
        "digest": isinstance(plain.get("digest"), str),
        "keras_version": isinstance(plain.get("keras_version"), str),
        "names": plain.keys() == known,
    }
    wrong = [name for name, right in fits.items() if not right]
    if wrong:
        raise ModelFileError(f"{path}: the record's {', '.join(wrong)} not as expected. {CURE}")
    return OutlineInfo(**plain | {"structures": STRUCTURES, "self_check": tuple(map(float, numbers))})
