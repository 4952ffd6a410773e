"""The input check: how unlike the training radiographs a picture is, and which source of them it resembles.

Owns the fit of the statistics, the distances and the limit; storing them is in model_info. Knows nothing of Keras.

Three aspects: what the network sees in the picture (its pooled features), its plain layout (a thumbnail with brightness
and contrast taken out), and whether it lies as radiographs do. Pooling forgets where things are, so that the features
do not notice an upside-down or inverted radiograph; the layout mostly does, but once the training radiographs come from
many devices their layouts differ more than that. The last aspect asks directly: how much more like the training
radiographs is the picture as it is than turned, flipped or inverted?

Training radiographs of several sources (two hospitals; patients and a phantom) are several clouds, and what lies
between them is like none: each source has its own statistics, and a picture counts as like the training radiographs
where it is like those of one source.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

MAX_COMPONENTS = 32  # directions of largest variance that are kept; 1024 x 32 float32 is 128 KB in the model file
LAYOUT_SIDE = 8  # pixels of the thumbnail: lungs, heart, shoulders and abdomen, nothing smaller
LAYOUT_MIN_CONTRAST = 8.0  # grey levels added to a thumbnail's contrast, so that an empty picture's noise stays small
FLAGGED_SHARE = 0.01  # of radiographs like the validation split's
MIN_SPREAD = 0.05  # of a log-distance; a few radiographs that are all alike must not make the check stricter than that


@dataclass(frozen=True, eq=False)
class AspectStatistics:
    """A low-rank Gaussian of one aspect (probabilistic PCA).

    Attributes:
        mean: float32 (c,), mean of the training radiographs.
        components: float32 (c, k), orthonormal columns, the directions of largest variance.
        variances: float32 (k,), variance along each column of `components`.
        residual_variance: mean variance along each of the other c - k directions.
    """

    mean: np.ndarray
    components: np.ndarray
    variances: np.ndarray
    residual_variance: float


@dataclass(frozen=True, eq=False)
class Source:
    """Training radiographs of one origin, and what tells pictures like them.

    Attributes:
        name: the folder that their names begin with, which is also the name of their test set; empty for those of no
            named source.
        description: what they are, in words; may be empty.
        num_images, num_patients: of the training split.
        features, layout: statistics of the two aspects; None where there were too few radiographs to fit them.
        centres, spreads: mean and standard deviation of the log-distance of other radiographs of this source in each
            aspect; empty as above.
        limit: score from which on a picture is unlike this source.
    """

    name: str = ""
    description: str = ""
    num_images: int = 0
    num_patients: int = 0
    features: AspectStatistics | None = None
    layout: AspectStatistics | None = None
    centres: tuple[float, ...] = ()
    spreads: tuple[float, ...] = ()
    limit: float = 1.0


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


def fit_source(
    train: tuple[np.ndarray, np.ndarray], reference: tuple[np.ndarray, np.ndarray], **known: object
) -> Source:
    """Fit statistics and limit of one source.

    Args:
        train: pooled features (n, c) and layouts (n, LAYOUT_SIDE ** 2) of its training radiographs, not augmented.
        reference: the same (m, ...) of radiographs of this source that were not used for the fit (the validation
            split), for the limit.
        known: the other fields of Source.

    Raises:
        ValueError: fewer than two training or two reference radiographs.
    """
    num_images, num_reference = len(train[0]), len(reference[0])
    if num_images < 2 or num_reference < 2:
        raise ValueError(
            f"The input check needs at least 2 training and 2 validation radiographs, received {num_images} and "
            f"{num_reference}. Add rows to the CSV files."
        )
    features, layout = (fit_statistics(rows) for rows in train)
    logs = _log_distances(features, layout, *reference)
    spreads = np.maximum(logs.std(axis=1, ddof=1), MIN_SPREAD)
    centres = tuple(logs.mean(axis=1).tolist())
    plain = Source(**known, features=features, layout=layout, centres=centres, spreads=tuple(spreads.tolist()))
    return dataclasses.replace(plain, limit=upper_limit(_scores(plain, *reference)))


def fit_statistics(train: np.ndarray) -> AspectStatistics:
    """Fit probabilistic PCA (Tipping and Bishop 1999, eq. 8) to rows (n, c), n >= 2.

    A full covariance of 1024 features needs more radiographs than a small training set has; the low-rank form stays
    invertible for any number of them.
    """
    train = np.asarray(train, np.float64)
    num_images, num_features = train.shape
    mean = train.mean(axis=0)
    # The squared singular values over n are the eigenvalues of the covariance (c, c), which is never formed.
    _, singular_values, directions = np.linalg.svd(train - mean, full_matrices=False)
    eigenvalues = singular_values**2 / num_images
    rank = min(MAX_COMPONENTS, max(1, num_images // 4), num_features - 1)
    floor = max(float(eigenvalues.max()) * 1e-6, 1e-12)  # keeps the distance finite where features are constant
    return AspectStatistics(
        mean.astype(np.float32),
        directions[:rank].T.astype(np.float32),
        np.maximum(eigenvalues[:rank], floor).astype(np.float32),
        max(float(eigenvalues[rank:].sum()) / (num_features - rank), floor),
    )


def distances(statistics: AspectStatistics, rows: np.ndarray) -> np.ndarray:
    """Measure how far rows, (n, c), lie from the training split (Mahalanobis distance, low-rank covariance).

    Returns: float32 (n,), the distance divided by sqrt(c): about 1 for a radiograph like the training ones.
    """
    centred = np.asarray(rows, np.float64) - statistics.mean  # (n, c)
    coordinates = centred @ statistics.components  # (n, k)
    squared_residual = np.maximum((centred**2).sum(axis=1) - (coordinates**2).sum(axis=1), 0.0)
    squared = (coordinates**2 / statistics.variances).sum(axis=1) + squared_residual / statistics.residual_variance
    return np.sqrt(squared / centred.shape[1]).astype(np.float32)


def log_likelihoods(statistics: AspectStatistics, rows: np.ndarray) -> np.ndarray:
    """Return the log-density (n,) of rows (n, c) under the Gaussian, up to a constant that c alone decides.

    To be compared between sources, where distances cannot be: everything is near to a wide cloud.
    """
    num_features, rank = statistics.components.shape
    log_determinant = np.log(statistics.variances.astype(np.float64)).sum()
    log_determinant += (num_features - rank) * np.log(statistics.residual_variance)
    return -0.5 * (distances(statistics, rows).astype(np.float64) ** 2 * num_features + log_determinant)


def turned_ratios(statistics: AspectStatistics, layouts: np.ndarray) -> np.ndarray:
    """Compare the distance of layouts with that of the same pictures turned, flipped top to bottom, or inverted.

    Not mirrored left to right: at this size the mirror image of a chest is too much like a chest.

    Args:
        layouts: float (n, LAYOUT_SIDE ** 2), from `layout_features`.

    Returns:
        float32 (n,), the distance as it is over the smallest of the others: below 1 for a radiograph that lies as the
        training radiographs do.
    """
    grids = layouts.reshape(-1, LAYOUT_SIDE, LAYOUT_SIDE)
    turned = [np.rot90(grids, quarters, axes=(1, 2)) for quarters in (1, 2, 3)]
    others = [distances(statistics, one.reshape(layouts.shape)) for one in (*turned, grids[:, ::-1], -grids)]
    return distances(statistics, layouts) / np.maximum(np.min(others, axis=0), np.float32(1e-12))


def upper_limit(reference: np.ndarray, share: float = FLAGGED_SHARE) -> float:
    """Return the score that a share of further radiographs like the reference exceeds.

    A hundred radiographs have no 1 % quantile to rely on, so the limit is that of a normal distribution: the upper
    prediction limit for one more value, which is the wider the fewer values there are (Student's t). Where the
    reference itself has a heavier tail, its own quantile is larger and is taken.

    Args:
        reference: float (m,), m >= 2.
    """
    from scipy.stats import t  # fitting alone needs it, and it takes half a second; serving starts without

    factor = t.ppf(1 - share, len(reference) - 1) * np.sqrt(1 + 1 / len(reference))
    predicted = reference.mean() + factor * reference.std(ddof=1)
    return float(max(predicted, np.quantile(reference, 1 - share), 1e-6))


def check_inputs(
    sources: Sequence[Source], model_inputs: np.ndarray, pooled: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Measure how unlike the training radiographs pictures are: under each source, and then under the nearest one.

    Args:
        model_inputs: uint8 (n, size, size, 1).
        pooled: float (n, channels), their pooled features.

    Returns:
        float32 (n,), the distance as a multiple of the limit, which about 1 % of radiographs like the validation
        split's exceed; and int (n,), the position of the source that each picture resembles. None where no source has
        statistics.
    """
    known = [position for position, source in enumerate(sources) if source.features is not None]
    if not known:
        return None
    layouts = layout_features(model_inputs)
    unlike = [_scores(sources[position], pooled, layouts) / sources[position].limit for position in known]
    likeness = [log_likelihoods(sources[position].features, pooled) for position in known]
    return np.min(unlike, axis=0).astype(np.float32), np.array(known)[np.argmax(likeness, axis=0)]


def _scores(source: Source, pooled: np.ndarray, layouts: np.ndarray) -> np.ndarray:
    """Return the length (n,) of what the aspects have too much, in standard deviations; too little counts as none.

    A picture that is somewhat odd in every aspect is as suspicious as one that is very odd in one.
    """
    logs = _log_distances(source.features, source.layout, pooled, layouts)[: len(source.centres)]
    excess = (logs - np.array(source.centres)[:, np.newaxis]) / np.array(source.spreads)[:, np.newaxis]
    return np.sqrt((np.maximum(excess, 0) ** 2).sum(axis=0))


def _log_distances(
    features: AspectStatistics, layout: AspectStatistics | None, pooled: np.ndarray, layouts: np.ndarray
) -> np.ndarray:
    """Return the logarithms of the distances in each aspect: float64 (3, n), or (1, n) without a layout."""
    found = [distances(features, pooled)]
    if layout is not None:
        found += [distances(layout, layouts), turned_ratios(layout, layouts)]
    return np.log(np.maximum(np.array(found, np.float64), 1e-12))
