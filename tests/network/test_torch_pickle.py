"""PyTorch's files read without PyTorch: both formats, and what is refused before it can do harm."""

import argparse
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict

import numpy as np
import pytest
from torch_files import FakeTensor, script_zip, tensors, torch_legacy, torch_zip, zip_of

from cxr.network.pickle_machine import PickleError
from cxr.network.torch_pickle import TorchTensor, open_torch_file


def loaded(path):
    """Read a file wholly: its content with an array for each tensor."""

    def load(value):
        if isinstance(value, dict):
            return {key: load(one) for key, one in value.items()}
        return value.load() if isinstance(value, TorchTensor) else value

    with open_torch_file(path) as content:
        return load(content)


@pytest.fixture
def refused(tmp_path):
    """Return the message with which a file of the given bytes is refused."""

    def check(data):
        path = tmp_path / "file.pt"
        path.write_bytes(data)
        with pytest.raises(PickleError) as caught:
            loaded(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return check


@pytest.mark.parametrize("write", [torch_zip, torch_legacy])
def test_tensors_of_every_kind_are_what_was_written(tmp_path, write):
    random = np.random.default_rng(0)
    base = random.normal(size=(6, 5)).astype("f4")
    arrays = {
        "plain": random.normal(size=(2, 3, 4)).astype("f4"),
        "half": random.normal(size=7).astype("f2"),
        "double": random.normal(size=(3, 1)),
        "count": np.array(11, "i8"),
        "empty": np.zeros((0, 3), "f4"),
        "turned": base.T,
        "part": base[2:5, 1:4],
    }
    content = tensors(arrays)
    content["parameter"] = FakeTensor(arrays["plain"], parameter=True)
    path = tmp_path / "file.pt"
    path.write_bytes(write(content))
    found = loaded(path)
    for name, array in (arrays | {"parameter": arrays["plain"]}).items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
        assert found[name].dtype == array.dtype


def test_bfloat16_is_the_upper_half_of_float32(tmp_path):
    numbers = np.array([1.0, -2.5, 0.15625], "f4")
    halves = FakeTensor((numbers.view("u4") >> 16).astype("u2"), "BFloat16Storage")
    path = tmp_path / "file.pt"
    path.write_bytes(torch_zip({"x": halves}))
    np.testing.assert_array_equal(loaded(path)["x"], numbers)


def test_checkpoint_with_settings_of_its_run_is_read(tmp_path):
    weights = tensors({"x": np.arange(3, dtype="f4")})
    weights._metadata = OrderedDict(version=1)
    checkpoint = {
        "model": weights,
        "optimizer": {"state": {0: {"step": 5}}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "on": True}]},
        "epoch": 12,
        "args": argparse.Namespace(lr=1.0, out="folder"),
        "note": None,
    }
    path = tmp_path / "file.pth"
    path.write_bytes(torch_zip(checkpoint))
    found = loaded(path)
    np.testing.assert_array_equal(found["model"]["x"], [0, 1, 2])
    assert found["optimizer"] == checkpoint["optimizer"]
    assert (found["epoch"], found["args"], found["note"]) == (12, None, None)


def test_a_scripted_module_is_a_dict_of_its_attributes_where_that_is_asked_for(tmp_path, refused):
    data = script_zip({"conv": {"weight": np.arange(6, dtype="f4").reshape(2, 3)}, "pool": {}})
    path = tmp_path / "script.pt"
    path.write_bytes(data)
    with open_torch_file(path, scripted=True) as content:
        np.testing.assert_array_equal(content["conv"].pop("weight").load(), [[0, 1, 2], [3, 4, 5]])
        assert content == {"training": False, "conv": {"training": False}, "pool": {"training": False}}
    assert "__torch__.Net" in refused(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"c__torch__\nNet\n)\x81K\x07b.", "attributes for what is no module"),
        (b"]}b.", "attributes for what is no module"),
        (b"ctorch.jit._pickle\nbuild_intlist\n)R.", "a damaged pickle"),
        (b"c__torch__\nNet\n)\x81}(]K\x01ub.", "a dict whose keys are not plain values"),
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
    ],
)
@pytest.mark.fault("P01")
def test_a_scripted_archive_is_read_as_suspiciously(tmp_path, text, message):
    path = tmp_path / "script.pt"
    path.write_bytes(zip_of(b"\x80\x02" + text))
    with pytest.raises(PickleError, match=message), open_torch_file(path, scripted=True):
        pass


class _Calls:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.fault("P01")
def test_other_names_are_refused_by_name_and_nothing_runs(tmp_path, refused, protocol):
    proof = tmp_path / "it-ran"
    data = pickle.dumps({"x": _Calls(open, str(proof), "w")}, protocol)
    assert "io.open" in refused(zip_of(data))
    if protocol:  # the pickles of a file without a ZIP archive start with their protocol
        assert "io.open" in refused(data)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (b"(S'true'\nios\nsystem\n.", "os.system"),
        (b"cbuiltins\neval\n.", "builtins.eval"),
        (b"ctorchvision.models.densenet\nDenseNet\n)\x81.", "torchvision.models.densenet.DenseNet"),
        (b"cnumpy.core.multiarray\nscalar\n.", "numpy.core.multiarray.scalar"),
        (b"ctorch.storage\n_load_from_bytes\n.", "torch.storage._load_from_bytes"),
        (b"ccollections\nOrderedDict.__init__\n.", "collections.OrderedDict.__init__"),
        (b"c\x1b[31m\nx\n.", r"\x1b[31m.x"),
    ],
)
@pytest.mark.fault("P01")
def test_each_name_is_told(refused, text, name):
    assert name in refused(zip_of(b"\x80\x02" + text))


@pytest.mark.parametrize(
    "text",
    [
        b"ctorch\nFloatStorage\n)R.",  # a storage that is called
        b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x02K\x03K\x04tR.",  # a tensor without its numbers
        b"ccollections\nOrderedDict\n(](]K\x01aatR.",  # pairs that are none
        b"\x82\x01.",  # a registered extension
        b".",
        b"]K\x01K\x02s.",
        b"K\x01Q.",
        b"h\x05.",
        b"}(]K\x01u.",
        b"\x8a\xff.",
        b"",
    ],
)
@pytest.mark.fault("P02")
def test_damaged_pickles_are_refused(refused, text):
    assert refused(zip_of(b"\x80\x02" + text))


@pytest.mark.fault("P03")
def test_tuple_of_itself_a_thousand_times_over_costs_nothing(refused):
    nested = b"\x80\x02)" + b"2\x86" * 1000
    assert "damaged" in refused(zip_of(nested + b"Q."))  # to print or to compare it would take for ever
    assert "call" in refused(zip_of(nested + b"2R."))
    assert "plain values" in refused(zip_of(b"\x80\x02}" + nested[2:] + b"K\x01s."))


@pytest.mark.parametrize(
    "text",
    [
        b"\x8e" + struct.pack("<Q", 2**40) + b"x.",  # BINBYTES8
        b"B" + struct.pack("<I", 2**31) + b"x.",  # BINBYTES
        b"\x8b" + struct.pack("<i", 2**30) + b"1.",  # LONG4
        b"\x8d" + struct.pack("<Q", 2**50) + b"x.",  # BINUNICODE8
        b"0" * 3,
    ],
)
@pytest.mark.fault("P03")
def test_claims_of_gigabytes_are_refused(refused, text):
    assert refused(zip_of(b"\x80\x04" + text))


@pytest.mark.fault("P03")
def test_place_far_out_in_the_memo_costs_nothing(tmp_path):
    path = tmp_path / "file.pt"
    path.write_bytes(zip_of(b"\x80\x04}r" + struct.pack("<I", 2**32 - 1) + b"."))
    assert loaded(path) == {}


@pytest.mark.fault("P03")
def test_pickle_of_a_million_steps_is_refused(refused):
    assert "1,000,000 steps" in refused(zip_of(b"\x80\x02" + b"N0" * 600_000 + b"N."))
    assert "claims" in refused(zip_of(b"\x80\x02" + b"N0" * 4_100_000 + b"N."))


@pytest.mark.fault("P03")
def test_tensor_larger_than_its_numbers_is_refused_before_it_is_read(tmp_path, refused):
    good = torch_zip(tensors({"x": np.ones((2, 3), "f4")}))
    text = zipfile.ZipFile(_file(tmp_path, good)).read("archive/data.pkl")
    assert text.count(b"K\x02K\x03\x86") == 1
    huge = text.replace(b"K\x02K\x03\x86", b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86")
    assert "impossible shape" in refused(zip_of(huge, {"0": bytes(24)}))
    assert "beyond its 6 numbers" in refused(
        zip_of(text.replace(b"K\x02K\x03\x86", b"K\x03K\x03\x86"), {"0": bytes(24)})
    )
    assert "expected 24 bytes, found 8" in refused(zip_of(text, {"0": bytes(8)}))
    assert "claims 28 bytes" in refused(zip_of(text, {"0": bytes(28)}))
    assert "is missing" in refused(zip_of(text))


@pytest.mark.fault("P03")
def test_compressed_members_are_refused(refused):
    bomb = torch_zip(tensors({"x": np.zeros(1_000_000, "f4")}), zipfile.ZIP_DEFLATED)
    assert len(bomb) < 20_000
    assert "is compressed" in refused(bomb)


@pytest.mark.parametrize("write", [torch_zip, torch_legacy])
@pytest.mark.fault("P02")
def test_file_cut_anywhere_is_refused(tmp_path, write):
    whole = write(tensors({"x": np.arange(40, dtype="f4"), "y": np.arange(5, dtype="f8")}))
    path = tmp_path / "file.pt"
    for end in range(5, len(whole) - 1, 7):
        path.write_bytes(whole[:end])
        with pytest.raises(PickleError):
            loaded(path)


@pytest.mark.parametrize("write", [torch_zip, torch_legacy])
@pytest.mark.fault("P02")
def test_changed_byte_is_refused_or_changes_a_value(tmp_path, write):
    whole = write(tensors({"x": np.arange(40, dtype="f4")}))
    path, random = tmp_path / "file.pt", np.random.default_rng(0)
    for position in random.integers(2, len(whole), 300):
        changed = bytearray(whole)
        changed[position] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
        try:
            found = loaded(path)
        except PickleError:
            continue
        assert isinstance(found, dict)
        if write is torch_zip:  # each member has a checksum
            assert all(np.array_equal(one, np.arange(40)) for one in found.values() if isinstance(one, np.ndarray))


def test_big_endian_is_refused(refused):
    assert "big-endian" in refused(
        torch_zip({}).replace(b"little", b"big   ").replace(_crc(b"little"), _crc(b"big   "))
    )
    assert "big-endian" in refused(torch_legacy({}, little_endian=False))


def _crc(data):
    return struct.pack("<I", zlib.crc32(data))


def _file(tmp_path, data):
    path = tmp_path / "written.pt"
    path.write_bytes(data)
    return path
