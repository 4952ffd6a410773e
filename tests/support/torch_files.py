"""Files in PyTorch's formats, written without PyTorch: pickles name its classes, which stand-ins take the place of."""

import contextlib
import io
import json
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np

STORAGE_NAMES = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "i8": "LongStorage"}


class FakeTensor:
    """A tensor for the writers: an array, or any view of one, and how it is said to be stored."""

    def __init__(self, array, storage_name=None, parameter=False):
        self.array, self.parameter = np.asarray(array), parameter
        self.storage_name = storage_name or STORAGE_NAMES[self.array.dtype.str[1:]]
        base = self.array
        while isinstance(base.base, np.ndarray):
            base = base.base
        self.storage = base.reshape(-1)

    def __reduce__(self):
        modules = sys.modules
        offset = (self.array.ctypes.data - self.storage.ctypes.data) // self.array.itemsize
        strides = tuple(step // self.array.itemsize for step in self.array.strides)
        arguments = (_StorageOf(self), offset, self.array.shape, strides, False, OrderedDict())
        rebuild = modules["torch._utils"]._rebuild_tensor_v2
        if not self.parameter:
            return rebuild, arguments
        plain = FakeTensor(self.array, self.storage_name)
        return modules["torch._utils"]._rebuild_parameter, (plain, True, OrderedDict())


class _StorageOf:
    def __init__(self, tensor):
        self.tensor = tensor


class _Pickler(pickle.Pickler):
    """A pickler that writes storages as references to something outside, as torch.save does."""

    def __init__(self, file, legacy):
        super().__init__(file, protocol=2)
        self.legacy, self.storages = legacy, {}

    def persistent_id(self, value):
        if not isinstance(value, _StorageOf):
            return None
        tensor = value.tensor
        key, _ = self.storages.setdefault(id(tensor.storage.base), (str(len(self.storages)), tensor.storage))
        kind = getattr(sys.modules["torch"], tensor.storage_name)
        reference = ("storage", kind, key, "cpu", tensor.storage.size)
        return (*reference, None) if self.legacy else reference


@contextlib.contextmanager
def stand_in_torch():
    """Let the names of PyTorch be found while a pickle is written."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("FloatStorage", "DoubleStorage", "HalfStorage", "BFloat16Storage", "LongStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        function = types.FunctionType((lambda *arguments: None).__code__, {}, name)
        function.__module__, function.__qualname__ = "torch._utils", name
        setattr(utils, name, function)
    torch._utils = utils
    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules |= {"torch": torch, "torch._utils": utils}
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _pickled(content, legacy):
    buffer = io.BytesIO()
    with stand_in_torch():
        pickler = _Pickler(buffer, legacy)
        pickler.dump(content)
    return buffer.getvalue(), list(pickler.storages.values())


def torch_zip(content, compression=zipfile.ZIP_STORED):
    """Return what torch.save writes since 1.6: a ZIP archive of a pickle and one member per storage."""
    data, storages = _pickled(content, legacy=False)
    return zip_of(data, {key: storage.tobytes() for key, storage in storages}, compression)


def zip_of(pickle_bytes, storages=(), compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickle_bytes)
        archive.writestr("archive/byteorder", "little")
        for key, numbers in dict(storages).items():
            archive.writestr(f"archive/data/{key}", numbers)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def script_zip(modules):
    """Return what torch.jit.save writes: modules of classes without a source, here one chain of named children.

    Args:
        modules: name -> arrays by attribute name.
    """
    script = types.ModuleType("__torch__")
    kinds = {name: type(name, (), {"__module__": script.__name__}) for name in ("Net", "Layer")}
    for name, kind in kinds.items():
        setattr(script, name, kind)
    root = kinds["Net"]()
    root.training = False
    for name, arrays in modules.items():
        layer = kinds["Layer"]()
        layer.__dict__ |= {"training": False, **tensors(arrays)}
        setattr(root, name, layer)
    sys.modules[script.__name__] = script
    try:
        return torch_zip(root)
    finally:
        del sys.modules[script.__name__]


def torch_legacy(content, little_endian=True):
    """Return what torch.save wrote before 1.6: five pickles, then the storages."""
    data, storages = _pickled(content, legacy=True)
    system = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [pickle.dumps(one, protocol=2) for one in (0x1950A86A20F9469CFC6C, 1001, system)]
    parts += [data, pickle.dumps([key for key, _ in storages], protocol=2)]
    parts += [struct.pack("<q", storage.size) + storage.tobytes() for _, storage in storages]
    return b"".join(parts)


def safetensors_file(arrays):
    """Return a safetensors file (its README, "Format"): length of the header, header as JSON, numbers."""
    names = {"f4": "F32", "f8": "F64", "f2": "F16", "i8": "I64"}
    header, position = {}, 0
    for name, array in arrays.items():
        end = position + array.nbytes
        kind = names[array.dtype.str[1:]]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(array.tobytes() for array in arrays.values())


def tensors(arrays):
    """Return a state dict of arrays, as torch.save is given it."""
    return OrderedDict((name, FakeTensor(array)) for name, array in arrays.items())
