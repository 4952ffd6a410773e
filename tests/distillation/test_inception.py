"""InceptionV3 alone and as a teacher: weights land where keras.applications has them, and answers are its own."""

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from cxr.distillation.inception import build_inception, build_teacher, set_weights
from cxr.distillation.inception_weights import Convolution, read_inception_weights
from cxr.network.densenet import FusedBatchNormalization, fuse
from cxr.network.model_file import save_warnings_silenced
from cxr.network.model_info import ModelFileError

SIZE = 75


def randomise(network, seed=3):
    """Give a network weights that no two layers share, of a size that keeps its numbers finite."""
    rng = np.random.default_rng(seed)
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            shape = layer.kernel.shape
            layer.set_weights([rng.normal(0, np.sqrt(2 / np.prod(shape[:3])), shape)])
        elif isinstance(layer, keras.layers.BatchNormalization):
            beta, mean, variance = (rng.uniform(low, high, layer.beta.shape) for low, high in ((0, 1), (0, 1), (1, 2)))
            layer.set_weights([beta, mean, variance])


@pytest.fixture(scope="module")
def original():
    network = keras.applications.InceptionV3(weights=None, input_shape=(SIZE, SIZE, 3), classes=5)
    randomise(network)
    return network


@pytest.fixture(scope="module")
def inception():
    return build_inception(SIZE)


@pytest.fixture(scope="module")
def teacher():
    return build_teacher(("Mass", "Edema"), SIZE, 0.9)


@pytest.mark.parametrize("name", ["whole.h5", "new.weights.h5"])
def test_a_keras_file_gives_the_features_of_keras_applications(tmp_path, original, inception, teacher, name):
    with save_warnings_silenced():
        (original.save_weights if "weights" in name else original.save)(tmp_path / name)
    convolutions, origin = read_inception_weights(str(tmp_path / name))
    assert origin == f"file {name}"
    grey = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 1)).astype(np.float32)
    prepared = keras.applications.inception_v3.preprocess_input(np.repeat(grey, 3, axis=-1))
    outputs = [original.get_layer(layer).output for layer in ("mixed7", "avg_pool")]
    feature_map, pooled = keras.Model(original.input, outputs)(prepared, training=False)
    for network in (inception, teacher):
        set_weights(network, convolutions, name)
        assert_array_equal(network.get_layer("norm_93").gamma, np.ones(192, np.float32))
    of_teacher = keras.Model(teacher.input, teacher.get_layer("logits").input)
    for network, expected in (
        (inception, [feature_map, pooled]),
        (fuse(inception), [feature_map, pooled]),
        (of_teacher, [pooled]),
    ):
        answers = network(grey, training=False)
        for one, other in zip(answers if len(expected) > 1 else [answers], expected, strict=True):
            assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())
            assert np.ptp(other) > 0.1


def test_both_networks_have_the_shapes_and_the_fused_layers_that_training_expects(inception, teacher):
    assert [one.shape[1:] for one in inception.outputs] == [(3, 3, 768), (2048,)]
    for network in (inception, teacher):
        assert sum(isinstance(layer, FusedBatchNormalization) for layer in fuse(network).layers) == 94


def test_the_teacher_is_trained_as_the_classifier_is(teacher):
    assert {"relu", "pooled", "logits", "probabilities"} <= {layer.name for layer in teacher.layers}
    assert {layer.momentum for layer in teacher.layers if isinstance(layer, keras.layers.BatchNormalization)} == {0.9}
    grey = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 1)).astype(np.float32)
    assert_allclose(fuse(teacher)(grey, training=False), teacher(grey, training=False), atol=1e-5)


@pytest.mark.parametrize(("findings", "size"), [((), 75), (("Mass",), 74)])
def test_no_findings_or_too_small_a_picture_is_refused(findings, size):
    with pytest.raises(ValueError, match="at least one finding and an image size of at least 75 pixels"):
        build_teacher(findings, size)


@pytest.mark.fault("P04")
def test_a_kernel_of_another_network_is_refused(inception):
    given = [
        Convolution(*inception.get_layer(f"conv_{k}").get_weights(), *inception.get_layer(f"norm_{k}").get_weights())
        for k in range(94)
    ]
    given[7] = given[7]._replace(kernel=given[7].kernel[..., :3])
    with pytest.raises(ModelFileError, match=r"x\.h5: convolution 8 of 94 has weights of shape"):
        set_weights(inception, given, "x.h5")
