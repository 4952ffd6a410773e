"""The network's graph and normalisation, and the weights it starts from."""

import contextlib
import time
import urllib.error

import h5py
import keras
import numpy as np
import pytest

from cxr.network import start_weights
from cxr.network.densenet import build_network
from cxr.network.input_check import Source
from cxr.network.model_file import save_model
from cxr.network.model_info import ModelFileError, ModelInfo
from cxr.network.start_weights import StartWeights, load_start_weights, save_start_weights

FINDINGS = ("Mass", "Nodule", "Edema")


SIZE = 32


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(1)
    return build_network(FINDINGS, SIZE, batch_norm_momentum=0.9)


@pytest.fixture(scope="module")
def other():
    """A network of the same form with other weights; tests give it weights again and again."""
    keras.utils.set_random_seed(2)
    return build_network(FINDINGS, SIZE)


def backbone_weights(model):
    return {
        variable.path: variable.numpy()
        for layer in model.layers
        if layer.name != "logits"
        for variable in layer.weights
    }


def assert_same_backbone(model, expected, rtol=0.0):
    for path, weight in backbone_weights(model).items():
        np.testing.assert_allclose(weight, expected[path], rtol=rtol, atol=1e-7 if rtol else 0, err_msg=path)


def randomise(model, seed):
    rng = np.random.default_rng(seed)
    model.set_weights([rng.uniform(0.1, 1.0, w.shape).astype(np.float32) for w in model.get_weights()])


def test_half_precision_file_restores_the_backbone(network, other, tmp_path):
    randomise(network, 3)
    save_start_weights(network, tmp_path / "start.h5", "a test")
    head = other.get_layer("logits").get_weights()
    assert load_start_weights(other, FINDINGS, str(tmp_path / "start.h5")) == StartWeights("a test", pretrained=True)
    assert_same_backbone(other, backbone_weights(network), rtol=2**-11)  # float16 keeps 11 bits
    np.testing.assert_array_equal(other.get_layer("logits").get_weights()[0], head[0])
    assert (tmp_path / "start.h5").stat().st_size <= 15e6
    assert [path.name for path in tmp_path.iterdir()] == ["start.h5"]


def test_half_precision_file_gives_its_head_to_the_same_findings_only(network, other, tmp_path):
    randomise(network, 12)
    save_start_weights(network, tmp_path / "start.h5", "a test", FINDINGS)
    randomise(other, 13)
    before = other.get_layer("logits").get_weights()[0]
    swapped = (FINDINGS[1], FINDINGS[0], *FINDINGS[2:])
    assert not load_start_weights(other, swapped, str(tmp_path / "start.h5")).head
    np.testing.assert_array_equal(other.get_layer("logits").get_weights()[0], before)
    assert load_start_weights(other, FINDINGS, str(tmp_path / "start.h5")).head
    for found, expected in zip(
        other.get_layer("logits").get_weights(), network.get_layer("logits").get_weights(), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=2**-11, atol=1e-7)


def test_half_precision_file_refuses_what_it_cannot_hold(network, tmp_path):
    randomise(network, 4)
    layer = network.get_layer("conv1_conv")
    layer.set_weights([layer.get_weights()[0] + 1e5])
    with pytest.raises(ModelFileError, match="conv1_conv/kernel is not finite in half precision"):
        save_start_weights(network, tmp_path / "start.h5", "a test")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("findings", [FINDINGS, ("Mass", "Nodule", "Hernia")])
def test_own_model_file_gives_backbone_and_head_of_the_same_findings(network, other, tmp_path, findings):
    randomise(network, 5)
    randomise(other, 6)
    sources = (Source("nih", "films", 2300, 9), Source("other", num_images=7), Source(num_images=1), Source("empty"))
    save_model(network, ModelInfo(FINDINGS, SIZE, weights_origin="none", sources=sources), tmp_path / "model.h5")
    assert (tmp_path / "model.h5").stat().st_size < 29.8e6  # the other 0.2 MB are for the feature statistics
    start = load_start_weights(other, findings, str(tmp_path / "model.h5"))
    assert start.origin == "model.h5: none, then trained on 2,300 films and 7 images of other and 1 images"
    assert_same_backbone(other, backbone_weights(network))
    same_head = np.array_equal(other.get_layer("logits").get_weights()[0], network.get_layer("logits").get_weights()[0])
    assert same_head == (findings == FINDINGS)


def old_name(name):
    """Name a DenseNet121 layer as Keras 2 did: "conv1/conv", "conv1/bn"; the others kept their names."""
    return name.replace("conv1_", "conv1/", 1) if name in ("conv1_conv", "conv1_bn") else name


def numbered_name(name):
    """A name that has nothing in common with this network's."""
    return f"layer_of_another_tool_{name.upper()}"


@pytest.mark.parametrize(
    ("rename", "group_name"),
    [(str, "/"), (old_name, "/"), (old_name, "model_weights"), (numbered_name, "model_weights")],
)
def test_keras_files_of_any_age_load_by_name_or_order(network, other, tmp_path, rename, group_name):
    """The file is written as Keras 2 wrote it: names as bytes, "/" inside them, ":0" at the end of weight names."""
    randomise(network, 7)
    randomise(other, 8)
    with h5py.File(tmp_path / "notop.h5", "w") as file:
        group = file.require_group(group_name)
        layers = [layer for layer in network.layers if layer.name not in ("logits", "pooled", "probabilities")]
        group.attrs["layer_names"] = [rename(layer.name).encode() for layer in layers]
        for layer in layers:
            one = group.create_group(rename(layer.name))
            names = [f"{rename(layer.name)}/{variable.name}:0" for variable in layer.weights]
            one.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.get_weights(), strict=True):
                one.create_dataset(name, data=weight)
    start = load_start_weights(other, FINDINGS, str(tmp_path / "notop.h5"))
    assert start.origin == "file notop.h5"
    assert_same_backbone(other, backbone_weights(network))


def write_keras_2_file(path, backbone, head_name, kind):
    """Write what Keras 2.1 wrote for DenseNet121, average pooling and a sigmoid layer of 14.

    Args:
        backbone: keras.applications' DenseNet121 without top; the head is random.
        kind: "weights" as of save_weights, "model" as of save (with optimiser), "nested" as of a model in which the
            backbone is one layer.
    """
    rng = np.random.default_rng(4)
    kept = {"conv1_conv": "conv1/conv", "conv1_bn": "conv1/bn", "conv1_relu": "conv1/relu"}
    flat = [(kept.get(layer.name, layer.name), layer) for layer in backbone.layers]
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = b"2.1.6", b"tensorflow"
        group = file if kind == "weights" else file.create_group("model_weights")
        if kind != "weights":
            file.attrs["model_config"] = b'{"class_name": "Model", "config": {"name": "model_1"}}'
            file.create_group("optimizer_weights").attrs["weight_names"] = [b"Adam/iterations:0"]
        stored = {name: [(name, layer)] for name, layer in flat} if kind != "nested" else {"densenet121": flat}
        stored |= {"global_average_pooling2d_1": [], head_name: []}
        group.attrs["layer_names"] = [name.encode() for name in stored]
        for stored_name, layers in stored.items():
            one = group.create_group(stored_name)
            arrays = {
                f"{name}/{variable.name}:0": variable.numpy() for name, layer in layers for variable in layer.weights
            }
            if stored_name == head_name:
                arrays = {f"{head_name}/kernel:0": rng.normal(size=(1024, 14)), f"{head_name}/bias:0": np.zeros(14)}
            one.attrs["weight_names"] = [name.encode() for name in arrays]
            for name, array in arrays.items():
                one.create_dataset(name, data=array.astype(np.float32))


@pytest.fixture(scope="module")
def old_backbone():
    keras.utils.set_random_seed(3)
    backbone = keras.applications.DenseNet121(input_shape=(SIZE, SIZE, 3), include_top=False, weights=None)
    rng = np.random.default_rng(5)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            low_high = ((0.8, 1.2), (-0.1, 0.1), (-0.1, 0.1), (0.8, 1.2))  # gamma, beta, moving mean, moving variance
            layer.set_weights([rng.uniform(*span, layer.gamma.shape) for span in low_high])
    return backbone


@pytest.mark.parametrize(
    ("head_name", "kind"),
    [("predictions", "weights"), ("dense_1", "weights"), ("dense_1", "model"), ("dense_1", "nested")],
    ids=["CheXNet-Keras", "course, weights", "course, whole model", "backbone nested"],
)
def test_densenet_files_of_keras_2_give_the_old_models_features(old_backbone, other, tmp_path, head_name, kind):
    write_keras_2_file(tmp_path / "old.h5", old_backbone, head_name, kind)
    head = other.get_layer("logits").get_weights()
    start = load_start_weights(other, FINDINGS, str(tmp_path / "old.h5"))
    assert (start.pretrained, start.head) == (True, False)
    assert start.note == "old.h5 has a head of 14 outputs without names; a new one is trained."
    for before, after in zip(head, other.get_layer("logits").get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    radiographs = np.random.default_rng(6).integers(0, 256, (2, SIZE, SIZE, 1)).astype(np.uint8)
    rgb = keras.applications.densenet.preprocess_input(np.repeat(radiographs, 3, axis=-1).astype(np.float32))
    expected = np.asarray(old_backbone(rgb, training=False))
    features = keras.Model(other.input, other.get_layer("relu").output)(radiographs, training=False)
    assert expected.std() > 0.01
    np.testing.assert_allclose(np.asarray(features), expected, rtol=1e-4, atol=1e-4)


def write_text(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\n")


def write_nan(path):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["conv1_conv"]
        file.create_group("conv1_conv").attrs["weight_names"] = ["kernel"]
        file["conv1_conv"]["kernel"] = np.full((7, 7, 3, 64), np.nan, np.float32)


def write_one_layer(path):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["conv1_conv"]
        file.create_group("conv1_conv").attrs["weight_names"] = ["kernel"]
        file["conv1_conv"]["kernel"] = np.zeros((7, 7, 3, 64), np.float32)


def write_foreign_hdf5(path):
    with h5py.File(path, "w") as file:
        file["x"] = 1


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no such weights file"),
        (write_text, "expected an HDF5 weights file"),
        (write_foreign_hdf5, "expected Keras' HDF5 layout"),
        (write_nan, "layer conv1_conv holds NaN or Inf"),
        (write_one_layer, "expected the 241 weighted layers of DenseNet121, found 1 layers; 240 are missing"),
    ],
)
def test_bad_weights_files_are_refused(other, tmp_path, write, message):
    write(tmp_path / "bad.h5")
    with pytest.raises(ModelFileError, match=message):
        load_start_weights(other, FINDINGS, str(tmp_path / "bad.h5"))


def test_weights_of_another_shape_are_refused_with_both_shapes(network, other, tmp_path):
    randomise(network, 9)
    save_start_weights(network, tmp_path / "start.h5", "a test")
    with h5py.File(tmp_path / "start.h5", "r+") as file:
        del file["bn/bn/gamma"]
        file["bn/bn/gamma"] = np.ones(7, np.float32)
    with pytest.raises(ModelFileError, match=r"layer bn expects weights of shape \[\(1024,\).*found \[\(7,\)"):
        load_start_weights(other, FINDINGS, str(tmp_path / "start.h5"))


def refuse(*args, **kwargs):
    raise urllib.error.URLError("Name or service not known")


def hang(*args, **kwargs):
    time.sleep(5)
    raise urllib.error.URLError("too late")


@pytest.mark.fault("T15")
@pytest.mark.parametrize(
    ("network_fault", "reason"), [(refuse, "Name or service not known"), (hang, "no answer in time")]
)
def test_imagenet_without_network_falls_back_and_says_so(network, other, tmp_path, monkeypatch, network_fault, reason):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(start_weights, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(start_weights.urllib.request, "urlopen", network_fault)
    start = time.monotonic()
    fallback = load_start_weights(other, FINDINGS, "imagenet", tmp_path / "missing.h5")
    assert time.monotonic() - start < 3
    assert fallback == StartWeights(
        "none (random; ImageNet weights could not be fetched)",
        pretrained=False,
        note=f"ImageNet weights could not be fetched ({reason}); starting from random weights instead.",
    )

    randomise(network, 10)
    save_start_weights(network, tmp_path / "start.h5", "synthetic radiographs")
    fallback = load_start_weights(other, FINDINGS, "imagenet", tmp_path / "start.h5")
    assert (fallback.origin, fallback.pretrained) == ("synthetic radiographs", True)
    assert fallback.note.endswith("start.h5 instead: synthetic radiographs.")
    assert_same_backbone(other, backbone_weights(network), rtol=2**-11)


def test_imagenet_download_is_checked_and_kept(network, other, tmp_path, monkeypatch):
    randomise(network, 11)
    save_start_weights(network, tmp_path / "served.h5", "unused")
    content = (tmp_path / "served.h5").read_bytes()
    calls = []

    @contextlib.contextmanager
    def serve(url, timeout):
        calls.append(url)
        with (tmp_path / "served.h5").open("rb") as file:
            yield file

    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(start_weights.urllib.request, "urlopen", serve)
    assert "the download has another checksum" in load_start_weights(other, FINDINGS, "imagenet").note
    monkeypatch.setattr(start_weights, "IMAGENET_MD5", start_weights._md5(content))
    for _ in range(2):  # the second time from the cache
        expected = StartWeights("ImageNet (keras.applications)", pretrained=True)
        assert load_start_weights(other, FINDINGS, "imagenet") == expected
    assert len(calls) == 2
    assert_same_backbone(other, backbone_weights(network), rtol=2**-11)


def test_none_changes_nothing(other):
    before = backbone_weights(other)
    assert load_start_weights(other, FINDINGS, "none") == StartWeights("none (random)", pretrained=False)
    assert_same_backbone(other, before)


@pytest.mark.fault("M66")
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras' own, of TensorFlow's variables
@pytest.mark.parametrize("named", [True, False])
def test_weights_files_of_keras_3_load_by_the_names_of_their_layers(network, other, tmp_path, named):
    """What model.save_weights('x.weights.h5') of keras.applications' DenseNet121 gives; old ones hold no names."""
    applications = keras.applications.DenseNet121(weights=None, classes=5, input_shape=(SIZE, SIZE, 3))
    rng = np.random.default_rng(9)
    applications.set_weights([rng.uniform(0.1, 1, one.shape).astype(np.float32) for one in applications.get_weights()])
    applications.save_weights(tmp_path / "x.weights.h5")
    if not named:
        with h5py.File(tmp_path / "x.weights.h5", "r+") as file:
            file.visititems(lambda _, node: node.attrs.pop("name", None))
    start = load_start_weights(other, FINDINGS, str(tmp_path / "x.weights.h5"))
    assert start.origin == "file x.weights.h5"
    assert not start.head
    assert start.note == "x.weights.h5 has a head of 5 outputs without names; a new one is trained."
    compared = 0
    for layer in other.layers:
        if layer.weights and layer.name != "logits":
            for found, expected in zip(
                layer.get_weights(), applications.get_layer(layer.name).get_weights(), strict=True
            ):
                np.testing.assert_array_equal(found, expected)
                compared += 1
    assert compared == len(applications.get_weights()) - 2
