"""The network against Keras' own preprocessing, batch normalisation and DenseNet121's shape."""

import keras
import numpy as np
import pytest

from cxr.network import densenet
from cxr.network.densenet import (
    IMAGENET_MEAN,
    FusedBatchNormalization,
    build_network,
    choose_precision,
    fuse,
    is_plain,
    on_tensorflow_cpu,
)

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


on_cpu_only = pytest.mark.skipif(not on_tensorflow_cpu(), reason="what is fused is fused for TensorFlow on a CPU")


def make_normalisations():
    """One batch normalisation of Keras' own and a fused one, with the same random variables."""
    plain = keras.layers.BatchNormalization(momentum=0.8, epsilon=1.001e-5, name="bn")
    fused = FusedBatchNormalization(**plain.get_config())
    rng = np.random.default_rng(5)
    values = [rng.uniform(0.5, 2.0, 6).astype(np.float32) for _ in range(4)]
    for layer in (plain, fused):
        layer.build((None, 5, 7, 6))
        layer.set_weights(values)
    return plain, fused


def maps(dtype="float32"):
    drawn = np.random.default_rng(6).normal(3.0, 2.0, (3, 5, 7, 6)).astype(np.float32)
    return keras.ops.cast(drawn, dtype)


@on_cpu_only
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("trainable", [True, False])
def test_fused_batch_normalisation_equals_keras(training, trainable):
    import tensorflow as tf

    found = []
    for layer in make_normalisations():
        layer.trainable = trainable
        inputs = maps()
        with tf.GradientTape() as tape:
            tape.watch([inputs, layer.gamma.value, layer.beta.value])
            normalised = layer(inputs, training=training)
            loss = tf.reduce_sum(normalised**3)
        gradients = tape.gradient(loss, [inputs, layer.gamma.value, layer.beta.value])
        found.append([normalised, *gradients, *layer.get_weights()])
    for plain, fused in zip(*found, strict=True):
        np.testing.assert_allclose(fused, plain, rtol=1e-4, atol=2e-4)


@on_cpu_only
def test_fused_batch_normalisation_keeps_its_statistics_in_float32_where_the_maps_are_bfloat16():
    plain, fused = make_normalisations()
    expected, found = plain(maps(), training=True), fused(maps("bfloat16"), training=True)
    assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"
    assert {variable.dtype for variable in fused.variables} == {"float32"}
    np.testing.assert_allclose(keras.ops.cast(found, "float32"), expected, atol=0.03)  # 2**-8 of values up to 5
    for one, other in zip(fused.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3)


@on_cpu_only
def test_fused_network_has_the_same_weights_in_order_and_the_same_answers(network):
    fused = fuse(network)
    assert not is_plain(fused)
    assert is_plain(network)
    assert [one.path for one in fused.weights] == [one.path for one in network.weights]
    model_inputs = np.random.default_rng(1).integers(0, 256, (2, SIZE, SIZE, 1), np.uint8)
    np.testing.assert_allclose(fused(model_inputs), network(model_inputs), atol=1e-5)
    kinds = {type(layer) for layer in fused.layers}
    assert FusedBatchNormalization in kinds
    assert keras.layers.BatchNormalization not in kinds


@pytest.mark.parametrize(
    ("flags", "switch", "precision"),
    [
        ("fpu avx512f avx512_bf16", None, "mixed_bfloat16"),
        ("fpu amx_bf16 amx_tile", "1", "mixed_bfloat16"),
        ("fpu avx512f avx512_bf16", "0", "float32"),  # without oneDNN TensorFlow emulates bfloat16
        ("fpu avx2 avx512f avx512_bf16x", None, "float32"),
        (None, None, "float32"),
    ],
)
def test_precision_is_chosen_by_what_the_processor_multiplies_in(tmp_path, monkeypatch, flags, switch, precision):
    path = tmp_path / "cpuinfo"
    if flags is not None:
        path.write_text(f"model name\t: avx512_bf16 in a name\nflags\t\t: {flags}\n\n" * 2)
    monkeypatch.setattr(densenet, "PROCESSOR_FILE", path)
    monkeypatch.setattr(densenet, "on_tensorflow_cpu", lambda: True)
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if switch:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", switch)
    assert choose_precision() == precision
