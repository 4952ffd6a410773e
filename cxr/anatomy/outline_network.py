"""The network that outlines lungs and heart: a small U-Net, its layers and its input."""

from collections.abc import Sequence

import keras
from keras import layers

STRUCTURES = ("right_lung", "left_lung", "heart")
INPUT_SIZE = 192  # pixels
WIDTHS = (12, 24, 48, 96, 128)  # channels at a half, a quarter ... of the input's side
STRIDE = 2  # the output's grid is half as fine as the input


def build_outline_network(size: int = INPUT_SIZE, widths: Sequence[int] = WIDTHS) -> keras.Model:
    """Build a U-Net (Ronneberger et al. 2015) that starts and ends at half of the input's resolution.

    The finest level costs the most and adds the least to outlines that are smooth.

    Args:
        size: side of the input in pixels, a multiple of 2 ** len(widths).
    Returns: a model from (n, size, size, 1), values 0-255, to float32 (n, size / 2, size / 2, 3), logits of right lung,
        left lung and heart, which may overlap.
    """
    if size % 2 ** len(widths):
        raise ValueError(f"Expected a multiple of {2 ** len(widths)} pixels for {len(widths)} levels, received {size}.")
    radiograph = keras.Input((size, size, 1), name="radiograph")
    maps = layers.Rescaling(1 / 127.5, offset=-1, name="to_symmetric_range")(radiograph)
    maps = _convolve(maps, widths[0], "stem", kernel=5, strides=STRIDE)
    skips = []
    for level, width in enumerate(widths):
        if level:
            maps = layers.MaxPooling2D(2, name=f"down{level}_pool")(maps)
        maps = _convolve(_convolve(maps, width, f"down{level}_a"), width, f"down{level}_b")
        skips.append(maps)
    for level in reversed(range(len(widths) - 1)):
        maps = layers.UpSampling2D(2, name=f"up{level}_size")(maps)
        maps = layers.Concatenate(name=f"up{level}_join")([maps, skips[level]])
        maps = _convolve(_convolve(maps, widths[level], f"up{level}_a"), widths[level], f"up{level}_b")
    return keras.Model(radiograph, layers.Conv2D(len(STRUCTURES), 1, name="logits")(maps), name="outlines")


def _convolve(maps: keras.KerasTensor, width: int, name: str, kernel: int = 3, strides: int = 1) -> keras.KerasTensor:
    """Add convolution, batch normalisation and ReLU."""
    maps = layers.Conv2D(width, kernel, strides, padding="same", use_bias=False, name=f"{name}_conv")(maps)
    maps = layers.BatchNormalization(momentum=0.97, name=f"{name}_bn")(maps)
    return layers.Activation("relu", name=f"{name}_relu")(maps)
