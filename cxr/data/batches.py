"""Batches of a cached split, the training split's shuffled and augmented (geometry, grey levels, blends).

Everything random is a function of (seed, epoch, row): a run that was stopped goes on with the very same batches.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import keras
import numpy as np

from cxr.data.boxes import BoxTargets
from cxr.data.cache import CachedSplit

MIN_BLUR = 0.3  # pixels; a narrower Gaussian changes nothing that a grey level shows
NUM_PREPARED = 4  # batches made ahead of the training step
MIXUP_STREAM = 1  # keeps the numbers drawn for a batch apart from those drawn for a row


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
    stretch: float = 0.0  # 0.1: between 1/1.1 and 1.1 times as wide as high
    gamma: float = 0.0  # 0.5: the grey curve's exponent is between 1/1.5 and 1.5, as another exposure's
    blur: float = 0.0  # pixels of a 224-pixel side, standard deviation of a Gaussian; from 0 to the limit
    noise: float = 0.0  # grey levels, standard deviation; from 0 to the limit
    erased: float = 0.0  # share of the side: a grey rectangle of up to this width and height, in every second picture


# Two strengths: the first keeps a radiograph as a careful radiographer would have made it, the second asks for what is
# left of it under other exposures, detectors and crops, which a small training set of one hospital does not show.
AUGMENTATIONS = {
    "light": AugmentationLimits(),
    "strong": AugmentationLimits(
        rotation=12.0,
        shift=0.08,
        zoom=0.2,
        brightness=30.0,
        contrast=0.3,
        stretch=0.1,
        gamma=0.5,
        blur=1.2,
        noise=6.0,
        erased=0.25,
    ),
}


def augment(
    model_input: np.ndarray, rng: np.random.Generator, limits: AugmentationLimits
) -> tuple[np.ndarray, np.ndarray]:
    """Turn, shift, zoom and stretch a radiograph in one warp, and change its grey levels.

    Args:
        model_input: uint8 (size, size, 1); not changed.

    Returns:
        The new radiograph, uint8 (size, size, 1), and the warp, float64 (2, 3), as `affine_matrix` describes it.
    """
    angle, shift_x, shift_y, zoom, brightness, contrast = rng.uniform(-1.0, 1.0, 6)
    size = model_input.shape[0]
    matrix = affine_matrix(
        size,
        angle=angle * limits.rotation,
        shift=(shift_x * limits.shift * size, shift_y * limits.shift * size),
        zoom=(1.0 + limits.zoom) ** zoom,
        stretch=(1.0 + limits.stretch) ** rng.uniform(-1.0, 1.0) if limits.stretch else 1.0,
    )
    warped = cv2.warpAffine(model_input, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    levels = np.arange(256, dtype=np.float32)
    if limits.gamma:
        levels = 255.0 * (levels / 255.0) ** ((1.0 + limits.gamma) ** rng.uniform(-1.0, 1.0))
    levels = (levels - 127.5) * (1.0 + contrast * limits.contrast) + 127.5 + brightness * limits.brightness
    changed = cv2.LUT(warped, np.clip(np.rint(levels), 0, 255).astype(np.uint8))
    return _degrade(changed, rng, limits).reshape(model_input.shape), matrix


def _degrade(radiograph: np.ndarray, rng: np.random.Generator, limits: AugmentationLimits) -> np.ndarray:
    """Blur, add noise and erase a rectangle, as far as the limits ask for it; uint8 (size, size) in and out."""
    size = radiograph.shape[0]
    if limits.blur:
        deviation = rng.uniform(0.0, limits.blur) * size / 224
        radiograph = cv2.GaussianBlur(radiograph, (0, 0), deviation) if deviation > MIN_BLUR else radiograph
    if limits.noise:
        grain = rng.standard_normal(radiograph.shape, np.float32) * np.float32(rng.uniform(0.0, limits.noise))
        radiograph = np.clip(np.rint(radiograph + grain), 0, 255).astype(np.uint8)
    if limits.erased and rng.random() < 0.5:
        height, width = (max(1, round(rng.uniform(0.0, limits.erased) * size)) for _ in range(2))
        top, left = int(rng.integers(0, size - height + 1)), int(rng.integers(0, size - width + 1))
        radiograph[top : top + height, left : left + width] = int(rng.integers(0, 256))
    return radiograph


def affine_matrix(size: int, angle: float, shift: tuple[float, float], zoom: float, stretch: float = 1.0) -> np.ndarray:
    """Return the (2, 3) matrix that takes pixel (x, y, 1) of the input to its place in the output.

    Args:
        size: side in pixels; turn, zoom and stretch are about the middle.
        angle: degrees, counter-clockwise as seen on the screen.
        shift: pixels to the right and down, after turn and zoom.
        zoom: above 1 enlarges.
        stretch: above 1 makes wider and as much flatter, before turn and zoom.
    """
    middle = (size - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), angle, zoom)
    if stretch != 1.0:
        across, down = np.sqrt(stretch), 1.0 / np.sqrt(stretch)
        about_middle = [[across, 0.0, middle * (1 - across)], [0.0, down, middle * (1 - down)], [0.0, 0.0, 1.0]]
        matrix = matrix @ np.array(about_middle)
    matrix[:, 2] += shift
    return matrix


def mix(
    model_inputs: np.ndarray, labels: np.ndarray, rng: np.random.Generator, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    """Blend every picture of a batch with its neighbour, and the labels in the same share, which is at least a half.

    A label that is blank (NaN) in either picture is blank in the blend.
    """
    share = draw_shares(rng, len(labels), alpha)
    across = share[:, None, None, None]
    blend = across * model_inputs + (1 - across) * np.roll(model_inputs, 1, axis=0)
    mixed = share[:, None] * labels + (1 - share[:, None]) * np.roll(labels, 1, axis=0)
    return np.rint(blend).astype(np.uint8), mixed


def draw_shares(rng: np.random.Generator, count: int, alpha: float) -> np.ndarray:
    """Draw each picture's own share of its blend from Beta(alpha, alpha), float32 (count,), at least a half."""
    share = rng.beta(alpha, alpha, count).astype(np.float32)
    return np.maximum(share, 1 - share)


class RadiographBatches(keras.utils.PyDataset):
    """Batches (model inputs uint8 (b, size, size, 1), labels float32 (b, findings)) of a cached split.

    With boxes the second part is a pair: the labels, and `box_coverage` of every picture, float32 (b, h, w, findings).
    """

    def __init__(
        self,
        cached: CachedSplit,
        batch_size: int,
        training: bool = False,
        seed: int = 0,
        limits: AugmentationLimits | None = None,
        own_rows: Callable[[int], slice] = slice,
        mixup: float = 0.0,
        boxes: BoxTargets | None = None,
    ) -> None:
        """Set up the batches; `set_epoch` chooses the epoch.

        Args:
            training: shuffle, augment, and leave out the last incomplete batch (other rows in every epoch); without
                it the rows come in the split's order, as they are, all of them.
            limits: of the augmentation (default: AugmentationLimits()).
            own_rows: number of rows in a batch -> those that are prepared here; the others are another process's.
            mixup: every training picture is blended with another one of its batch, and their labels with them, by a
                share drawn from Beta(mixup, mixup) (Zhang et al. 2018, "mixup"); 0 for none. The boxes are those of
                the picture with the larger share.
            boxes: where the findings of the training pictures are; they move with their pictures.
        """
        super().__init__()
        self.cached, self.batch_size = cached, min(batch_size, len(cached))
        self.training, self.seed, self.limits = training, seed, limits or AugmentationLimits()
        self.own_rows, self.mixup, self.boxes = own_rows, mixup if training else 0.0, boxes if training else None
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

    def composition(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Say what the pictures prepared here for a batch consist of.

        Returns: rows of the pictures, rows of those that are blended into them, and the first's share, float32 from a
            half to 1; without mixup 1.
        """
        rows = self.rows(index)
        rows = rows[self.own_rows(len(rows))]
        shares = np.ones(len(rows), np.float32)
        if self.mixup:
            shares = draw_shares(self._mixup_rng(index), len(rows), self.mixup)
        return rows, np.roll(rows, 1), shares

    def _mixup_rng(self, index: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, self.epoch, index, MIXUP_STREAM))

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray | tuple[np.ndarray, np.ndarray]]:
        rows = self.rows(index)
        rows = rows[self.own_rows(len(rows))]
        model_inputs = np.empty((len(rows), *self.cached.model_inputs.shape[1:]), np.uint8)
        coverage = None if self.boxes is None else self.boxes.empty(len(rows))
        for position, row in enumerate(rows):
            radiograph = self.cached.model_inputs[row]
            if self.training:
                rng = np.random.default_rng((self.seed, self.epoch, row))
                radiograph, matrix = augment(radiograph, rng, self.limits)
                if coverage is not None:
                    self.boxes.draw(coverage[position], row, matrix, len(radiograph))
            model_inputs[position] = radiograph
        labels = self.cached.split.labels[rows]
        if self.mixup:
            model_inputs, labels = mix(model_inputs, labels, self._mixup_rng(index), self.mixup)
        return model_inputs, labels if coverage is None else (labels, coverage)


def prepare_ahead(
    batches: RadiographBatches | Sequence[tuple], start: int, workers: int = 2
) -> Iterator[tuple[int, tuple]]:
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
