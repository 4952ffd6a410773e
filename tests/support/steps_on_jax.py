"""Take the same training steps on JAX by Keras' `train_on_batch` and with the state held; started by a test.

Prints one JSON object per way: the losses, and the sums that show where weights and optimiser ended.
"""

import json
import os

os.environ["KERAS_BACKEND"] = "jax"

import keras
import numpy as np
from small_network import build_small_network
from small_training import FINDINGS, SIZE, TRAIN

from cxr.training.loop import layer_output
from cxr.training.optimisation import HeldSteps, TrainingSteps, box_loss, make_loss, make_optimiser


def take_steps(kind: type[TrainingSteps], with_boxes: bool) -> dict:
    """Train a little, with a look at the weights after the third step."""
    keras.utils.set_random_seed(3)
    network = build_small_network(FINDINGS, SIZE)
    trained, losses, shares = layer_output(network, "logits"), [make_loss()], [1.0]
    if with_boxes:
        head = network.get_layer("logits")
        trained = keras.Model(network.input, [head.output, head(network.get_layer("relu").output)])
        losses, shares = [*losses, box_loss], [1.0, 0.3]
    steps = kind(trained, make_optimiser(0.01, 0.02), losses, shares)
    coverage = np.zeros((4, *network.get_layer("relu").output.shape[1:3], len(FINDINGS)), np.float32)
    coverage[:2, 0] = 1.0
    told, seen = [], []
    for index in range(6):
        rows = slice(4 * index, 4 * index + 4)
        labels = TRAIN.split.labels[rows]
        targets = (labels, coverage) if with_boxes else labels
        told.append(steps.take(TRAIN.model_inputs[rows], targets, 0.01 / (index + 1)))
        if index in (2, 5):
            steps.settle()
            seen += [value.numpy().ravel().tolist() for value in (*network.weights, *steps.optimiser.variables)]
    return {"told": told, "seen": seen}


if __name__ == "__main__":
    for boxes in (False, True):
        for way in (TrainingSteps, HeldSteps):
            print(json.dumps(take_steps(way, boxes)))
