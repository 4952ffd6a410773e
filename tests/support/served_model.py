"""A small model file for the tests of Grad-CAM, predictor and site: built and saved once for the whole test run."""

import atexit
import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from cxr.inference.predictor import Predictor
from cxr.network.densenet import build_network
from cxr.network.model_file import save_model
from cxr.network.model_info import ModelInfo, SelfCheckPicture

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
IMAGE_SIZE = 96  # pixels; heatmaps of 3 x 3 cells


def randomise(model: keras.Model, seed: int) -> None:
    """Give batch norm and head the kind of weights that training gives them; the initial ones hide many mistakes."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = (weight.shape for weight in layer.get_weights())
            layer.set_weights(
                [
                    random.uniform(0.8, 1.2, gamma),
                    random.normal(0, 0.1, beta),
                    random.normal(0, 0.1, mean),
                    random.uniform(0.8, 1.2, variance),
                ]
            )
    head = model.get_layer("logits")
    kernel, bias = (weight.shape for weight in head.get_weights())
    head.set_weights([random.normal(0, 0.1, kernel), random.normal(-0.5, 0.5, bias)])


def random_inputs(num_images: int, seed: int = 0) -> np.ndarray:
    """Return smooth, mutually very different model inputs: uint8 (n, size, size, 1)."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(0, 255, (num_images, 4, 4, 1)) * random.uniform(0.2, 1, (num_images, 1, 1, 1))
    return np.kron(coarse, np.ones((1, IMAGE_SIZE // 4, IMAGE_SIZE // 4, 1))).astype(np.uint8)


@dataclass(frozen=True)
class ServedModel:
    """The network in memory and the file that it was saved to."""

    network: keras.Model
    info: ModelInfo
    path: Path


@functools.cache
def served_model() -> ServedModel:
    keras.utils.set_random_seed(2)  # the same kernels in whatever order the tests run
    network = build_network(FINDINGS, IMAGE_SIZE)
    randomise(network, seed=1)
    self_check_input = random_inputs(1, seed=99)[0]
    self_check = SelfCheckPicture(
        self_check_input, np.asarray(network(self_check_input[np.newaxis].astype(np.float32)))[0]
    )
    folder = Path(tempfile.mkdtemp(prefix="cxr-test-model-"))
    path = folder / "chest_xray_densenet_model.h5"
    atexit.register(lambda: (path.unlink(missing_ok=True), folder.rmdir()))
    info = save_model(network, ModelInfo(FINDINGS, IMAGE_SIZE, self_check=self_check), path)
    return ServedModel(network, info, path)


@functools.cache
def served_predictor() -> Predictor:
    return Predictor(served_model().path)
