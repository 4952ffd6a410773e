"""A network with DenseNet121's kinds of layers and the names that the project looks up, small enough for many runs."""

import keras


def build_small_network(findings, size):
    """Build conv, batch normalisation, pooling and the head; (n, size, size, 1), 0-255, to (n, findings)."""
    radiograph = keras.Input((size, size, 1), name="radiograph")
    maps = keras.layers.Rescaling(1 / 255, name="to_unit_range")(radiograph)
    maps = keras.layers.Conv2D(8, 3, strides=2, use_bias=False, name="conv1_conv")(maps)
    maps = keras.layers.BatchNormalization(momentum=0.9, name="bn")(maps)
    maps = keras.layers.Activation("relu", name="relu")(maps)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(maps)
    logits = keras.layers.Dense(len(findings), name="logits")(pooled)
    return keras.Model(radiograph, keras.layers.Activation("sigmoid", name="probabilities")(logits))
