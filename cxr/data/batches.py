"""Batches of a cached split, and the augmentation of training radiographs.

Everything random is a function of (seed, epoch, row): a run that was stopped goes on with the very same batches.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import keras
import numpy as np

from cxr.data.cache import CachedSplit

NUM_PREPARED = 4  # batches made ahead of the training step


@dataclass(frozen=True)
class AugmentationLimits:
    """The largest change of each kind; every radiograph gets a uniform draw between minus and plus the limit.

    There is no left-right flip: it would move the heart to the right side.
    """

    rotation: float = 7.0  # degrees
    shift: float = 0.05  # share of the side
    zoom: float = 0.08  # 0.08: between 1/1.08 and 1.08 times
    brightness: float = 20.0  # grey levels
    contrast: float = 0.15  # share of a grey level's distance from mid-grey


class RadiographBatches(keras.utils.PyDataset):
    """Batches (model inputs uint8 (b, size, size, 1), labels float32 (b, findings)) of a cached split."""

    def __init__(
        self,
        cached: CachedSplit,
        batch_size: int,
        training: bool = False,
        seed: int = 0,
        limits: AugmentationLimits | None = None,
        own_rows: Callable[[int], slice] = slice,
    ) -> None:
        """Set up the batches; `set_epoch` chooses the epoch.

        Args:
            training: shuffle, augment, and leave out the last incomplete batch (other rows in every epoch); without
                it the rows come in the split's order, as they are, all of them.
            limits: of the augmentation (default: AugmentationLimits()).
            own_rows: number of rows in a batch -> those that are prepared here; the others are another process's.
        """
        super().__init__()
        self.cached, self.batch_size = cached, min(batch_size, len(cached))
        self.training, self.seed, self.limits = training, seed, limits or AugmentationLimits()
        self.own_rows = own_rows
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentation of an epoch (from 0)."""
        self.epoch = epoch
        self.order = np.arange(len(self.cached))
        if self.training:
            self.order = np.random.default_rng((self.seed, epoch)).permutation(self.order)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.cached), self.batch_size)
        return whole if self.training or not rest else whole + 1

    def rows(self, index: int) -> np.ndarray:
        """Return the row numbers of a batch in the split's order."""
        return self.order[index * self.batch_size : (index + 1) * self.batch_size]

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.rows(index)
        rows = rows[self.own_rows(len(rows))]
        model_inputs = np.empty((len(rows), *self.cached.model_inputs.shape[1:]), np.uint8)
        for position, row in enumerate(rows):
            radiograph = self.cached.model_inputs[row]
            if self.training:
                radiograph = augment(radiograph, np.random.default_rng((self.seed, self.epoch, row)), self.limits)
            model_inputs[position] = radiograph
        return model_inputs, self.cached.split.labels[rows]


def prepare_ahead(batches: RadiographBatches, start: int, workers: int = 2) -> Iterator[tuple[int, tuple]]:
    """Yield (index, batch) from index `start` on, a few batches made ahead in threads."""
    with ThreadPoolExecutor(workers, thread_name_prefix="batches") as pool:
        pending: list[tuple[int, Future]] = []
        try:
            for index in range(start, len(batches)):
                pending.append((index, pool.submit(batches.__getitem__, index)))
                if len(pending) > NUM_PREPARED:
                    first, batch = pending.pop(0)
                    yield first, batch.result()
            while pending:
                first, batch = pending.pop(0)
                yield first, batch.result()
        finally:
            for _, batch in pending:
                batch.cancel()


def augment(model_input: np.ndarray, rng: np.random.Generator, limits: AugmentationLimits) -> np.ndarray:
    """Turn, shift and zoom a radiograph in one warp, and change its brightness and contrast.

    Args:
        model_input: uint8 (size, size, 1); not changed.
    Returns: uint8 (size, size, 1).
    """
    angle, shift_x, shift_y, zoom, brightness, contrast = rng.uniform(-1.0, 1.0, 6)
    size = model_input.shape[0]
    matrix = affine_matrix(
        size,
        angle=angle * limits.rotation,
        shift=(shift_x * limits.shift * size, shift_y * limits.shift * size),
        zoom=(1.0 + limits.zoom) ** zoom,
    )
    warped = cv2.warpAffine(model_input, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    levels = np.arange(256, dtype=np.float32)
    levels = (levels - 127.5) * (1.0 + contrast * limits.contrast) + 127.5 + brightness * limits.brightness
    return cv2.LUT(warped, np.clip(np.rint(levels), 0, 255).astype(np.uint8)).reshape(model_input.shape)


def affine_matrix(size: int, angle: float, shift: tuple[float, float], zoom: float) -> np.ndarray:
    """Return the (2, 3) matrix that takes pixel (x, y, 1) of the input to its place in the output.

    Args:
        size: side in pixels; turn and zoom are about the middle.
        angle: degrees, counter-clockwise as seen on the screen.
        shift: pixels to the right and down, after turn and zoom.
        zoom: above 1 enlarges.
    """
    middle = (size - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), angle, zoom)
    matrix[:, 2] += shift
    return matrix
