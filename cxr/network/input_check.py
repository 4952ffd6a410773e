"""How unlike the training radiographs a picture is, in two aspects: what the network sees in it, and its plain layout.

Owns the fit of the statistics, the distance and its limit; storing them is modelfile's work. Knows nothing of Keras.

The network's pooled features alone do not notice an upside-down or inverted radiograph reliably: pooling forgets where
things are, and a network that was never shown such pictures may well find its usual features in them. The layout, a
thumbnail with its brightness and contrast taken out, notices just these, and is blind to fine texture, which the
features see.
"""

import statistics as stdlib_statistics
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

MAX_COMPONENTS = 32  # directions of largest variance that are kept; 1024 x 32 float32 is 128 KB in the model file
LAYOUT_SIDE = 8  # pixels of the thumbnail: lungs, heart, shoulders and abdomen, nothing smaller
LAYOUT_MIN_CONTRAST = 8.0  # grey levels added to a thumbnail's contrast, so that an empty picture's noise stays small
NUM_ASPECTS = 2
FLAGGED_SHARE = 0.01  # of radiographs like the validation split's, over both aspects


@dataclass(frozen=True, eq=False)
class AspectStatistics:
    """A low-rank Gaussian of one aspect (probabilistic PCA) and the distance from which on a picture is unlike it.

    Attributes:
        mean: float32 (c,), mean of the training split.
        components: float32 (c, k), orthonormal columns, the directions of largest variance.
        variances: float32 (k,), variance along each column of `components`.
        residual_variance: mean variance along each of the other c - k directions.
        limit: distance that a share of FLAGGED_SHARE / NUM_ASPECTS of the validation radiographs exceeds.
    """

    mean: np.ndarray
    components: np.ndarray
    variances: np.ndarray
    residual_variance: float
    limit: float


def layout_features(model_inputs: np.ndarray) -> np.ndarray:
    """Shrink model inputs to thumbnails, and take brightness and contrast out of them.

    Args:
        model_inputs: uint8 (n, size, size, 1).

    Returns:
        float32 (n, LAYOUT_SIDE ** 2), each row with mean 0 and a standard deviation below 1.
    """
    side = (LAYOUT_SIDE, LAYOUT_SIDE)
    small = [cv2.resize(one[..., 0].astype(np.float32), side, interpolation=cv2.INTER_AREA) for one in model_inputs]
    rows = np.stack(small).reshape(len(small), -1)
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / (rows.std(axis=1, keepdims=True) + LAYOUT_MIN_CONTRAST)


def fit_statistics(train: np.ndarray, reference: np.ndarray) -> AspectStatistics:
    """Fit probabilistic PCA to the training split (Tipping and Bishop 1999, eq. 8), and the limit to another split.

    A full covariance of 1024 features needs more radiographs than a small training set has; the low-rank form stays
    invertible for any number of them.

    Args:
        train: float (n, c), one aspect of the training split, not augmented.
        reference: float (m, c), of radiographs that were not used for the fit (the validation split).

    Raises:
        ValueError: fewer than two training or two reference radiographs.
    """
    train = np.asarray(train, np.float64)
    num_images, num_features = train.shape
    if num_images < 2 or len(reference) < 2:
        raise ValueError(
            f"The check of unlike pictures needs at least 2 training and 2 validation radiographs, received "
            f"{num_images} and {len(reference)}. Add rows to the CSV files."
        )
    mean = train.mean(axis=0)
    # The squared singular values over n are the eigenvalues of the covariance (c, c), which is never formed.
    _, singular_values, directions = np.linalg.svd(train - mean, full_matrices=False)
    eigenvalues = singular_values**2 / num_images
    rank = min(MAX_COMPONENTS, max(1, num_images // 4), num_features - 1)
    floor = max(float(eigenvalues.max()) * 1e-6, 1e-12)  # keeps the distance finite where features are constant
    parts = (
        mean.astype(np.float32),
        directions[:rank].T.astype(np.float32),
        np.maximum(eigenvalues[:rank], floor).astype(np.float32),
        max(float(eigenvalues[rank:].sum()) / (num_features - rank), floor),
    )
    return AspectStatistics(*parts, upper_limit(distances(AspectStatistics(*parts, 1.0), reference)))


def distances(statistics: AspectStatistics, rows: np.ndarray) -> np.ndarray:
    """Measure how far rows, (n, c), lie from the training split (Mahalanobis distance, low-rank covariance).

    Returns: float32 (n,), the distance divided by sqrt(c): about 1 for a radiograph like the training ones.
    """
    centred = np.asarray(rows, np.float64) - statistics.mean  # (n, c)
    coordinates = centred @ statistics.components  # (n, k)
    squared_residual = np.maximum((centred**2).sum(axis=1) - (coordinates**2).sum(axis=1), 0.0)
    squared = (coordinates**2 / statistics.variances).sum(axis=1) + squared_residual / statistics.residual_variance
    return np.sqrt(squared / centred.shape[1]).astype(np.float32)


def upper_limit(reference: np.ndarray, share: float = FLAGGED_SHARE / NUM_ASPECTS) -> float:
    """Return the distance that a share of further radiographs like the reference exceeds.

    A hundred radiographs have no 0.5 % quantile to read off, so the limit is that of a log-normal distribution: the
    upper prediction limit for one more value, which is the wider the fewer values there are (Student's t, by its
    expansion in Abramowitz and Stegun 1964, 26.7.5). Where the reference itself has a heavier tail, its own quantile
    is larger and is taken.

    Args:
        reference: float (m,), distances, m >= 2.
    """
    logs, freedom = np.log(np.maximum(reference, 1e-12)), len(reference) - 1
    z = stdlib_statistics.NormalDist().inv_cdf(1 - share)
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    predicted = np.exp(logs.mean() + t * logs.std(ddof=1) * np.sqrt(1 + 1 / len(logs)))
    return float(max(predicted, np.quantile(reference, 1 - share)))


def novelty(aspects: Sequence[tuple[AspectStatistics, np.ndarray]]) -> np.ndarray:
    """Measure how unlike the training radiographs pictures are, by the aspect in which they are the most unlike.

    Args:
        aspects: the statistics of each aspect and its rows (n, c) of the same pictures.

    Returns:
        float32 (n,), the distance as a multiple of the limit; about 1 % of radiographs like the validation split's
        are above 1.
    """
    return np.max([distances(statistics, rows) / np.float32(statistics.limit) for statistics, rows in aspects], axis=0)
