"""A DenseNet121's state dict with the names of torchvision, written out from its paper's table, and random numbers."""

import functools

import numpy as np


def layer_names():
    """Return (PyTorch's name, Keras' name) of every weighted layer of the backbone, in the order of the graph."""
    pairs = [("features.conv0", "conv1_conv"), ("features.norm0", "conv1_bn")]
    for block, num_layers in ((1, 6), (2, 12), (3, 24), (4, 16)):
        for layer in range(1, num_layers + 1):
            theirs, ours = f"features.denseblock{block}.denselayer{layer}", f"conv{block + 1}_block{layer}"
            pairs += [
                (f"{theirs}.norm1", f"{ours}_0_bn"),
                (f"{theirs}.conv1", f"{ours}_1_conv"),
                (f"{theirs}.norm2", f"{ours}_1_bn"),
                (f"{theirs}.conv2", f"{ours}_2_conv"),
            ]
        if block < 4:
            pairs += [
                (f"features.transition{block}.norm", f"pool{block + 1}_bn"),
                (f"features.transition{block}.conv", f"pool{block + 1}_conv"),
            ]
    return [*pairs, ("features.norm5", "bn")]


@functools.cache
def _random_arrays(num_channels, num_outputs, seed):
    random = np.random.default_rng(seed)

    def normal(shape, deviation):
        return random.standard_normal(shape, dtype=np.float32) * np.float32(deviation)

    def norm(name, channels):
        return {
            f"{name}.weight": random.uniform(0.5, 1.5, channels).astype(np.float32),
            f"{name}.bias": normal(channels, 0.2),
            f"{name}.running_mean": normal(channels, 0.2),
            f"{name}.running_var": random.uniform(0.5, 2, channels).astype(np.float32),
            f"{name}.num_batches_tracked": np.array(7, np.int64),
        }

    arrays = {"features.conv0.weight": normal((64, num_channels, 7, 7), 0.1)} | norm("features.norm0", 64)
    channels = 64
    for block, num_layers in ((1, 6), (2, 12), (3, 24), (4, 16)):
        for layer in range(1, num_layers + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            arrays |= norm(f"{name}.norm1", channels)
            arrays[f"{name}.conv1.weight"] = normal((128, channels, 1, 1), 0.05)
            arrays |= norm(f"{name}.norm2", 128)
            arrays[f"{name}.conv2.weight"] = normal((32, 128, 3, 3), 0.03)
            channels += 32
        if block < 4:
            arrays |= norm(f"features.transition{block}.norm", channels)
            arrays[f"features.transition{block}.conv.weight"] = normal((channels // 2, channels, 1, 1), 0.05)
            channels //= 2
    arrays |= norm("features.norm5", channels)
    if num_outputs:
        arrays |= {"classifier.weight": normal((num_outputs, channels), 0.1), "classifier.bias": normal(num_outputs, 1)}
    return arrays


def densenet_arrays(num_channels=3, num_outputs=14, seed=0):
    """Return a state dict {name: array} with random weights and random batch-norm statistics; the dict is yours."""
    return dict(_random_arrays(num_channels, num_outputs, seed))
