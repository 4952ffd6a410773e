"""The network against Keras' own preprocessing and DenseNet121's shape."""

import keras
import numpy as np
import pytest

from cxr.network.densenet import IMAGENET_MEAN, build_network

FINDINGS = ("Mass", "Nodule", "Edema")


SIZE = 32


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(1)
    return build_network(FINDINGS, SIZE, batch_norm_momentum=0.9)


def test_normalisation_equals_preprocess_input(network):
    ramp = np.arange(SIZE * SIZE, dtype=np.int64).reshape(1, SIZE, SIZE, 1) % 256
    rgb = np.repeat(ramp, 3, axis=-1).astype(np.float32)
    expected = keras.applications.densenet.preprocess_input(rgb.copy())
    normalise = keras.Model(network.input, network.get_layer("imagenet_normalisation").output)
    for dtype in (np.uint8, np.float32):
        np.testing.assert_allclose(normalise(ramp.astype(dtype)), expected, atol=2e-6)


def test_network_is_flat_and_its_head_is_pool_dense_sigmoid(network):
    features, logits, probabilities = keras.Model(
        network.input, [network.get_layer(name).output for name in ("relu", "logits", "probabilities")]
    )(np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 1), np.uint8))
    features, logits = np.array(features, np.float64), np.array(logits, np.float64)
    kernel, bias = network.get_layer("logits").get_weights()
    np.testing.assert_allclose(logits, features.mean(axis=(1, 2)) @ kernel + bias, atol=1e-5)
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits)), atol=1e-6)
    assert not any(isinstance(layer, keras.Model) for layer in network.layers)


def test_momentum_reaches_every_batch_normalisation_and_the_saved_config(network):
    configs = [one["config"] for one in network.get_config()["layers"] if one["class_name"] == "BatchNormalization"]
    assert len(configs) == 121
    assert {config["momentum"] for config in configs} == {0.9}


def test_network_has_densenet121s_parameters(network):
    # 7,037,504 is the figure that keras.applications prints for DenseNet121 without its top.
    assert network.count_params() == 7_037_504 + (1024 + 1) * len(FINDINGS)
    assert IMAGENET_MEAN[0] > IMAGENET_MEAN[2]  # red first


@pytest.mark.parametrize(("findings", "size"), [((), 64), (FINDINGS, 31)])
def test_network_refuses_impossible_sizes(findings, size):
    with pytest.raises(ValueError, match="at least one finding and an image size of at least 32"):
        build_network(findings, size)
