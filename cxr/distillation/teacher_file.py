"""The file of a teacher: one .h5 with weights in half precision, a JSON record, and a digest over both.

Owns what the record says and whether the file can be trusted; a model file of this project serves as a teacher too. A
teacher's file holds no network: it is built anew from what the record names, and no other program loads it.
"""

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from cxr.data.columns import name_key
from cxr.distillation.inception import MIN_TEACHER_SIZE, build_teacher
from cxr.distillation.inception_weights import BACKBONE
from cxr.network.content_checks import MAX_FINDINGS, MAX_NAME_LENGTH, MAX_TEXT_LENGTH
from cxr.network.densenet import build_network, fuse
from cxr.network.model_file import (
    INFO_ATTRIBUTE,
    MAX_IMAGE_SIZE,
    SPARE_BYTES,
    TEACHER_ATTRIBUTE,
    check_digest,
    content_digest,
    load_model,
    read_model_info,
)
from cxr.network.model_info import DISCLAIMER
from cxr.system.atomic_files import check_room, replacing
from cxr.system.hdf5_guard import ModelFileError, open_guarded
from cxr.system.json_values import json_values

SCHEMA_VERSION = 1
WEIGHTS_GROUP = "weights"
FILE_KIND = "teacher's file"
CURE = "Restore the file or make it again with tools.train_teacher."
MAX_RECORD_LENGTH = 10_000_000  # characters; 10,000 findings of 200 characters have 2 million


@dataclass(frozen=True)
class TeacherInfo:
    """What a reader of the file must know beside the weights.

    Attributes:
        findings: names of the outputs, in order.
        image_size: side of the input in pixels.
        backbone: the network that is built for the weights.
        sources: folders that the names of its training images begin with; none, or an empty name alone, where they
            begin with none.
        origin: how it was made, in words.
        digest: SHA-256 over record and weights.
    """

    findings: tuple[str, ...]
    image_size: int
    backbone: str = BACKBONE
    sources: tuple[str, ...] = ()
    origin: str = ""
    disclaimer: str = DISCLAIMER
    created: str = ""
    digest: str = ""
    schema_version: int = SCHEMA_VERSION


def save_teacher(network: keras.Model, info: TeacherInfo, path: str | os.PathLike) -> TeacherInfo:
    """Write a teacher's weights in half precision, read the file back, and put it in the old one's place.

    Args:
        network: from `build_teacher`, fused or not.
    Returns: `info` with date and digest as stored.
    Raises:
        ModelFileError: a weight is not finite in half precision.
        OSError: the file system refuses.
    """
    path, halves = Path(path), _half_weights(network)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    info = dataclasses.replace(info, created=created, digest="")
    check_room(path.parent, 2 * network.count_params() + SPARE_BYTES, f"the {FILE_KIND}")
    with replacing(path) as temp:
        with h5py.File(temp, "w") as file:
            group = file.create_group(WEIGHTS_GROUP)
            for name, array in halves.items():
                group.create_dataset(name, data=array)
            file.attrs[TEACHER_ATTRIBUTE] = json.dumps(json_values(info), sort_keys=True)
            digest = content_digest(file, max_bytes=2**62, record=TEACHER_ATTRIBUTE)
            info = dataclasses.replace(info, digest=digest)
            file.attrs[TEACHER_ATTRIBUTE] = json.dumps(json_values(info), sort_keys=True)
        _, weights = _read(temp, _all_weights)
        if not all(np.array_equal(weights.get(name), array) for name, array in halves.items()):
            raise OSError(f"{path}: the file read back differs from the teacher; an older file there is unchanged.")
    return info


def _half_weights(network: keras.Model) -> dict[str, np.ndarray]:
    """Return "layer/0", "layer/1", ... -> float16 array."""
    halves = {}
    for layer in network.layers:
        for place, weight in enumerate(layer.get_weights()):
            with np.errstate(over="ignore"):  # told below, with the layer's name
                half = weight.astype(np.float16)
            if not np.isfinite(half).all():
                raise ModelFileError(f"A weight of layer {layer.name} is not finite in half precision; nothing saved.")
            halves[f"{layer.name}/{place}"] = half
    return halves


def read_teacher_info(path: str | os.PathLike) -> TeacherInfo:
    """Verify a teacher's file, or a model file of this project, without building the network.

    Raises:
        ModelFileError: with what was expected and what was found.
    """
    path = Path(path)
    return _info_of_model(path) if _is_model_file(path) else _read(path, lambda file: None)[0]


def load_teacher(path: str | os.PathLike, precision: str = "float32") -> tuple[keras.Model, TeacherInfo]:
    """Verify a teacher's file, or a model file of this project, then build its network.

    Args:
        precision: Keras dtype policy of the backbone.
    Returns: a frozen network from (n, size, size, 1), values 0-255, to what its head sees, the pooled features
        float32 (n, channels), and to its logits float32 (n, findings); its record.
    Raises:
        ModelFileError: with what was expected and what was found.
    """
    path = Path(path)
    if _is_model_file(path):
        saved, model_info = load_model(path)
        info = _from_model_info(model_info)
        network = build_network(info.findings, info.image_size, precision=precision)
        network.set_weights(saved.get_weights())
    else:
        info, weights = _read(path, _all_weights)
        network = build_teacher(info.findings, info.image_size, precision=precision)
        expected = {
            f"{layer.name}/{place}": tuple(variable.shape)
            for layer in network.layers
            for place, variable in enumerate(layer.weights)
        }
        if {name: array.shape for name, array in weights.items()} != expected:
            raise ModelFileError(f"{path}: its weights are not those of {BACKBONE} for its findings. {CURE}")
        for layer in network.layers:
            layer.set_weights([weights[f"{layer.name}/{place}"] for place in range(len(layer.weights))])
    network = fuse(network)
    network.trainable = False
    head = network.get_layer("logits")
    return keras.Model(network.input, [head.input, head.output]), info


def _is_model_file(path: Path) -> bool:
    """Tell a model file of this project from a teacher's file. Raises: ModelFileError where it is neither."""
    with open_guarded(path, FILE_KIND, CURE) as file:
        if TEACHER_ATTRIBUTE not in file.attrs and INFO_ATTRIBUTE not in file.attrs:
            raise ModelFileError(
                f"{path}: neither a teacher of tools.train_teacher nor a model file of main_train.py. Give one of "
                "these to --teacher."
            )
        return TEACHER_ATTRIBUTE not in file.attrs


def _info_of_model(path: Path) -> TeacherInfo:
    return _from_model_info(read_model_info(path))


def _from_model_info(info: Any) -> TeacherInfo:
    """Say of a model file what a teacher's record says."""
    sources = tuple(source.name for source in info.sources)
    return TeacherInfo(
        info.findings, info.image_size, "DenseNet121", sources, info.weights_origin, created=info.created,
        digest=info.digest,
    )  # fmt: skip


def _read(path: Path, content: Callable[[h5py.File], Any]) -> tuple[TeacherInfo, Any]:
    """Verify digest and record of a teacher's file, and read what is asked for from the same open file."""
    with open_guarded(path, FILE_KIND, CURE) as file:
        text = file.attrs.get(TEACHER_ATTRIBUTE)
        if not isinstance(text, str) or len(text) > MAX_RECORD_LENGTH:
            raise ModelFileError(f"{path}: holds no record {TEACHER_ATTRIBUTE!r} of a teacher. {CURE}")
        info = _info(json.loads(text), path)
        check_digest(file, path, info.digest, CURE, TEACHER_ATTRIBUTE)
        return info, content(file)


def _all_weights(file: h5py.File) -> dict[str, np.ndarray]:
    group = file[WEIGHTS_GROUP]
    return {f"{name}/{place}": part[place][()] for name, part in group.items() for place in part}


def _info(plain: Any, path: Path) -> TeacherInfo:
    """Rebuild the record, and check every field: a digest says that nothing changed, not who wrote it."""
    names = {one.name for one in dataclasses.fields(TeacherInfo)}
    if not isinstance(plain, dict) or plain.keys() != names:
        raise ModelFileError(f"{path}: the record has not the fields of a teacher. {CURE}")
    findings, size = plain["findings"], plain["image_size"]
    fits = {
        "schema_version": plain["schema_version"] == SCHEMA_VERSION,
        "backbone": plain["backbone"] == BACKBONE,
        "findings": _are_names(findings, MAX_FINDINGS) and len(set(map(name_key, findings))) == len(findings) > 0,
        "image_size": type(size) is int and MIN_TEACHER_SIZE <= size <= MAX_IMAGE_SIZE,
        "sources": _are_names(plain["sources"], MAX_FINDINGS),
    }
    texts = ("origin", "disclaimer", "created", "digest")
    fits |= {name: isinstance(plain[name], str) and len(plain[name]) <= MAX_TEXT_LENGTH for name in texts}
    wrong = [name for name, right in fits.items() if not right]
    if wrong:
        raise ModelFileError(f"{path}: the record's {', '.join(wrong)} not as expected of a teacher. {CURE}")
    return TeacherInfo(**plain | {"findings": tuple(findings), "sources": tuple(plain["sources"])})


def _are_names(values: Any, limit: int) -> bool:
    """Tell whether values are a list of printable names; an empty one stands for no folder."""
    return (
        isinstance(values, list)
        and len(values) <= limit
        and all(isinstance(one, str) and len(one) <= MAX_NAME_LENGTH and one.isprintable() for one in values)
    )
