"""Batches of a cached split, the training split's shuffled and augmented.

Everything random is a function of (seed, epoch, row): a run that was stopped goes on with the very same batches.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import keras
import numpy as np

from cxr.data.augmentation import AugmentationLimits, augment, mix
from cxr.data.boxes import BoxTargets
from cxr.data.cache import CachedSplit

NUM_PREPARED = 4  # batches made ahead of the training step
MIXUP_STREAM = 1  # keeps the numbers drawn for a batch apart from those drawn for a row


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
            rng = np.random.default_rng((self.seed, self.epoch, index, MIXUP_STREAM))
            model_inputs, labels = mix(model_inputs, labels, rng, self.mixup)
        return model_inputs, labels if coverage is None else (labels, coverage)


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
