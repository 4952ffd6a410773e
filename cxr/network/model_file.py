"""The model file: one Keras .h5 with ModelInfo, a digest over everything in it, and an atomic save.

Owns what the file holds and whether it can be trusted; the network is built in densenet.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import logging
import os
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import h5py
import keras
import numpy as np

from cxr.network.model_info import ModelFileError, ModelInfo, info_arrays, info_from_json, info_to_json
from cxr.system.atomic_files import check_room, replacing

MIN_KERAS = (3, 15, 1)  # older versions ignore safe_mode for .h5 or lack the guards against hostile HDF5
INFO_ATTRIBUTE = "cxr_model_info"
ARRAYS_GROUP = "cxr_arrays"
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
HEAP_SIGNATURE = b"GCOL\1\0\0\0"  # of a global heap collection: name, version, reserved bytes
HEAP_OBJECT_HEADER = 16  # bytes, of a heap's objects and of the heap itself
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # full disk, used-up quota, limit of the file size
SPARE_BYTES = 5_000_000  # for the file's structure and what it carries beside the weights
MAX_IMAGE_SIZE = 1024  # pixels; radiographs of the common data sets have no more

# The layers that the network is made of. A file that asks for anything else was not made by this project.
LAYER_CLASSES = {
    "Activation",
    "AveragePooling2D",
    "BatchNormalization",
    "Concatenate",
    "Conv2D",
    "Dense",
    "GlobalAveragePooling2D",
    "InputLayer",
    "MaxPooling2D",
    "Normalization",
    "Rescaling",
    "ZeroPadding2D",
}
# What h5py, json and Keras were seen to raise on damaged files.
READ_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, IndexError, OverflowError)


def save_model(model: keras.Model, info: ModelInfo, path: str | os.PathLike) -> ModelInfo:
    """Write the model and its ModelInfo so that the old file survives every failure.

    A temporary file in the same folder is written, read back and compared, flushed to the disk, and only then takes
    the old file's place. The optimiser is not stored.

    Returns: `info` with Keras version, date and digest as stored.
    Raises:
        ModelFileError: the weights are not finite, or do not fit `info`.
        OSError: the file system refuses (no space, no permission).
    """
    path = Path(path)
    _check_fit(model, info, path)
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        raise ModelFileError("The weights hold NaN or Inf and were not saved; the old model file is unchanged.")
    created = datetime.now(UTC).isoformat(timespec="seconds")
    info = dataclasses.replace(info, keras_version=keras.__version__, created=created, digest="")
    # A write that fails inside of HDF5 may take the whole process with it; the old file survives that, too.
    check_room(path.parent, 4 * model.count_params() + SPARE_BYTES, "the model file")
    try:
        with replacing(path) as temp:
            _write_file(model, info, temp)
            reloaded, info = load_model(temp)
            pairs = zip(model.get_weights(), reloaded.get_weights(), strict=True)
            if not all(np.array_equal(written, read) for written, read in pairs):
                raise OSError(f"{path}: the file read back differs from the model; the old model file is unchanged.")
    except (OSError, RuntimeError) as error:  # RuntimeError is h5py's form of some write faults
        if isinstance(error, OSError) and error.errno not in NO_ROOM:
            raise
        raise OSError(f"{path}: could not write about {4 * model.count_params():,} bytes: {error}") from error
    return info


def load_model(path: str | os.PathLike) -> tuple[keras.Model, ModelInfo]:
    """Verify a model file, then build the model from it.

    Returns: the model (not compiled) and its ModelInfo.
    Raises:
        ModelFileError: with what was expected and what was found.
    """
    path = Path(path)
    info = read_model_info(path)
    try:
        model = _build_model(path)
    except READ_ERRORS as error:
        raise ModelFileError(
            f"{path}: written by Keras {info.keras_version}, could not be loaded by Keras {keras.__version__}: "
            f"{type(error).__name__}: {str(error)[:200]}. Train again with main_train.py."
        ) from error
    _check_fit(model, info, path)
    return model, info


def _build_model(path: Path) -> keras.Model:
    """Do what keras.models.load_model does with an .h5, without TensorFlow, not compiled and in safe mode.

    Keras 3.15 imports TensorFlow to read the configuration in an .h5, whatever its backend, for object types that
    `_check_layers` does not let through; that takes seconds and half a gigabyte.
    """
    with h5py.File(path, "r") as file:
        config = json.loads(file.attrs["model_config"], object_hook=_restore_tuple)
    model = keras.Model.from_config(config["config"])  # deserialises in safe mode, which is Keras' default
    model.load_weights(str(path))
    return model


def _restore_tuple(node: dict) -> dict | tuple:
    """Turn the form that Keras gives a tuple in JSON back into the tuple."""
    return tuple(node["items"]) if node.get("class_name") == "__tuple__" else node


def read_model_info(path: str | os.PathLike) -> ModelInfo:
    """Verify digest, finite weights and layer classes of a model file without building the model.

    Raises:
        ModelFileError: with what was expected and what was found.
    """
    path = Path(path)
    _check_keras_version()
    _check_signature(path)
    _check_heaps(path)
    try:
        with h5py.File(path, "r") as file:
            info = _read_info(file, path)
            found = _digest(file, path.stat().st_size)
            if found != info.digest:
                raise ModelFileError(
                    f"{path}: damaged or changed after it was saved: expected SHA-256 {info.digest[:16]}, found "
                    f"{found[:16]}. Restore the file or train again with main_train.py."
                )
            _check_layers(file, path)
            return info
    except ModelFileError:
        raise
    except READ_ERRORS as error:
        raise ModelFileError(
            f"{path}: not readable as a model file ({type(error).__name__}: {str(error)[:200]}). "
            "Restore the file or train again with main_train.py."
        ) from error


def _write_file(model: keras.Model, info: ModelInfo, temp: Path) -> None:
    with _save_warnings_silenced():
        model.save(str(temp), include_optimizer=False)
    with h5py.File(temp, "r+") as file:
        arrays = file.create_group(ARRAYS_GROUP)
        for name, array in info_arrays(info).items():
            arrays.create_dataset(name, data=array)
        file.attrs[INFO_ATTRIBUTE] = info_to_json(info)
        digest = _digest(file, max_bytes=2**62)
        file.attrs[INFO_ATTRIBUTE] = info_to_json(dataclasses.replace(info, digest=digest))


def _read_info(file: h5py.File, path: Path) -> ModelInfo:
    if INFO_ATTRIBUTE not in file.attrs:
        raise ModelFileError(
            f"{path}: a Keras file without ModelInfo (attribute {INFO_ATTRIBUTE!r}), written by Keras "
            f"{file.attrs.get('keras_version', 'of unknown version')}. Expected a model file that main_train.py saved; "
            "to start training from this file, use --weights."
        )
    max_bytes = path.stat().st_size
    arrays = {name: _read_dataset(dataset, max_bytes) for name, dataset in file[ARRAYS_GROUP].items()}
    try:
        return info_from_json(file.attrs[INFO_ATTRIBUTE], arrays)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from None


def _digest(file: h5py.File, max_bytes: int) -> str:
    """Hash every data set and attribute of the file in name order, ModelInfo without its digest included.

    Raises:
        ModelFileError: a data set reaches outside the file, claims more bytes than the file has, or is not finite.
    """
    sha = hashlib.sha256()

    def add_attributes(name: str, attributes: h5py.AttributeManager) -> None:
        for key in sorted(attributes):
            value = attributes[key]
            if key == INFO_ATTRIBUTE:
                plain = json.loads(value)
                plain["digest"] = ""
                value = json.dumps(plain, sort_keys=True)
            text = repr(value.tolist()) if isinstance(value, np.ndarray | np.generic) else repr(value)
            sha.update(f"{name}@{key}={text}\n".encode())

    def add(name: str, node: h5py.Group | h5py.Dataset) -> None:
        add_attributes(name, node.attrs)
        if isinstance(node, h5py.Dataset):
            array = _read_dataset(node, max_bytes)
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ModelFileError(f"{file.filename}: {name} holds NaN or Inf. Train again with main_train.py.")
            sha.update(f"{name}:{array.dtype.str}{array.shape}\n".encode())
            sha.update(np.ascontiguousarray(array))

    add_attributes("", file.attrs)
    file.visititems(add)  # in name order; does not follow soft or external links
    return sha.hexdigest()


def _read_dataset(dataset: h5py.Dataset, max_bytes: int) -> np.ndarray:
    """Read a data set that lies inside the file and is no larger than the file."""
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual or dataset.nbytes > max_bytes:
        raise ModelFileError(
            f"{dataset.file.filename}: {dataset.name} lies outside the file or claims more bytes than the file has. "
            "Do not use this file."
        )
    return dataset[()]


def _check_layers(file: h5py.File, path: Path) -> None:
    """Refuse layers that the network does not have, and widths that no stored weight backs.

    Keras allocates what the configuration asks for before it reads a weight.
    """
    layers = json.loads(file.attrs["model_config"])["config"]["layers"]
    unknown = sorted({layer["class_name"] for layer in layers} - LAYER_CLASSES)
    if unknown:
        raise ModelFileError(f"{path}: expected only the layers of this project's network, found {', '.join(unknown)}.")
    weights = file["model_weights"]
    for layer in layers:
        width = layer["config"].get("units", layer["config"].get("filters"))
        if width is not None:
            name = layer["config"]["name"]
            kernel = weights[name][weights[name].attrs["weight_names"][0]]
            if kernel.shape[-1] != width:
                raise ModelFileError(f"{path}: layer {name} asks for width {width}, its kernel is {kernel.shape}.")


def _check_fit(model: keras.Model, info: ModelInfo, path: Path) -> None:
    """Compare the model's ends with ModelInfo."""
    expected = (None, info.image_size, info.image_size, 1), (None, len(info.findings))
    found = tuple(model.input_shape), tuple(model.output_shape)
    if found != expected or not 0 < info.image_size <= MAX_IMAGE_SIZE:
        raise ModelFileError(
            f"{path}: expected input {expected[0]} and output {expected[1]} for {len(info.findings)} findings at "
            f"{info.image_size} px (at most {MAX_IMAGE_SIZE}), found input {found[0]} and output {found[1]}."
        )
    missing = {"relu", "logits", "probabilities"} - {layer.name for layer in model.layers}
    if missing:
        raise ModelFileError(f"{path}: the network has no layer named {', '.join(sorted(missing))}.")


def _check_signature(path: Path) -> None:
    """Tell a missing, empty or foreign file apart before HDF5 sees it."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such model file. Train one with main_train.py.") from None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}.") from error
    if start != HDF5_SIGNATURE:
        kind = "an empty file" if not start else f"a file that starts with {start!r}"
        raise ModelFileError(f"{path}: expected an HDF5 model file, found {kind}. Train one with main_train.py.")


def _check_heaps(path: Path) -> None:
    """Walk the file's global heaps, which hold the texts of its attributes, before HDF5 does.

    HDF5 adds up the sizes that stand in a heap without a check (H5HG, version 1.14.6): one flipped bit has it turn
    back and read the same objects for ever. The layout is that of the HDF5 File Format Specification, III.E.
    """
    data = path.read_bytes()
    start = data.find(HEAP_SIGNATURE)
    while start >= 0:
        end = start + int.from_bytes(data[start + 8 : start + 16], "little")
        position = start + HEAP_OBJECT_HEADER
        while position + HEAP_OBJECT_HEADER <= end <= len(data):
            size = int.from_bytes(data[position + 8 : position + 16], "little")
            is_free_space = data[position : position + 2] == b"\0\0"  # its size counts its own header
            if is_free_space and size == 0:
                break
            position += size if is_free_space else HEAP_OBJECT_HEADER + -(-size // 8) * 8
        if not end - HEAP_OBJECT_HEADER < position <= end <= len(data):
            raise ModelFileError(
                f"{path}: damaged: the heap at byte {start} does not add up. Restore the file or train again with "
                "main_train.py."
            )
        start = data.find(HEAP_SIGNATURE, start + 8)


def _check_keras_version() -> None:
    found = tuple(int(part) for part in keras.__version__.split(".")[:3] if part.isdecimal())
    if found < MIN_KERAS:
        floor = ".".join(map(str, MIN_KERAS))
        raise ModelFileError(f"Keras {keras.__version__} does not load .h5 files safely: expected {floor} or newer.")


@contextlib.contextmanager
def _save_warnings_silenced() -> Iterator[None]:
    """Silence two lines of Keras' .h5 writer.

    One recommends another file format, but .h5 is this project's; the other is about NumPy 2's copy keyword, which
    Keras' TensorFlow variables do not take yet.
    """

    def keep(record: logging.LogRecord) -> bool:
        return "saving your model as an HDF5 file" not in record.getMessage()

    logger = logging.getLogger("absl")
    logger.addFilter(keep)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy", DeprecationWarning)
            yield
    finally:
        logger.removeFilter(keep)
