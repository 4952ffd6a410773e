"""The scale of features: mean and deviation of each channel, by which different channels weigh alike where learned."""

from typing import NamedTuple

import numpy as np

LEAST_DEVIATION = 0.01  # added, for channels that hardly ever answer


class FeatureScale(NamedTuple):
    """Mean and deviation of each channel, float32 (channels,)."""

    mean: np.ndarray
    deviation: np.ndarray

    def standardise(self, features: np.ndarray) -> np.ndarray:
        """Return features (..., channels) with mean 0 and deviation 1, nearly; float32, NaN stays NaN."""
        return ((features - self.mean) / self.deviation).astype(np.float32)


def measure_scale(features: np.ndarray) -> FeatureScale:
    """Measure features (..., channels) over all axes but the last; rows of NaN are left out.

    Returns: mean 0 and deviation 1 where no row is known.
    """
    rows = features.reshape(-1, features.shape[-1])
    rows = rows[~np.isnan(rows[:, 0])]
    if not len(rows):
        return FeatureScale(np.zeros(rows.shape[1], np.float32), np.ones(rows.shape[1], np.float32))
    mean, deviation = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
    return FeatureScale(mean.astype(np.float32), (deviation + LEAST_DEVIATION).astype(np.float32))
