"""Fixtures of the tests of model files."""

import shutil

import numpy as np
import pytest
from model_files import FINDINGS, SIZE, make_info
from small_network import build_small_network

from cxr.network.model_file import save_model


@pytest.fixture(scope="module")
def network():
    model = build_small_network(FINDINGS, SIZE)
    rng = np.random.default_rng(2)  # moving statistics that are not their defaults
    model.set_weights([rng.uniform(0.2, 0.9, weight.shape).astype(np.float32) for weight in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def saved(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.h5"
    save_model(network, make_info(), path)
    return path


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copy(saved, tmp_path / "copy.h5")
