"""tools.export_model: each format answers as the model does, and nothing is written where it does not."""

import importlib.util
import json

import keras
import numpy as np
import pytest
from radiographs import png, radiograph
from small_network import build_small_network

from cxr.heatmaps.gradcam import heatmaps
from cxr.network.model_file import save_model
from cxr.network.model_info import ModelInfo
from tools import export_model

FINDINGS, SIZE = ("Mass", "Hernia"), 32
pytestmark = pytest.mark.filterwarnings("ignore")  # those of the exporters, on what they will change


@pytest.fixture
def folder(tmp_path):
    """A folder with a model file, and one with radiographs."""
    keras.utils.set_random_seed(0)
    network = build_small_network(FINDINGS, SIZE)
    network.get_layer("logits").set_weights([np.random.default_rng(0).normal(size=(8, 2)), np.array([0.5, -1.0])])
    info = ModelInfo(FINDINGS, SIZE, thresholds=(0.25, None), feature_shape=(15, 15, 8), licence="some licence")
    save_model(network, info, tmp_path / "model.h5")
    (tmp_path / "images").mkdir()
    for seed in range(3):
        (tmp_path / "images" / f"{seed}.png").write_bytes(png(radiograph(seed=seed)))
    return tmp_path


def run(folder, *arguments):
    images = () if "--image-dir" in arguments else ("--image-dir", str(folder / "images"))
    return export_model.main([str(folder / "model.h5"), *images, *map(str, arguments)])


@pytest.mark.parametrize("name", export_model.FORMATS)
def test_exported_network_answers_as_the_model_with_its_heatmaps(folder, name, capsys):
    ending, _, packages = export_model.FORMATS[name]
    for package in packages:
        pytest.importorskip(package)
    assert run(folder, "--format", name) == 0
    out = folder / f"model{ending}"
    assert f"{out}: {name}, compared on 3 radiographs" in capsys.readouterr().out
    about = json.loads(out.with_name(f"{out.name}.json").read_text(encoding="utf-8"))
    assert (about["findings"], about["chosen_thresholds"]) == (list(FINDINGS), [0.25, None])
    assert (about["licence"], about["input"]["shape"]) == ("some licence", ["n", SIZE, SIZE, 1])
    assert "not intended for clinical use" in about["disclaimer"].lower()

    picture = np.random.default_rng(1).integers(0, 256, (1, SIZE, SIZE, 1)).astype(np.float32)
    exported, names = export_model.load_exported(out, name, SIZE)
    found = dict(zip(export_model.OUTPUTS, exported(picture), strict=True))
    assert [one["runtime_name"] for one in about["outputs"]] == names
    model = keras.models.load_model(folder / "model.h5", compile=False)
    features = np.asarray(keras.Model(model.input, model.get_layer("relu").output)(picture))
    maps = heatmaps(features, model.get_layer("logits").get_weights()[0])
    np.testing.assert_allclose(found["probabilities"], np.asarray(model(picture)), rtol=1e-4)
    np.testing.assert_allclose(found["heatmaps"].transpose(0, 3, 1, 2), maps, rtol=1e-3, atol=1e-6)
    assert about["outputs"][2]["shape"] == ["n", *maps.shape[2:], len(FINDINGS)]


def test_normalisation_written_as_a_convolution_changes_nothing():
    inputs = keras.Input((8, 8, 1))
    three = keras.layers.Concatenate()([inputs, inputs, inputs])
    normal = keras.layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.04, 0.05, 0.06], name="n")(three)
    network = keras.Model(inputs, keras.layers.Conv2D(2, 3, name="c")(normal))
    picture = np.random.default_rng(0).uniform(0, 1, (1, 8, 8, 1)).astype(np.float32)
    changed = export_model.without_constants(network)
    np.testing.assert_allclose(np.asarray(changed(picture)), np.asarray(network(picture)), rtol=1e-4, atol=1e-5)


@pytest.mark.fault("P09")
def test_missing_package_is_told_with_how_to_install_it(folder, capsys, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tf2onnx" else found(name))
    assert run(folder, "--format", "onnx") == 2
    assert "tf2onnx" in capsys.readouterr().err


@pytest.mark.fault("P09")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--format", "openvino", "--out", "model.bin"), 2, "ends in .xml"),
        (("--format", "saved_model", "--out", "images"), 2, "is there already"),
        (("--format", "openvino", "--image-dir", "empty"), 3, "holds no PNG"),
        (("--format", "openvino", "--image-dir", "none"), 3, "none"),
    ],
)
def test_what_cannot_be_exported_is_told_in_one_line(folder, capsys, monkeypatch, arguments, code, message):
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir()
    before = sorted(folder.rglob("*"))
    assert run(folder, *arguments) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


@pytest.mark.fault("P09")
def test_export_that_answers_differently_is_not_written(folder, capsys, monkeypatch):
    load = export_model.load_exported

    def slightly_wrong(*arguments):
        exported, names = load(*arguments)
        return lambda picture: [one * 1.001 for one in exported(picture)], names

    monkeypatch.setattr(export_model, "load_exported", slightly_wrong)
    before = sorted(folder.rglob("*"))
    assert run(folder, "--format", "openvino") == 2
    assert "probabilities differ by 0.001 of the largest" in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before
