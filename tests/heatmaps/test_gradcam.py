"""Grad-CAM against automatic differentiation and values worked by hand."""

from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from served_model import FINDINGS, random_inputs, served_model, served_predictor

import gradcam
from cxr.heatmaps.explanation import describe_heatmap
from cxr.imaging.radiograph import read_radiograph, to_model_input
from cxr.network.model_file import load_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def inputs():
    return random_inputs(3)


@pytest.fixture(scope="module")
def features(inputs):
    """The network's last activation, by Keras itself: (n, h, w, channels)."""
    network = served_model().network
    return np.asarray(keras.Model(network.input, network.get_layer("relu").output)(inputs.astype(np.float32)))


def autodiff_heatmaps(features, explained, network=None):
    """Grad-CAM as the keras.io example writes it, each image for itself: (n, findings, h, w)."""
    tensorflow = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the oracle needs TensorFlow's gradient tape")
    network = network or served_model().network
    head = keras.Model(network.get_layer("relu").output, network.get_layer(explained).output)
    maps = np.zeros((len(features), len(FINDINGS), *features.shape[1:3]))
    for image in range(len(features)):
        activation = tensorflow.convert_to_tensor(features[image : image + 1])
        with tensorflow.GradientTape(persistent=True) as tape:
            tape.watch(activation)
            outputs = head(activation)
            channels = [outputs[:, finding] for finding in range(len(FINDINGS))]
        for finding, channel in enumerate(channels):
            weights = tensorflow.reduce_mean(tape.gradient(channel, activation), axis=(0, 1, 2))
            maps[image, finding] = tensorflow.nn.relu(tensorflow.reduce_sum(activation[0] * weights, axis=-1))
    return maps


@pytest.fixture
def head():
    """The dense layer of the model in memory, for the test to change."""
    head = served_model().network.get_layer("logits")
    weights = head.get_weights()
    yield head
    head.set_weights(weights)


@pytest.mark.parametrize("sign", [1, -1], ids=["head", "head negated"])
def test_heatmaps_equal_automatic_differentiation_for_all_findings(inputs, features, head, sign):
    """With both signs, each finding has maps with and without positive evidence."""
    kernel, bias = head.get_weights()
    head.set_weights([sign * kernel, bias])
    expected = autodiff_heatmaps(features, "logits")
    predictor = served_predictor()
    assert_array_equal(predictor.head_kernel, kernel)
    maps = gradcam.heatmaps(predictor.predict(inputs)[2], sign * predictor.head_kernel)
    assert maps.shape == (3, 14, 3, 3)
    assert maps.dtype == np.float32
    assert_allclose(maps, expected, rtol=1e-5, atol=1e-5 * expected.max())
    assert expected.max() > 0.01


def test_heatmaps_explain_the_logit_where_the_sigmoid_is_saturated(features, head):
    kernel, bias = head.get_weights()
    head.set_weights([kernel, np.full_like(bias, 200.0)])  # float32's sigmoid is exactly 1 from about 17 on
    assert autodiff_heatmaps(features, "probabilities").max() == 0  # the trap: nothing left to see
    expected = autodiff_heatmaps(features, "logits")
    assert expected.max() > 0.01
    assert_allclose(gradcam.heatmaps(features, kernel), expected, rtol=1e-5, atol=1e-5 * expected.max())


def test_heatmaps_of_the_shipped_model_equal_automatic_differentiation():
    """Trained weights, all findings, radiographs of the sample; then with every sigmoid saturated."""
    network, info = load_model(gradcam.MODEL_PATH)
    names = ("00000011_001.png", "00000026_000.png")
    radiographs = [read_radiograph(ROOT / "images" / name) for name in names]
    inputs = np.stack([to_model_input(one, info.image_size) for one in radiographs]).astype(np.float32)
    features = np.asarray(keras.Model(network.input, network.get_layer("relu").output)(inputs))
    head = network.get_layer("logits")
    kernel, bias = head.get_weights()
    peaks = np.zeros((2, 14))
    for sign in (-1, 1):  # between them, every finding has evidence to compare
        head.set_weights([sign * kernel, bias])
        expected = autodiff_heatmaps(features, "logits", network)
        assert expected.shape == (2, 14, *info.feature_shape[:2])
        assert_allclose(gradcam.heatmaps(features, sign * kernel), expected, rtol=1e-5, atol=1e-5 * expected.max())
        peaks = np.maximum(peaks, expected.max(axis=(2, 3)))
    assert (peaks > 1e-3).all()

    head.set_weights([kernel, np.full_like(bias, 200.0)])
    assert autodiff_heatmaps(features, "probabilities", network).max() == 0
    assert_allclose(autodiff_heatmaps(features, "logits", network), expected, rtol=1e-5, atol=1e-5 * expected.max())


def test_heatmaps_hand_worked_values():
    features = np.zeros((2, 2, 2, 2))
    features[0, 0, 1] = [3, 1]
    features[1, 1, 0] = [1, 5]
    kernel = np.array([[2.0, -1.0], [-1.0, 1.0]])
    expected = np.zeros((2, 2, 2, 2))  # (image, finding, row, column)
    expected[0, 0, 0, 1] = (3 * 2 - 1) / 4
    expected[1, 1, 1, 0] = (-1 + 5) / 4
    assert_array_equal(gradcam.heatmaps(features, kernel), expected)


@pytest.mark.parametrize(
    ("features", "kernel"),
    [((1, 7, 7, 8), (9, 14)), ((7, 7, 8), (8, 14)), ((1, 7, 7, 8), (8,)), ((1, 392), (392, 14))],
    ids=["channels differ", "no batch axis", "kernel of one axis", "flattened features"],
)
def test_heatmaps_refuses_a_head_that_is_not_pooling_and_one_dense_layer(features, kernel):
    with pytest.raises(ValueError, match=r"features \(n, h, w, channels\) and a head kernel .* Received"):
        gradcam.heatmaps(np.zeros(features), np.zeros(kernel))


def test_describe_heatmap_names_peak_and_logit_or_the_lack_of_evidence():
    assert "+0.25 to a logit of -1.5" in describe_heatmap(np.array([[0, 0.25]]), -1.5)
    assert "no positive evidence" in describe_heatmap(np.zeros((7, 7)), 3.0)
