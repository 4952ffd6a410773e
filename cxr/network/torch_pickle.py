"""Tensors out of PyTorch's files (.pt, .pth, .bin), with NumPy alone and without executing anything.

Owns the two formats of torch.save, the one of torch.jit.save, and the names that they consist of; pickles are read in
pickle_machine. Tensors stay in the file until their shape has been looked at.
"""

import contextlib
import io
import math
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cxr.network.pickle_machine import MAX_PICKLE_BYTES, Name, PickleError, PickleMachine, dict_of, quoted

KERAS_MEMBERS = {"config.json", "model.weights.h5"}  # of a .keras archive
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of a file from before the zip format (torch/serialization.py)
LEGACY_PROTOCOL = 1001
ZIP_START = b"PK\x03\x04"
BIG_ENDIAN = "tensors in big-endian byte order; save the file again on a usual machine"

# Storage classes and their NumPy type. bfloat16 is the upper half of a float32.
STORAGES = {
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": np.dtype("<u2"),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ShortStorage": np.dtype("<i2"),
    "torch.CharStorage": np.dtype("<i1"),
    "torch.ByteStorage": np.dtype("<u1"),
    "torch.BoolStorage": np.dtype("?"),
}
REBUILD_TENSOR = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
ORDERED_DICT = "collections.OrderedDict"
SETTINGS = "argparse.Namespace"  # a run's arguments, beside the weights in many checkpoints; never built, only skipped
SCRIPT_MODULE = "__torch__."  # begins the name of every module class in an archive of torch.jit.save
SCRIPT_LIST = "torch.jit._pickle.build_"  # and of what makes a list of numbers there
MAX_ELEMENTS = 2**40
MAX_DIMENSIONS = 8
KNOWN_NAMES = {*STORAGES, *REBUILD_TENSOR, REBUILD_PARAMETER, ORDERED_DICT, SETTINGS}


@dataclass(frozen=True)
class _Storage:
    """A run of numbers in the file: its class, its key, and how many there are."""

    kind: str
    key: str
    num_elements: int


@dataclass(frozen=True)
class TorchTensor:
    """A tensor that is still in its file.

    Attributes:
        shape: as stated by the file; nothing has been allocated for it.
    """

    shape: tuple[int, ...]
    _storage: _Storage
    _offset: int
    _strides: tuple[int, ...]
    _read: Callable[[_Storage], np.ndarray]

    def load(self) -> np.ndarray:
        """Read the numbers. Raises: PickleError where the file has fewer than it states."""
        storage = self._read(self._storage)
        if 0 in self.shape:
            return np.zeros(self.shape, storage.dtype)
        last = self._offset + sum((n - 1) * stride for n, stride in zip(self.shape, self._strides, strict=True))
        if last >= len(storage):
            raise PickleError(f"a tensor of shape {self.shape} reaches beyond its {len(storage)} numbers")
        strides = [stride * storage.itemsize for stride in self._strides]
        view = np.lib.stride_tricks.as_strided(storage[self._offset :], self.shape, strides, writeable=False)
        array = np.ascontiguousarray(view).reshape(self.shape)
        if self._storage.kind == "torch.BFloat16Storage":
            return (array.astype("<u4") << 16).view("<f4")
        return array


def is_torch_file(start: bytes) -> bool:
    """Tell from the first bytes whether `open_torch_file` is the reader for a file."""
    return start.startswith(ZIP_START) or start[:1] == b"\x80"


@contextlib.contextmanager
def open_torch_file(path: str | os.PathLike, scripted: bool = False) -> Iterator[Any]:
    """Open what torch.save wrote, in the zip format or the one before it (torch/serialization.py).

    Args:
        scripted: read what torch.jit.save wrote too: a dict of its attributes for each module. Its code is not run.
    Yields: dicts, lists, tuples and plain values, with a TorchTensor for each tensor, to be loaded while it is open.
    Raises:
        PickleError: anything but a state dict, or a checkpoint that holds one; a damaged file.
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        num_bytes = os.fstat(file.fileno()).st_size
        zipped = file.read(4) == ZIP_START
        file.seek(0)
        if not zipped:
            yield _read_legacy(file, num_bytes)
            return
        with _zip_faults():
            archive = zipfile.ZipFile(file)
        yield _read_zip(archive, num_bytes, scripted)


@contextlib.contextmanager
def _zip_faults() -> Iterator[None]:
    """Say in one way what zipfile raises on damaged archives, and on encrypted or oddly compressed ones."""
    try:
        yield
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise PickleError(f"a damaged ZIP archive ({quoted(error)})") from error


def _read_zip(archive: zipfile.ZipFile, num_bytes: int, scripted: bool) -> Any:
    """Read ARCHIVE/data.pkl; its tensors lie in ARCHIVE/data/KEY, uncompressed."""
    pickles = [name for name in archive.namelist() if name.endswith("data.pkl") and name.count("/") <= 1]
    if set(archive.namelist()) >= KERAS_MEMBERS:
        raise PickleError("a whole model of Keras; give its weights, by model.save_weights('x.weights.h5')")
    if len(pickles) != 1:
        raise PickleError("a ZIP archive without PyTorch's data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    content = _zip_member(archive, pickles[0], min(num_bytes, MAX_PICKLE_BYTES))
    # Files from before 2023 do not state their byte order and are little-endian.
    order = f"{folder}byteorder"
    if order in archive.namelist() and _zip_member(archive, order, 16) != b"little":
        raise PickleError(BIG_ENDIAN)

    def read(storage: _Storage) -> np.ndarray:
        expected = storage.num_elements * STORAGES[storage.kind].itemsize
        data = _zip_member(archive, f"{folder}data/{storage.key}", min(num_bytes, expected))
        if len(data) != expected:
            raise PickleError(f"tensor data {quoted(storage.key)}: expected {expected:,} bytes, found {len(data):,}")
        return np.frombuffer(data, STORAGES[storage.kind])

    return _Reader(read, scripted).run(io.BytesIO(content))


def _zip_member(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    """Read a member that is stored as it is, after a look at its size; zipfile checks its CRC-32."""
    try:
        member = archive.getinfo(name)
    except KeyError:
        raise PickleError(f"tensor data {quoted(name)} is missing") from None
    if member.compress_type != zipfile.ZIP_STORED:
        raise PickleError(f"{quoted(name)} is compressed, which PyTorch's files are not")
    if member.file_size > max_bytes or member.file_size != member.compress_size:
        raise PickleError(f"{quoted(name)} claims {member.file_size:,} bytes; expected at most {max_bytes:,}")
    with _zip_faults():
        return archive.read(member)


def _read_legacy(file: BinaryIO, num_bytes: int) -> Any:
    """Read magic number, protocol, system, content and storage keys, five pickles, then the storages one by one."""
    places: dict[str, int] = {}  # storage key -> position of its numbers, which are inside the file

    def read(storage: _Storage) -> np.ndarray:
        if storage.key not in places:
            raise PickleError(f"tensor data {quoted(storage.key)} is missing")
        kind = STORAGES[storage.kind]
        file.seek(places[storage.key])
        return np.frombuffer(file.read(storage.num_elements * kind.itemsize), kind)

    reader = _Reader(read)
    if reader.run(file) != LEGACY_MAGIC or reader.run(file) != LEGACY_PROTOCOL:
        raise PickleError("a pickle, but not one that torch.save wrote")
    system = reader.run(file)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise PickleError(BIG_ENDIAN)
    content, keys = reader.run(file), reader.run(file)
    if not isinstance(keys, list):
        raise PickleError("a list of its tensors was expected and not found")
    for key in keys:
        storage = reader.storages.get(key) if isinstance(key, str) else None
        count = int.from_bytes(file.read(8), "little", signed=True)
        if storage is None or count != storage.num_elements:
            raise PickleError(f"tensor data {quoted(key)} does not have the length that the file states")
        places[storage.key] = file.tell()
        end = file.tell() + count * STORAGES[storage.kind].itemsize
        if end > num_bytes:
            raise PickleError("the file ends before its tensors do")
        file.seek(end)
    return content


class _Reader:
    """What the names of a state dict stand for; notes the storages that its pickles refer to."""

    def __init__(self, read: Callable[[_Storage], np.ndarray], scripted: bool = False) -> None:
        self.storages: dict[str, _Storage] = {}
        self._read = read
        usual = PickleMachine(KNOWN_NAMES, self._make, self._storage)
        self.run = (replace(usual, build=_fill, known_starts=(SCRIPT_MODULE, SCRIPT_LIST)) if scripted else usual).run

    def _make(self, name: str, arguments: tuple) -> Any:
        if name == ORDERED_DICT:
            return dict_of(arguments)
        if name in REBUILD_TENSOR:
            return self._tensor(*arguments[:4])
        if name == REBUILD_PARAMETER and isinstance(arguments[0], TorchTensor):
            return arguments[0]
        if name == SETTINGS:
            return None
        if name.startswith((SCRIPT_MODULE, SCRIPT_LIST)):
            return {} if name.startswith(SCRIPT_MODULE) else arguments[0]
        raise PickleError(f"a call of {name}")

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any) -> TorchTensor:
        numbers = (offset, *shape, *strides)
        if not isinstance(storage, _Storage) or len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
            raise PickleError("a tensor without its numbers")
        if not all(type(one) is int and 0 <= one < MAX_ELEMENTS for one in numbers) or math.prod(shape) > MAX_ELEMENTS:
            raise PickleError("a tensor of impossible shape")
        return TorchTensor(tuple(shape), storage, offset, tuple(strides), self._read)

    def _storage(self, reference: Any) -> _Storage:
        """Note where a tensor's numbers are: ("storage", class, key, device, count), and a view in older files."""
        kind, name, key, _, count = reference[:5]
        plain = type(kind) is type(key) is str and type(count) is int and isinstance(name, Name)
        if not plain or kind != "storage" or name.text not in STORAGES or any(reference[5:]):
            raise PickleError("a reference to something else than the numbers of a tensor")
        if not 0 <= count < MAX_ELEMENTS:
            raise PickleError(f"a tensor of {count} numbers")
        storage = _Storage(name.text, key, count)
        if self.storages.setdefault(key, storage) != storage:
            raise PickleError(f"tensor data {quoted(key)} of two kinds")
        return storage


def _fill(module: Any, attributes: Any) -> None:
    """Give a module of torch.jit.save its attributes: parameters, buffers, settings and further modules."""
    if not isinstance(module, dict) or not isinstance(attributes, dict):
        raise PickleError("attributes for what is no module")
    module.update(attributes)
