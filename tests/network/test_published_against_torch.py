"""Converted models against the packages that their weights are published for, on real radiographs.

Runs where torch, torchvision, timm, torchxrayvision and grad-cam are installed and CXR_REAL_DATA names a folder with
images-256/; none of them is needed by the project. Weights AND batch-norm statistics are random: with the usual ones,
of mean 0 and variance 1, two that are swapped would go unseen.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from cxr.heatmaps.gradcam import heatmaps
from cxr.imaging.radiograph import read_radiograph, to_model_input
from cxr.inference.predictor import Predictor
from cxr.network.densenet import IMAGENET_MEAN, IMAGENET_STD
from cxr.network.known_models import KNOWN_MODELS, NIH_FINDINGS, PublishedModel
from cxr.network.published_weights import read_published_weights
from tools.get_model import write_model

torch = pytest.importorskip("torch", reason="compares with PyTorch, which the project does not need")
torchvision = pytest.importorskip("torchvision")
timm = pytest.importorskip("timm")
torchxrayvision = pytest.importorskip("torchxrayvision")
grad_cam = pytest.importorskip("pytorch_grad_cam")
save_file = pytest.importorskip("safetensors.torch").save_file
scale_cam_image = pytest.importorskip("pytorch_grad_cam.utils.image").scale_cam_image

REAL_DATA = Path(os.environ.get("CXR_REAL_DATA", "."), "images-256")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # those of the other packages
    pytest.mark.skipif(not REAL_DATA.is_dir(), reason="CXR_REAL_DATA names no folder with images-256/"),
]
NUM_RADIOGRAPHS = 20
TOLERANCE = 1e-4  # of the largest value
HEATMAP_TOLERANCE = 1e-3  # of a map's peak
CHEST = {"mean": (0.5056,) * 3, "std": (0.252,) * 3, "image_size": 256}
IMAGENET = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "image_size": 224}


def randomised(model, seed):
    """Give a network weights and statistics like a trained one's, so that signals neither die nor explode."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(like, low, high):
        return torch.rand(like.shape, generator=generator) * (high - low) + low

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.copy_(uniform(module.weight, 0.5, 1.5))
                module.bias.copy_(uniform(module.bias, -0.3, 0.3))
                module.running_mean.copy_(uniform(module.running_mean, -0.3, 0.3))
                module.running_var.copy_(uniform(module.running_var, 0.5, 2))
            elif isinstance(module, torch.nn.Conv2d):
                fan_in = module.weight[0].numel()
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * (2 / fan_in) ** 0.5)
            elif isinstance(module, torch.nn.Linear):
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * 0.05)
                module.bias.copy_(uniform(module.bias, -1, 1))
    return model.eval()


def scaled_stem(model):
    """Give the stem, whose input is of -1024 to 1024, weights that bring that to the scale of the others."""
    with torch.no_grad():
        model.features.conv0.weight /= 500
    return model


def renamed_as_before_0_4(state):
    """Give a state dict the names of the first CheXNet reproduction."""
    old = {}
    for name, tensor in state.items():
        for part in ("norm1", "conv1", "norm2", "conv2"):
            if "denselayer" in name:
                name = name.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
        if "num_batches_tracked" not in name:
            old[f"module.densenet121.{name}".replace("classifier.", "classifier.0.")] = tensor
    return old


def build_torchvision(seed, path):
    model = randomised(torchvision.models.densenet121(num_classes=14), seed)
    torch.save(model.state_dict(), path)
    return model, PublishedModel("tv", NIH_FINDINGS, trained_on="x", licence="x", **IMAGENET)


def build_timm_safetensors(seed, path):
    model = randomised(timm.create_model("densenet121", num_classes=14), seed)
    save_file(model.state_dict(), path)
    return model, PublishedModel("timm", NIH_FINDINGS, trained_on="x", licence="x", **CHEST)


def build_timm_checkpoint(seed, path):
    model = randomised(timm.create_model("densenet121", num_classes=14), seed)
    optimizer = torch.optim.AdamW(model.parameters())
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, path)
    return model, PublishedModel("checkpoint", NIH_FINDINGS, trained_on="x", licence="x", **CHEST)


def build_chexnet(seed, path):
    model = randomised(torchvision.models.densenet121(num_classes=14), seed)
    content = {"epoch": 3, "best_loss": 0.1, "state_dict": renamed_as_before_0_4(model.state_dict())}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return model, PublishedModel("chexnet", NIH_FINDINGS, trained_on="x", licence="x", **IMAGENET)


def build_xrv(seed, path):
    model = scaled_stem(randomised(torchxrayvision.models.DenseNet(num_classes=18, in_channels=1), seed))
    torch.save(model.state_dict(), path)
    return model, KNOWN_MODELS["xrv-pc"]


@pytest.fixture(
    scope="module", params=[build_torchvision, build_timm_safetensors, build_timm_checkpoint, build_chexnet, build_xrv]
)
def pair(request, tmp_path_factory):
    """Return the original model, its description, and the Predictor of what it was converted to."""
    folder = tmp_path_factory.mktemp("published")
    original, known = request.param(7, folder / "weights")
    weights = read_published_weights(folder / "weights", known.mean, known.std, len(known.outputs))
    write_model(weights, known, "test", folder / "model.h5")
    return original, known, Predictor(folder / "model.h5")


class Staged(torch.nn.Module):
    """The original network with its last activation as a module of its own, which Grad-CAM can be pointed at."""

    def __init__(self, original):
        super().__init__()
        self.backbone, self.relu, self.classifier = original.features, torch.nn.ReLU(), original.classifier

    def forward(self, inputs):
        with torch.no_grad():  # no gradient is asked for below the activation
            features = self.backbone(inputs)
        return self.classifier(self.relu(features.requires_grad_()).mean(dim=(2, 3)))


def prepared(known):
    """Return the model inputs of 20 radiographs, and the original's normalised tensors of the same pixels."""
    paths = sorted(REAL_DATA.glob("*.png"))[:: max(1, len(list(REAL_DATA.glob("*.png"))) // NUM_RADIOGRAPHS)]
    pictures = np.stack([to_model_input(read_radiograph(path), known.image_size) for path in paths[:NUM_RADIOGRAPHS]])
    grey = torch.from_numpy(pictures[..., 0]).double() / 255
    channels = [(grey - mean) / std for mean, std in zip(known.mean, known.std, strict=True)]
    return pictures, torch.stack(channels, dim=1).float()


def difference(found, expected):
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_converted_model_answers_as_the_original(pair):
    original, known, predictor = pair
    pictures, tensors = prepared(known)
    assert len(pictures) == NUM_RADIOGRAPHS
    with torch.no_grad():
        logits = original(tensors).numpy()[:, known.named_columns]
        features = torch.relu(original.features(tensors)).permute(0, 2, 3, 1).numpy()
    assert np.abs(logits).max() > 0.5  # the comparison is of something
    assert logits.std(axis=0).min() > 1e-4
    found_probabilities, found_logits, found_features, _ = predictor.predict(pictures)
    found = {
        "features": difference(found_features, features),
        "logits": difference(found_logits, logits),
        "probabilities": difference(found_probabilities, 1 / (1 + np.exp(-logits.astype(np.float64)))),
    }
    print(known.name, {name: f"{value:.1e}" for name, value in found.items()})
    assert max(found.values()) <= TOLERANCE, found


def test_heatmaps_are_those_of_pytorch_grad_cam(pair):
    original, known, predictor = pair
    pictures, tensors = prepared(known)
    pictures, tensors = pictures[:4], tensors[:4]
    features = predictor.predict(pictures).features
    ours = heatmaps(features, predictor.head_kernel)
    staged, size, found = Staged(original).eval(), (known.image_size, known.image_size), []
    with grad_cam.GradCAM(model=staged, target_layers=[staged.relu]) as cam:
        for finding, column in list(enumerate(known.named_columns))[::3]:
            target = grad_cam.utils.model_targets.ClassifierOutputTarget(column)
            theirs = cam(tensors, targets=[target] * 4)  # scaled to its own peak, enlarged, and scaled again
            scaled = scale_cam_image(scale_cam_image(ours[:, finding], size))
            peaks = ours[:, finding].max(axis=(1, 2))
            found += zip(peaks, np.abs(theirs - scaled).max(axis=(1, 2)), strict=True)
    # What is left of a map without evidence, scaled to its own peak, is rounding.
    peak = max(peak for peak, _ in found)
    compared = [error for one, error in found if one > 1e-3 * peak]
    print(known.name, f"{len(compared)} heatmaps: {max(compared):.1e}")
    assert len(compared) >= 4
    assert max(compared) <= HEATMAP_TOLERANCE, found
