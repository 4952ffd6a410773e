"""Published PyTorch weights in this project's network: names, layouts, the folded normalisation, hostile files."""

import io
import json
import os
import struct
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from torch_densenet import densenet_arrays, layer_names
from torch_files import safetensors_file, tensors, torch_legacy, torch_zip

from cxr.network.densenet import IMAGENET_MEAN, IMAGENET_STD, build_network
from cxr.network.model_info import ModelFileError
from cxr.network.published_weights import expected_layers, fold_normalisation, read_published_weights
from cxr.network.start_weights import load_start_weights

THREE = ((0.5056,) * 3, (0.252,) * 3)
ONE = ((0.5,), (1 / 2048,))


@pytest.fixture
def write(tmp_path):
    def write_file(data, name="weights.bin"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write_file


def test_name_map_is_complete_both_ways():
    ours = {layer.name for layer in build_network(["A"], 64).layers if layer.weights}
    assert {name for _, name, _ in expected_layers()} == ours - {"logits", "imagenet_normalisation"}
    assert [(theirs, name) for theirs, name, _ in expected_layers()] == layer_names()


@pytest.fixture(scope="module")
def arrays():
    return densenet_arrays()


@pytest.mark.parametrize("write_form", [
    lambda arrays: safetensors_file(arrays),
    lambda arrays: torch_zip(tensors(arrays)),
    lambda arrays: torch_legacy({"epoch": 3, "state_dict": tensors(arrays)}),
    lambda arrays: torch_zip({"model": tensors({f"module.{name}": one for name, one in arrays.items()})}),
], ids=["safetensors", "zip", "legacy checkpoint", "checkpoint of parallel training"])  # fmt: skip
def test_every_form_gives_every_tensor_its_place(write, arrays, write_form):
    found = read_published_weights(write(write_form(arrays)), IMAGENET_MEAN, IMAGENET_STD)
    for theirs, ours in layer_names():
        if f"{theirs}.bias" in arrays:
            expected = [arrays[f"{theirs}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
        else:
            expected = [np.moveaxis(arrays[f"{theirs}.weight"], (0, 1), (3, 2))]
        for one, other in zip(found.backbone[ours], expected, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=ours)
    np.testing.assert_array_equal(found.head[0].T, arrays["classifier.weight"])
    np.testing.assert_array_equal(found.select_outputs([3, 0])[0], arrays["classifier.weight"][[3, 0]].T)
    np.testing.assert_array_equal(found.select_outputs([3, 0])[1], arrays["classifier.bias"][[3, 0]])


def test_old_names_of_chexnet_are_read(write, arrays):
    def old(name):
        for part in ("norm1", "conv1", "norm2", "conv2"):
            name = name.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.") if "denselayer" in name else name
        return f"module.densenet121.{name}".replace("classifier.", "classifier.0.")

    renamed = {old(name): one for name, one in arrays.items() if "num_batches" not in name}
    assert "module.densenet121.features.denseblock1.denselayer1.norm.1.weight" in renamed
    found = read_published_weights(write(torch_legacy({"state_dict": tensors(renamed)})), IMAGENET_MEAN, IMAGENET_STD)
    plain = read_published_weights(write(safetensors_file(arrays)), IMAGENET_MEAN, IMAGENET_STD)
    for name, weights in plain.backbone.items():
        assert all(np.array_equal(*pair) for pair in zip(weights, found.backbone[name], strict=True))
    np.testing.assert_array_equal(found.head[0], plain.head[0])


def test_backbone_without_head_and_buffers_beside_it(write):
    arrays = densenet_arrays(num_channels=1, num_outputs=0)
    arrays["op_threshs"] = np.full(18, np.nan, "f4")
    assert read_published_weights(write(safetensors_file(arrays)), *ONE).head is None


def convolve(picture, kernel, padding):
    """Convolve (h, w, in) with (out, in, kh, kw) at stride 2, after zero padding, in float64: the definition."""
    padded = np.pad(picture, ((padding, padding), (padding, padding), (0, 0)))
    height, width = kernel.shape[2:]
    rows, columns = range(0, padded.shape[0] - height + 1, 2), range(0, padded.shape[1] - width + 1, 2)
    windows = np.array([[padded[y : y + height, x : x + width] for x in columns] for y in rows])
    return np.einsum("yxhwc,ochw->yxo", windows, kernel.astype(np.float64))


@pytest.mark.parametrize(("mean", "std"), [THREE, ONE, ((0.4, 0.5, 0.6), (0.2, 0.3, 0.1))])
def test_folded_stem_gives_what_the_original_gave_border_included(mean, std):
    random = np.random.default_rng(1)
    kernel = random.normal(size=(5, len(mean), 7, 7)).astype(np.float32)
    grey = random.uniform(0, 1, (20, 24, 1))
    theirs = convolve((grey - np.array(mean)) / np.array(std), kernel, padding=3)
    ours = convolve((grey - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD), fold_normalisation(kernel, mean, std), 3)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11 * np.abs(theirs).max())


def test_folding_imagenets_own_normalisation_changes_nothing():
    kernel = np.random.default_rng(2).normal(size=(5, 3, 7, 7)).astype(np.float32)
    folded = fold_normalisation(kernel, IMAGENET_MEAN, IMAGENET_STD)
    np.testing.assert_array_equal(folded.astype(np.float32), kernel)


def test_folded_kernel_of_one_channel_is_the_smallest_of_all():
    kernel = np.random.default_rng(3).normal(size=(2, 1, 7, 7))
    folded = fold_normalisation(kernel, *ONE)
    # What could be added without a change of either sum is at right angles to it.
    free = np.cross(1 / np.array(IMAGENET_STD), np.array(IMAGENET_MEAN) / np.array(IMAGENET_STD))
    np.testing.assert_allclose(np.einsum("ochw,c->ohw", folded, free), 0, atol=1e-9 * np.abs(folded).max())


def test_stem_of_the_network_itself_gives_what_the_original_gave(write):
    """The folding, the transposition and the padding at once, through Keras."""
    arrays = densenet_arrays(num_channels=1, num_outputs=2, seed=4)
    network = build_network(["A", "B"], 64)
    published = read_published_weights(write(torch_zip(tensors(arrays))), *ONE)
    network.get_layer("conv1_conv").set_weights(published.backbone["conv1_conv"])
    pixels = np.random.default_rng(5).integers(0, 256, (1, 64, 64, 1)).astype(np.float32)
    stem = keras.Model(network.input, network.get_layer("conv1_conv").output)
    found = np.asarray(stem(pixels))[0]
    expected = convolve((2 * pixels[0].astype(np.float64) / 255 - 1) * 1024, arrays["features.conv0.weight"], 3)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def changed(arrays, **changes):
    return {name: one for name, one in (arrays | changes).items() if one is not None}


NORM5 = "features.norm5.running_var"
BAD_CONTENT = [
    ({"features.norm5.bias": None}, "1 are missing: features.norm5.bias"),
    ({"features.denseblock5.denselayer1.norm1.weight": np.ones(4, "f4")}, "1 are not part of it: features.denseblock5"),
    ({"features.conv0.weight": np.ones((64, 4, 7, 7), "f4")}, "has the shape (64, 4, 7, 7), expected (64, 3, 7, 7)"),
    ({"features.conv0.weight": None}, "expected one DenseNet121"),
    ({"features.conv0.weight": np.full((64, 3, 7, 7), np.inf, "f4")}, "NaN or Inf"),
    ({NORM5: np.full(1024, np.nan, "f4")}, f"{NORM5} holds float32, NaN or Inf"),
    ({NORM5: np.full(1024, -1, "f4")}, "negative variance"),
    ({NORM5: np.full(1024, 1, "i8")}, "expected f"),
    ({"classifier.bias": None}, "1 are missing: classifier.bias"),
    ({"classifier.weight": np.ones((14, 512), "f4")}, "has the shape (14, 512), expected (14, 1024)"),
    ({"classifier.weight": np.ones((13, 1024), "f4")}, "has the shape (13, 1024), expected (14, 1024)"),
    ({"x.features.conv0.weight": np.ones((64, 3, 7, 7), "f4")}, "expected one DenseNet121"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_CONTENT, ids=[message[:30] for _, message in BAD_CONTENT])
@pytest.mark.parametrize("write_form", [safetensors_file, lambda arrays: torch_zip(tensors(arrays))],
                         ids=["safetensors", "zip"])  # fmt: skip
@pytest.mark.fault("P04")
def test_what_is_not_densenet121_is_told_in_one_line(write, arrays, changes, message, write_form):
    path = write(write_form(changed(arrays, **changes)))
    with pytest.raises(ModelFileError) as caught:
        read_published_weights(path, *THREE)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.fault("P04")
def test_head_of_another_size_than_the_findings_given(write, arrays):
    with pytest.raises(ModelFileError, match=r"\(14, 1024\), expected \(3, 1024\)"):
        read_published_weights(write(safetensors_file(arrays)), *THREE, num_outputs=3)


def zip_of(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "{}")
    return buffer.getvalue()


FOREIGN = {
    "empty": b"",
    "pointer of a large-file store": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "page": b"<!doctype html><title>404</title>",
    "archive without a pickle": torch_zip({}).replace(b"data.pkl", b"else.pkl"),
    "a whole model of Keras": zip_of("metadata.json", "config.json", "model.weights.h5"),
    "header of 2**60 bytes": struct.pack("<Q", 2**60) + b"{",
    "header of 90 MB": struct.pack("<Q", 90_000_000) + b"{}",
    "header that is no JSON": struct.pack("<Q", 5) + b"{,,,}",
    "numbers that overlap": None,
    "numbers outside": None,
    "half precision of another kind": None,
    "a list": torch_zip([1, 2]),
    "no tensors": torch_zip({"model": {"x": 1}}),
    "numbers as names": torch_zip({"model": {1: 2}}),
}


def _safetensors(header, num_bytes):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(num_bytes)


FOREIGN["numbers that overlap"] = _safetensors(
    {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
     "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, 12)  # fmt: skip
FOREIGN["numbers outside"] = _safetensors({"a": {"dtype": "F32", "shape": [2**30], "data_offsets": [0, 2**32]}}, 8)
FOREIGN["half precision of another kind"] = _safetensors(
    {"features.conv0.weight": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, 4
)


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.fault("P03", "P05")
def test_other_files_are_refused_in_one_line(write, name):
    path = write(FOREIGN[name])
    with pytest.raises(ModelFileError) as caught:
        read_published_weights(path, *THREE)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.fault("P05")
def test_a_whole_model_of_keras_is_named_with_the_way_to_its_weights(write):
    with pytest.raises(ModelFileError, match=r"a whole model of Keras; give its weights, by model\.save_weights"):
        read_published_weights(write(FOREIGN["a whole model of Keras"]), *THREE)


@pytest.mark.fault("P05")
def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(ModelFileError, match=str(path)):
            read_published_weights(path, *THREE)


@pytest.mark.fault("M61", "P05")
@pytest.mark.skipif(os.name != "posix", reason="pipes and devices as files are Unix's")
def test_a_pipe_or_device_is_named_and_never_opened(tmp_path):
    """Opened, a pipe waits for ever."""
    os.mkfifo(tmp_path / "pipe.pt")
    for path in (Path("/dev/null"), tmp_path / "pipe.pt"):
        with pytest.raises(ModelFileError, match=f"^{path}: expected a weights file, found a pipe, socket or device"):
            read_published_weights(path, *THREE)


@pytest.mark.fault("P05")
@pytest.mark.parametrize("name", ["w.safetensors", "w.PT", "w.pth"])
def test_weights_named_like_pytorchs_are_not_called_hdf5(tmp_path, name):
    (tmp_path / name).write_bytes(b"x" * 20)
    with pytest.raises(ModelFileError, match=r"neither PyTorch's nor safetensors' format; it starts with b'xxxxxxxx'"):
        load_start_weights(None, ["Mass"], str(tmp_path / name))


@pytest.mark.parametrize("write_form", [safetensors_file, lambda arrays: torch_zip(tensors(arrays))],
                         ids=["safetensors", "zip"])  # fmt: skip
@pytest.mark.fault("P02")
def test_published_file_that_ends_too_early(write, arrays, write_form):
    whole = write_form(arrays)
    for end in (9, 500, len(whole) // 2, len(whole) - 1):
        with pytest.raises(ModelFileError):
            read_published_weights(write(whole[:end]), *THREE)
