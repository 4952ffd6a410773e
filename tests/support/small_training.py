"""A small network, a few random radiographs and one way to train on them."""

import signal
from pathlib import Path

import keras
import numpy as np
from small_network import build_small_network

from cxr.data.cache import CachedSplit
from cxr.data.labels import Split
from cxr.training.loop import fit
from cxr.training.recipe import Recipe
from cxr.training.run_control import StopRequest

FINDINGS = ("Mass", "Edema", "Hernia")


SIZE = 32


NAN = float("nan")


def make_cached(name, num_images, seed):
    """Radiographs on which the first finding is a bright left half and the second a bright top: easy to learn."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (num_images, len(FINDINGS))).astype(np.float32)
    labels[:, 2] = 0  # a finding without positives
    labels[0, 1] = NAN
    model_inputs = rng.integers(60, 120, (num_images, SIZE, SIZE, 1))
    model_inputs[:, :, : SIZE // 2] += (80 * np.nan_to_num(labels[:, 0])).astype(int)[:, None, None, None]
    model_inputs[:, : SIZE // 2] += (40 * np.nan_to_num(labels[:, 1])).astype(int)[:, None, None, None]
    images = tuple(f"{name}{k}.png" for k in range(num_images))
    return CachedSplit(Split(name, images, images, labels, FINDINGS), model_inputs.astype(np.uint8), f"{name}{seed}")


TRAIN, VAL = make_cached("train", 26, 1), make_cached("val", 9, 2)


RECIPE = Recipe(epochs=3, batch_size=4, learning_rate=0.01, seed=5)


def run_fit(
    checkpoint_dir,
    recipe=RECIPE,
    stop=None,
    train=TRAIN,
    val=VAL,
    weights_seed=1,
    build=build_small_network,
    teaching=None,
):
    """Train a network of random weights; the seed stands for the process that the run lives in."""
    keras.utils.set_random_seed(weights_seed)
    network = build(FINDINGS, SIZE)
    history = fit(network, train, val, recipe, Path(checkpoint_dir), stop or StopRequest(), teaching=teaching)
    return network.get_weights(), history


class StopAfter(StopRequest):
    """Ask for a stop when it has been looked at often enough: that is after every batch and validation batch."""

    def __init__(self, looks):
        super().__init__()
        self.looks = looks

    @property
    def requested(self):
        self.looks -= 1
        self.signal_number = signal.SIGINT
        return self.looks < 0


def by_path(network):
    return {variable.path: variable.numpy() for variable in network.weights}
