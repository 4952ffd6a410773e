"""InceptionV3 as a teacher: the weights of each source land where keras.applications has them."""

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from torch_files import script_zip, torch_zip

from cxr.distillation import inception
from cxr.distillation.inception import (
    build_teacher,
    keras_convolutions,
    load_imagenet_weights,
    read_script,
    script_convolutions,
)
from cxr.network.densenet import FusedBatchNormalization, fuse
from cxr.network.model_file import save_warnings_silenced
from cxr.network.model_info import ModelFileError

SIZE = 75


def randomise(network, seed=3):
    """Give a network weights that no two layers share, of a size that keeps its numbers finite."""
    rng = np.random.default_rng(seed)
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            shape = layer.kernel.shape
            layer.set_weights([rng.normal(0, np.sqrt(2 / np.prod(shape[:3])), shape)])
        elif isinstance(layer, keras.layers.BatchNormalization):
            beta, mean, variance = (rng.uniform(low, high, layer.beta.shape) for low, high in ((0, 1), (0, 1), (1, 2)))
            layer.set_weights([beta, mean, variance])


@pytest.fixture(scope="module")
def original():
    network = keras.applications.InceptionV3(weights=None, input_shape=(SIZE, SIZE, 3), classes=5)
    randomise(network)
    return network


@pytest.fixture(scope="module")
def teacher():
    return build_teacher(("Mass", "Edema"), SIZE, 0.9)


@pytest.mark.parametrize("name", ["whole.h5", "new.weights.h5"])
def test_a_keras_file_gives_the_features_of_keras_applications(tmp_path, original, teacher, name):
    with save_warnings_silenced():
        (original.save_weights if "weights" in name else original.save)(tmp_path / name)
    assert load_imagenet_weights(teacher, str(tmp_path / name)) == f"file {name}"
    grey = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 1)).astype(np.float32)
    prepared = keras.applications.inception_v3.preprocess_input(np.repeat(grey, 3, axis=-1))
    expected = keras.Model(original.input, original.get_layer("avg_pool").output)(prepared, training=False)
    found = keras.Model(teacher.input, teacher.get_layer("pooled").output)(grey, training=False)
    assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert np.ptp(expected) > 0.1
    assert_array_equal(teacher.get_layer("norm_93").gamma, np.ones(192, np.float32))


def test_the_teacher_is_trained_as_the_classifier_is(teacher):
    assert {"relu", "pooled", "logits", "probabilities"} <= {layer.name for layer in teacher.layers}
    assert {layer.momentum for layer in teacher.layers if isinstance(layer, keras.layers.BatchNormalization)} == {0.9}
    fused = fuse(teacher)
    assert sum(isinstance(layer, FusedBatchNormalization) for layer in fused.layers) == 94
    grey = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 1)).astype(np.float32)
    assert_allclose(fused(grey, training=False), teacher(grey, training=False), atol=1e-5)


@pytest.mark.parametrize(("findings", "size"), [((), 75), (("Mass",), 74)])
def test_no_findings_or_too_small_a_picture_is_refused(findings, size):
    with pytest.raises(ValueError, match="at least one finding and an image size of at least 75 pixels"):
        build_teacher(findings, size)


def test_pytorchs_layout_becomes_kerass():
    weight = np.arange(24, dtype=np.float64).reshape(2, 3, 2, 2)  # (out, in, height, width)
    (one,) = script_convolutions([{"weight": weight, "beta": [1, 2], "mean": [3, 4], "var": [5, 6]}])
    assert one.kernel.shape == (2, 2, 3, 2)
    assert one.kernel[1, 0, 2, 1] == weight[1, 2, 1, 0]
    assert [list(array) for array in one[1:]] == [[1, 1], [1, 2], [3, 4], [5, 6]]


def layer_arrays(number):
    shapes = {"weight": (4, 3, 1, 1), "beta": 4, "mean": 4, "var": 4}
    return {key: np.full(shape, number + 0.1 * k, "f4") for k, (key, shape) in enumerate(shapes.items())}


def test_a_torchscript_archive_is_read_in_its_order_without_pytorch(tmp_path):
    path = tmp_path / "inception.pt"
    path.write_bytes(script_zip({"second": layer_arrays(2), "first": layer_arrays(1), "pool": {}}))
    found = [[float(array.flat[0]) for array in one] for one in read_script(path)]
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
    ],
)
def test_weights_that_cannot_be_used_are_refused_in_one_sentence(tmp_path, teacher, name, write, message):
    write(tmp_path / name)
    with pytest.raises(ModelFileError, match=message) as caught:
        load_imagenet_weights(teacher, str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_without_a_network_imagenets_weights_are_refused_with_the_way_out(monkeypatch, teacher):
    def no_network(url, md5):
        raise OSError("no answer in time")

    monkeypatch.setattr(inception, "fetch_weights", no_network)
    with pytest.raises(ModelFileError, match=r"could not be fetched \(no answer in time\)\. Give --weights"):
        load_imagenet_weights(teacher, "imagenet")


def test_a_damaged_kernel_is_refused(monkeypatch, tmp_path, teacher):
    weights = [
        [*teacher.get_layer(f"conv_{k}").get_weights(), *teacher.get_layer(f"norm_{k}").get_weights()]
        for k in range(94)
    ]
    monkeypatch.setattr(inception, "read_keras_file", lambda path: [inception.Convolution(*one) for one in weights])
    for place, value in ((2, np.nan), (0, np.inf), (4, -1.0)):
        right = weights[40][place]
        weights[40][place] = np.full_like(right, value)
        with pytest.raises(ModelFileError, match="convolution 41 holds NaN, Inf or a negative variance"):
            load_imagenet_weights(teacher, "x.h5")
        weights[40][place] = right
    weights[7][0] = weights[7][0][..., :3]
    with pytest.raises(ModelFileError, match="convolution 8 of 94 has weights of shape"):
        load_imagenet_weights(teacher, "x.h5")
