"""tools.get_model: the list, a download from a local hub, a file at hand, and what is refused without a trace."""

import dataclasses
import hashlib

import numpy as np
import pytest
from fake_hub import running_hub
from torch_densenet import densenet_arrays
from torch_files import safetensors_file, tensors, torch_zip

from cxr.inference.predictor import Predictor
from cxr.network import known_models
from cxr.network.known_models import KNOWN_MODELS
from cxr.network.model_file import read_model_info
from tools import get_model


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub whose only file is a safe one of TorchXRayVision's layout, and a cache of its own."""
    content = torch_zip(tensors(densenet_arrays(num_channels=1, num_outputs=18)))
    with running_hub(content) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        known = dataclasses.replace(KNOWN_MODELS["xrv-rsna"], image_size=64, sha256=hashlib.sha256(content).hexdigest())
        monkeypatch.setitem(KNOWN_MODELS, "xrv-rsna", known)
        cache = tmp_path / "cache"
        monkeypatch.setattr(get_model, "fetch", lambda model: known_models.fetch(model, cache))
        yield hub


def test_list_names_licence_and_published_figure_of_every_model(capsys):
    assert get_model.main([]) == 0
    text = capsys.readouterr().out
    for model in KNOWN_MODELS.values():
        part = text[text.index(f"{model.name}\n") :]
        for said in (*model.findings, model.trained_on, model.licence, model.figure, model.file):
            assert said in part
    assert "not measured here" in text


def test_download_becomes_a_model_file_with_its_card(hub, tmp_path, capsys):
    out = tmp_path / "model.h5"
    assert get_model.main(["xrv-rsna", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"python app.py --model-path {out}" in said.splitlines()[-1]
    info = read_model_info(out)
    assert info.findings == ("Pneumonia", "Lung Opacity")
    assert info.thresholds == (0.13486601, 0.13511065)
    assert "TorchXRayVision" in info.threshold_rule
    assert info.licence == KNOWN_MODELS["xrv-rsna"].licence
    assert info.published == {"figure": "per data set in the paper", "source": "https://arxiv.org/abs/2111.00595"}
    assert "torchxrayvision/densenet121-res224-rsna/model.pt" in info.weights_origin
    assert "RSNA" in info.data
    assert (info.image_size, info.feature_shape, info.test_metrics, info.calibration) == (64, (2, 2, 1024), {}, {})
    _, logits, features, _ = Predictor(out).predict(np.full((1, 64, 64, 1), 90, np.uint8))
    arrays = densenet_arrays(num_channels=1, num_outputs=18)
    expected = features.mean(axis=(1, 2)) @ arrays["classifier.weight"][[8, 16]].T + arrays["classifier.bias"][[8, 16]]
    np.testing.assert_allclose(logits, expected, rtol=1e-4)


@pytest.mark.fault("P06")
def test_download_that_fails_leaves_the_old_model(hub, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    out = tmp_path / "model.h5"
    out.write_bytes(b"old")
    hub.cut_after = 1000
    assert get_model.main(["xrv-rsna", "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "could not be fetched" in error
    assert out.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["model.h5"]


FILE = ["--findings", "A,,B", "--mean", "0.5056", "--std", "0.252", "--image-size", "64"]


def test_file_at_hand_becomes_a_model_file(tmp_path, capsys):
    weights, out = tmp_path / "weights.safetensors", tmp_path / "out.h5"
    weights.write_bytes(safetensors_file(densenet_arrays(num_outputs=3)))
    assert get_model.main(["--file", str(weights), *FILE, "--out", str(out)]) == 0
    info = read_model_info(out)
    assert info.findings == ("A", "B")
    assert info.weights_origin == "converted from weights.safetensors"
    assert str(tmp_path) not in info.weights_origin
    assert info.thresholds == ()


@pytest.mark.fault("P04", "P07")
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (densenet_arrays(num_outputs=4), "(4, 1024), expected (3, 1024)"),
        (densenet_arrays(num_outputs=0), "2 are missing: classifier.weight, classifier.bias"),
        (densenet_arrays(num_channels=1, num_outputs=3) | {"features.conv0.weight": np.ones((64, 2, 7, 7), "f4")},
         "(64, 2, 7, 7), expected (64, 3, 7, 7)"),
        ({"fc.weight": np.ones((3, 3), "f4")}, "expected one DenseNet121"),
    ],
    ids=["another head", "no head", "two channels", "another network"],
)  # fmt: skip
def test_unfit_file_is_told_in_one_line_and_nothing_written(tmp_path, capsys, arrays, message):
    weights, out = tmp_path / "weights.safetensors", tmp_path / "out.h5"
    weights.write_bytes(safetensors_file(arrays))
    assert get_model.main(["--file", str(weights), *FILE, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


def test_folder_that_is_not_there_for_the_model_file(tmp_path, capsys):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(safetensors_file(densenet_arrays(num_outputs=3)))
    assert get_model.main(["--file", str(weights), *FILE, "--out", str(tmp_path / "none" / "out.h5")]) == 3
    assert "none" in capsys.readouterr().err


def test_unknown_name_is_told_with_the_known_ones(capsys):
    assert get_model.main(["chexnet"]) == 2
    assert "medmae-mae, " in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--file", "x.pt"],
        ["medmae-mae", "--file", "x.pt", *FILE],
        ["medmae-mae", "--mean", "0.5"],
        ["--out", "x.h5"],
        ["--file", "x.pt", *FILE, "--mean", "a"],
        ["--file", "x.pt", *FILE, "--mean", "nan"],
        ["--file", "x.pt", *FILE, "--mean", "0.1,0.2,0.3"],
        ["--file", "x.pt", *FILE, "--std", "0"],
        ["--file", "x.pt", *FILE, "--image-size", "5000"],
        ["--file", "x.pt", *FILE, "--findings", ","],
        ["--file", "x.pt", *FILE, "--findings", "A,a"],
    ],
)
def test_arguments_that_do_not_fit(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        get_model.main(arguments)
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
