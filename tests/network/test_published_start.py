"""Training that starts from published weights: by name and from a file, with the head where its findings are known."""

import numpy as np
import pytest
from torch_densenet import densenet_arrays
from torch_files import safetensors_file, tensors, torch_legacy

from cxr.network import start_weights
from cxr.network.densenet import build_network
from cxr.network.known_models import KNOWN_MODELS
from cxr.network.model_info import ModelFileError
from cxr.network.start_weights import load_start_weights


@pytest.fixture(scope="module")
def network():
    return build_network(["hernia", "Pleural thickening"], 32)


@pytest.fixture
def fetched(monkeypatch, tmp_path):
    """Let a file that was made here be what is downloaded."""

    def give(content):
        path = tmp_path / "downloaded"
        path.write_bytes(content)
        monkeypatch.setattr(start_weights, "fetch", lambda model: path)

    return give


def test_named_model_gives_its_head_by_the_findings_names(network, fetched):
    arrays = densenet_arrays(num_channels=1, num_outputs=18, seed=1)
    fetched(torch_legacy(tensors(arrays)))
    start = load_start_weights(network, ["hernia", "Pleural thickening"], "xrv-nih")
    assert (start.head, start.pretrained, start.note) == (True, True, "")
    assert start.origin == f"xrv-nih: {KNOWN_MODELS['xrv-nih'].trained_on}"
    columns = [KNOWN_MODELS["xrv-nih"].outputs.index(name) for name in ("Hernia", "Pleural_Thickening")]
    np.testing.assert_array_equal(network.get_layer("logits").get_weights()[0], arrays["classifier.weight"][columns].T)
    np.testing.assert_array_equal(network.get_layer("logits").get_weights()[1], arrays["classifier.bias"][columns])
    np.testing.assert_array_equal(network.get_layer("bn").get_weights()[3], arrays["features.norm5.running_var"])


def test_named_model_without_all_the_findings_gives_no_head(network, fetched):
    fetched(safetensors_file(densenet_arrays(num_channels=1, num_outputs=18, seed=1)))
    before = network.get_layer("logits").get_weights()[0]
    start = load_start_weights(network, ["hernia", "Pleural thickening"], "xrv-rsna")
    assert not start.head
    assert "does not know every finding" in start.note
    np.testing.assert_array_equal(network.get_layer("logits").get_weights()[0], before)


def test_backbone_and_file_at_hand_give_no_head(network, fetched, tmp_path):
    arrays = densenet_arrays(num_outputs=0, seed=2)
    fetched(safetensors_file(arrays))
    assert not load_start_weights(network, ["hernia", "Pleural thickening"], "imagenet-timm").head
    np.testing.assert_array_equal(
        network.get_layer("conv1_conv").get_weights()[0], arrays["features.conv0.weight"].transpose(2, 3, 1, 0)
    )
    path = tmp_path / "mine.pth"
    path.write_bytes(torch_legacy({"state_dict": tensors(densenet_arrays(num_outputs=14))}))
    start = load_start_weights(network, ["hernia", "Pleural thickening"], str(path))
    assert (start.head, start.origin) == (False, "file mine.pth")
    assert "ImageNet's normalisation" in start.note


@pytest.mark.fault("P01", "P04")
def test_file_that_does_not_fit_leaves_the_network_as_it_was(network, tmp_path):
    before = network.get_weights()
    arrays = densenet_arrays()
    del arrays["features.norm5.bias"]
    for content, message in (
        (safetensors_file(arrays), "features.norm5.bias"),
        (b"\x80\x02cos\nsystem\n.", "os.system"),
    ):
        path = tmp_path / "bad"
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match=message):
            load_start_weights(network, ["hernia", "Pleural thickening"], str(path))
    assert all(np.array_equal(*pair) for pair in zip(before, network.get_weights(), strict=True))
