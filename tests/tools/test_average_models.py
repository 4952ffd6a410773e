"""tools.average_models: the file holds NumPy's mean of the weights, and only of models that belong together."""

import keras
import numpy as np
import pytest
from small_network import build_small_network

from cxr.network.model_file import save_model
from cxr.network.model_info import ModelInfo
from cxr.network.start_weights import load_start_weights
from tools.average_models import main

FINDINGS, SIZE = ("Mass", "Hernia"), 32


@pytest.fixture
def models(tmp_path):
    """Return a function that saves networks with random weights and statistics: paths, and the weights of each."""

    def save(*all_findings, origin="a start"):
        paths, weights = [], []
        for seed, findings in enumerate(all_findings):
            network, rng = build_small_network(findings, SIZE), np.random.default_rng(seed)
            network.set_weights([rng.uniform(0.1, 2, one.shape).astype(np.float32) for one in network.get_weights()])
            info = ModelInfo(findings, SIZE, feature_shape=(15, 15, 8), weights_origin=f"{origin}{seed or ''}")
            paths.append(str(tmp_path / f"{seed}.h5"))
            save_model(network, info, paths[-1])
            weights.append(network.get_weights())
        return paths, weights

    return save


def test_weights_and_batch_statistics_are_the_mean_to_half_precision(models, tmp_path, capsys):
    paths, weights = models(FINDINGS, FINDINGS, FINDINGS)
    assert main([*paths, "--out", str(tmp_path / "mean.h5")]) == 0
    network = build_small_network(FINDINGS, SIZE)
    start = load_start_weights(network, FINDINGS, str(tmp_path / "mean.h5"))
    assert start.head
    for found, stack in zip(network.get_weights(), zip(*weights, strict=True), strict=True):
        np.testing.assert_array_equal(found, np.mean(stack, axis=0, dtype=np.float64).astype(np.float16))
    assert start.origin == "the mean of 3 trainings, each begun from a start or a start1 or a start2"
    assert "rarely of use" in capsys.readouterr().out


def test_models_of_other_findings_are_refused_and_nothing_is_written(models, tmp_path, capsys):
    paths, _ = models(FINDINGS, FINDINGS[::-1])
    assert main([*paths, "--out", str(tmp_path / "mean.h5")]) == 2
    assert f"{paths[1]}: expected the findings of {paths[0]} in their order, Mass, Hernia" in capsys.readouterr().err
    assert not (tmp_path / "mean.h5").exists()


def test_one_model_has_no_mean(models, tmp_path, capsys):
    paths, _ = models(FINDINGS)
    with pytest.raises(SystemExit, match="2"):
        main([*paths, "--out", str(tmp_path / "mean.h5")])
    assert "two or more" in capsys.readouterr().err


def test_folder_that_is_not_there_is_an_error_of_files(models, tmp_path, capsys):
    paths, _ = models(FINDINGS, FINDINGS)
    assert main([*paths, "--out", str(tmp_path / "none" / "mean.h5")]) == 3
    assert "none" in capsys.readouterr().err
    keras.backend.clear_session()
