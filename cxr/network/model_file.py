"""The model file: one Keras .h5 with ModelInfo, a digest over everything in it, and an atomic save.

Owns what the file holds and whether it can be trusted; the network is built in densenet.
"""

import contextlib
import dataclasses
import errno
import filecmp
import hashlib
import itertools
import json
import logging
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import h5py
import keras
import numpy as np

from cxr.network.content_checks import MAX_STEP, check_info, check_layers
from cxr.network.model_info import ModelFileError, ModelInfo, info_arrays, info_from_json, info_to_json
from cxr.system.atomic_files import check_room, replacing
from cxr.system.hdf5_guard import open_guarded, told_errors

MIN_KERAS = (3, 15, 1)  # older versions ignore safe_mode for .h5 or lack the guards against hostile HDF5
INFO_ATTRIBUTE = "cxr_model_info"
TEACHER_ATTRIBUTE = "cxr_teacher"  # of a teacher's file, which is no model file
ARRAYS_GROUP = "cxr_arrays"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # full disk, used-up quota, limit of the file size
SPARE_BYTES = 5_000_000  # for the file's structure and what it carries beside the weights
MAX_IMAGE_SIZE = 1024  # pixels; radiographs of the common data sets have no more
STEM_CHANNELS = 64  # of the first convolution at half the side: nothing in DenseNet121 is larger
CURE = "Restore the file or train again with main_train.py."

Record = TypeVar("Record")  # what a file says about its network; has the field keras_version


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
    model, info = build_verified(path, read_model_info, "Train again with main_train.py.")
    _check_fit(model, info, path)
    return model, info


def build_verified(path: Path, read_record: Callable[[Path], Record], cure: str) -> tuple[keras.Model, Record]:
    """Verify a file and build its network, both from the same content.

    Args:
        read_record: verifies a file and returns what it says about its network.
    Raises:
        ModelFileError: with what was expected and what was found.
    """
    before = _identity(path)
    record = read_record(path)
    failed = f"written by Keras {record.keras_version}, could not be loaded by Keras {keras.__version__}"
    with told_errors(path, failed, cure):
        model = build_model(path)
    if _identity(path) != before:  # the weights would be those of another file than what was checked
        raise ModelFileError(f"{path}: was replaced while it was being read. Start again.")
    return model, record


def _identity(path: Path) -> tuple[int, ...]:
    """Tell whether a path still leads to the same content, by inode, size and time of change."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def build_model(path: Path) -> keras.Model:
    """Do what keras.models.load_model does with an .h5, without TensorFlow, not compiled and in safe mode.

    Keras 3.15 imports TensorFlow to read the configuration in an .h5, whatever its backend, for object types that
    `check_layers` does not let through; that takes seconds and half a gigabyte.
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
    check_keras_version()
    with open_guarded(path, "model file", CURE) as file:
        info = _read_info(file, path)
        check_digest(file, path, info.digest, CURE)
        check_layers(file, path)
        return info


def keep_previous(path: Path, data_fingerprint: str) -> Path | None:
    """Keep the file at `path` under another name unless it was made from these very data.

    A file that is no model of this project is kept too: whatever it is, these data did not make it.

    Returns: where it is kept, `<name>.previous.h5` or the first such name that is free; None where there is nothing to
        keep.
    Raises: OSError where the folder refuses.
    """
    if not path.is_file() or _fingerprint_of(path) == data_fingerprint:
        return None
    kept = next(name for name in _free_names(path) if not name.exists() or filecmp.cmp(path, name, shallow=False))
    if not kept.exists():
        try:
            os.link(path, kept)  # no room needed: the new file takes the name, not the content
        except OSError:  # a file system without links
            with replacing(kept) as temp:
                shutil.copy2(path, temp)
    return kept


def _free_names(path: Path) -> Iterator[Path]:
    numbers = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    return (path.with_name(f"{path.stem}.previous{number}{path.suffix}") for number in numbers)


def _fingerprint_of(path: Path) -> str | None:
    try:
        return read_model_info(path).data_fingerprint
    except ModelFileError:
        return None


def _write_file(model: keras.Model, info: ModelInfo, temp: Path) -> None:
    with save_warnings_silenced():
        model.save(str(temp), include_optimizer=False)
    with h5py.File(temp, "r+") as file:
        arrays = file.create_group(ARRAYS_GROUP)
        for name, array in info_arrays(info).items():
            arrays.create_dataset(name, data=array)
        file.attrs[INFO_ATTRIBUTE] = info_to_json(info)
        digest = content_digest(file, max_bytes=2**62)
        file.attrs[INFO_ATTRIBUTE] = info_to_json(dataclasses.replace(info, digest=digest))


def _read_info(file: h5py.File, path: Path) -> ModelInfo:
    if TEACHER_ATTRIBUTE in file.attrs:
        raise ModelFileError(
            f"{path}: a teacher of tools.train_teacher, for main_train.py --teacher alone. Expected a model file that "
            "main_train.py saved."
        )
    if INFO_ATTRIBUTE not in file.attrs:
        raise ModelFileError(
            f"{path}: a Keras file without ModelInfo (attribute {INFO_ATTRIBUTE!r}), written by Keras "
            f"{file.attrs.get('keras_version', 'of unknown version')}. Expected a model file that main_train.py saved; "
            "to start training from this file, use --weights."
        )
    max_bytes = path.stat().st_size
    arrays = {name: _read_dataset(dataset, max_bytes) for name, dataset in file[ARRAYS_GROUP].items()}
    try:
        info = info_from_json(file.attrs[INFO_ATTRIBUTE], arrays)
        check_info(info)
        return info
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from None


def content_digest(file: h5py.File, max_bytes: int, record: str = INFO_ATTRIBUTE) -> str:
    """Hash every data set and attribute of the file in name order, its record without the digest included.

    Args:
        record: name of the attribute with the record, a JSON object with the key "digest".
    Raises:
        ModelFileError: a data set reaches outside the file, claims more bytes than the file has, or is not finite.
    """
    sha = hashlib.sha256()

    def add_attributes(name: str, attributes: h5py.AttributeManager) -> None:
        for key in sorted(attributes):
            value = attributes[key]
            if key == record:
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
                raise ModelFileError(f"{file.filename}: {name} holds NaN or Inf. Train it again.")
            sha.update(f"{name}:{array.dtype.str}{array.shape}\n".encode())
            sha.update(np.ascontiguousarray(array))

    add_attributes("", file.attrs)
    file.visititems(add)  # in name order; does not follow soft or external links
    return sha.hexdigest()


def check_digest(file: h5py.File, path: Path, expected: str, cure: str, record: str = INFO_ATTRIBUTE) -> None:
    """Compare the file's content with its digest. Raises: ModelFileError, as `content_digest` too."""
    found = content_digest(file, path.stat().st_size, record)
    if found != expected:
        digests = f"expected SHA-256 {expected[:16]}, found {found[:16]}"
        raise ModelFileError(f"{path}: damaged or changed after it was saved: {digests}. {cure}")


def _read_dataset(dataset: h5py.Dataset, max_bytes: int) -> np.ndarray:
    """Read a data set that lies inside the file and is no larger than the file."""
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual or dataset.nbytes > max_bytes:
        raise ModelFileError(
            f"{dataset.file.filename}: {dataset.name} lies outside the file or claims more bytes than the file has. "
            "Do not use this file."
        )
    return dataset[()]


def _check_fit(model: keras.Model, info: ModelInfo, path: Path) -> None:
    """Compare the model's ends with ModelInfo."""
    expected = (None, info.image_size, info.image_size, 1), (None, len(info.findings))
    found = tuple(model.input_shape), tuple(model.output_shape)
    if found != expected or not 0 < info.image_size <= MAX_IMAGE_SIZE:
        raise ModelFileError(
            f"{path}: expected input {expected[0]} and output {expected[1]} for {len(info.findings)} findings at "
            f"{info.image_size} px (at most {MAX_IMAGE_SIZE}), found input {found[0]} and output {found[1]}."
        )
    largest = max(math.prod(layer.output.shape[1:]) for layer in model.layers)
    limit = STEM_CHANNELS * (info.image_size // 2 + MAX_STEP) ** 2
    if largest > limit:
        raise ModelFileError(f"{path}: a layer gives {largest:,} numbers; expected at most {limit:,} of DenseNet121.")
    missing = {"relu", "logits", "probabilities"} - {layer.name for layer in model.layers}
    if missing:
        raise ModelFileError(f"{path}: the network has no layer named {', '.join(sorted(missing))}.")


def check_keras_version() -> None:
    """Refuse versions that load what they should not. Raises: ModelFileError."""
    found = tuple(int(part) for part in keras.__version__.split(".")[:3] if part.isdecimal())
    if found < MIN_KERAS:
        floor = ".".join(map(str, MIN_KERAS))
        raise ModelFileError(f"Keras {keras.__version__} does not load .h5 files safely: expected {floor} or newer.")


@contextlib.contextmanager
def save_warnings_silenced() -> Iterator[None]:
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
