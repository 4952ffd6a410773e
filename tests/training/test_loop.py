"""The loss, the schedule and the training loop: stopping, resuming, selecting, and refusing to go on."""

import logging

import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from small_network import build_small_network
from small_training import FINDINGS, SIZE, TRAIN, VAL, by_path, run_fit

from cxr.data.cache import CachedSplit
from cxr.data.labels import Split
from cxr.training.loop import fit, predict_split
from cxr.training.recipe import Recipe
from cxr.training.run_control import StopRequest


def test_frozen_backbone_keeps_weights_and_moving_statistics_then_everything_moves(tmp_path):
    keras.utils.set_random_seed(1)
    network = build_small_network(FINDINGS, SIZE)
    moved = []
    for epochs in (1, 2):
        before = {variable.path: variable.numpy() for variable in network.weights}
        fit(
            network,
            TRAIN,
            VAL,
            Recipe(epochs=epochs, head_epochs=1, batch_size=4),
            tmp_path / str(epochs),
            StopRequest(),
        )
        moved.append({path for path, old in before.items() if not np.array_equal(old, by_path(network)[path])})
    assert moved[0] == {"logits/kernel", "logits/bias"}
    assert moved[1] == set(by_path(network))


def test_training_learns_and_its_history_tells(tmp_path):
    keras.utils.set_random_seed(1)
    network = build_small_network(FINDINGS, SIZE)
    rows_seen = []
    recipe = Recipe(epochs=12, batch_size=4, learning_rate=0.02)
    history = fit(
        network, TRAIN, VAL, recipe, tmp_path, StopRequest(), on_epoch=lambda history: rows_seen.append(len(history))
    )
    assert rows_seen == list(range(1, 13))
    assert [row["epoch"] for row in history] == rows_seen
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]
    best = max(history, key=lambda row: (row["val_mean_auroc"], -row["val_loss"]))
    assert [row["epoch"] for row in history if row["best"]][-1] == best["epoch"]
    # The network holds the best epoch's weights: scikit-learn finds its score again.
    logits = predict_split(
        keras.Model(network.input, network.get_layer("logits").output), VAL, batch_size=4
    )  # 9 rows: the last batch is padded
    np.testing.assert_allclose(
        1 / (1 + np.exp(-logits)), network.predict(VAL.model_inputs, verbose=0), rtol=1e-4, atol=1e-6
    )
    labels = VAL.split.labels
    expected = [
        roc_auc_score(labels[known, k], logits[known, k]) for k in (0, 1) for known in [~np.isnan(labels[:, k])]
    ]
    assert best["val_mean_auroc"] == pytest.approx(np.mean(expected), abs=1e-9)
    assert best["num_defined"] == 2


@pytest.mark.fault("T19")
def test_same_seed_gives_the_same_history_and_another_seed_another(tmp_path):
    histories = [
        run_fit(tmp_path / str(k), Recipe(epochs=2, batch_size=4, seed=seed))[1] for k, seed in enumerate((1, 1, 2))
    ]
    assert histories[0] == histories[1] != histories[2]


def test_finished_run_is_not_trained_again(tmp_path, caplog):
    weights, history = run_fit(tmp_path)
    with caplog.at_level(logging.INFO):
        again, history_again = run_fit(tmp_path, weights_seed=99)
    assert "Resuming after the last epoch" in caplog.text
    assert history_again == history
    for one, other in zip(weights, again, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.fault("T16")
def test_selection_falls_back_on_the_loss_where_no_auroc_is_defined(tmp_path):
    one_class = CachedSplit(
        Split("val", VAL.split.images, VAL.split.patients, np.zeros_like(VAL.split.labels), FINDINGS),
        VAL.model_inputs,
        "one class",
    )
    _, history = run_fit(tmp_path, val=one_class)
    assert {row["val_mean_auroc"] for row in history} == {None}
    losses = [row["val_loss"] for row in history]
    assert [row["best"] for row in history] == [loss == min(losses[: k + 1]) for k, loss in enumerate(losses)]
