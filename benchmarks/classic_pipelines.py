"""The two pipelines that most Keras repositories use, with this project's augmentation as near as they have it."""

import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf
from keras.src.legacy.preprocessing.image import ImageDataGenerator

from cxr.data.batches import AugmentationLimits
from cxr.data.labels import Split

LIMITS = AugmentationLimits()


def flow_from_dataframe(split: Split, image_dir: Path, size: int, batch_size: int) -> Callable[[], Iterable]:
    """Keras 2's generator, as in most chest X-ray repositories: Pillow decodes and SciPy warps, in every epoch."""
    table = pd.DataFrame(split.labels, columns=list(split.findings)).assign(Image=split.images)
    generator = ImageDataGenerator(
        rotation_range=LIMITS.rotation,
        width_shift_range=LIMITS.shift,
        height_shift_range=LIMITS.shift,
        zoom_range=LIMITS.zoom,
        brightness_range=(1 - LIMITS.brightness / 128, 1 + LIMITS.brightness / 128),
        fill_mode="constant",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flow = generator.flow_from_dataframe(
            table,
            directory=str(image_dir),
            x_col="Image",
            y_col=list(split.findings),
            class_mode="raw",
            color_mode="grayscale",
            target_size=(size, size),
            batch_size=batch_size,
            validate_filenames=False,
        )
    steps = len(split.images) // batch_size

    def batches() -> Iterable:
        with ThreadPoolExecutor(1) as pool:  # one worker ahead of the training step, Keras' default
            yield from pool.map(flow.__getitem__, range(steps))
        flow.on_epoch_end()

    return batches


def tf_data(split: Split, image_dir: Path, size: int, batch_size: int, cache: bool) -> Callable[[], Iterable]:
    """tf.data with parallel decoding and prefetching; `cache` keeps the decoded radiographs in memory."""
    paths = [str(image_dir / image) for image in split.images]

    def decode(path, labels):
        pixels = tf.io.decode_png(tf.io.read_file(path), channels=1)
        return tf.image.resize(pixels, (size, size), method="area"), labels

    def augment(radiograph, labels):
        angle = tf.random.uniform((), -LIMITS.rotation, LIMITS.rotation) * np.pi / 180
        zoom = (1 + LIMITS.zoom) ** tf.random.uniform((), -1, 1)
        shift = tf.random.uniform((2,), -LIMITS.shift, LIMITS.shift) * size
        cosine, sine, middle = tf.cos(angle) / zoom, tf.sin(angle) / zoom, (size - 1) / 2
        transform = [cosine, sine, middle - (cosine + sine) * middle + shift[0],
                     -sine, cosine, middle - (cosine - sine) * middle + shift[1], 0.0, 0.0]  # fmt: skip
        warped = tf.raw_ops.ImageProjectiveTransformV3(
            images=radiograph[tf.newaxis],
            transforms=tf.stack(transform)[tf.newaxis],
            output_shape=(size, size),
            fill_value=0.0,
            interpolation="BILINEAR",
        )[0]
        contrast = 1 + tf.random.uniform((), -LIMITS.contrast, LIMITS.contrast)
        brightness = tf.random.uniform((), -LIMITS.brightness, LIMITS.brightness)
        return tf.clip_by_value((warped - 127.5) * contrast + 127.5 + brightness, 0, 255), labels

    dataset = tf.data.Dataset.from_tensor_slices((paths, split.labels))
    if cache:
        dataset = dataset.map(decode, tf.data.AUTOTUNE).cache().shuffle(len(paths))
    else:
        dataset = dataset.shuffle(len(paths)).map(decode, tf.data.AUTOTUNE)
    dataset = dataset.map(augment, tf.data.AUTOTUNE).batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    return lambda: dataset
