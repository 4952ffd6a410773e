"""How unlike the training radiographs a radiograph is, from the network's pooled features.

Owns the fit of the feature statistics and the distance; storing them is modelfile's work. NumPy only.
"""

from dataclasses import dataclass

import numpy as np

MAX_COMPONENTS = 32  # directions of the training features that are kept; 1024 x 32 float32 is 128 KB in the model file
REFERENCE_QUANTILES = np.linspace(0.0, 1.0, 101)  # the distances are stored as percentiles 0, 1, ..., 100


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """A low-rank Gaussian of the pooled features (probabilistic PCA) and the distances that are usual under it.

    Attributes:
        mean: float32 (c,), mean pooled feature of the training split.
        components: float32 (c, k), orthonormal columns, the directions of largest variance.
        variances: float32 (k,), variance along each column of `components`.
        residual_variance: mean variance along each of the other c - k directions.
        reference_distances: float32 (101,), percentiles 0 to 100 of `feature_distances` over radiographs that were
            not used for the fit (the validation split).
    """

    mean: np.ndarray
    components: np.ndarray
    variances: np.ndarray
    residual_variance: float
    reference_distances: np.ndarray


def fit_feature_statistics(train_features: np.ndarray, reference_features: np.ndarray) -> FeatureStatistics:
    """Fit probabilistic PCA to the pooled training features (Tipping and Bishop 1999, eq. 8).

    A full covariance of 1024 features needs more radiographs than a small training set has; the low-rank form stays
    invertible for any number of them.

    Args:
        train_features: float (n, c), pooled features of the training split, not augmented.
        reference_features: float (m, c), pooled features of the validation split.
    Raises:
        ValueError: fewer than two training radiographs, or no reference radiograph.
    """
    train_features = np.asarray(train_features, np.float64)
    num_images, num_features = train_features.shape
    if num_images < 2 or len(reference_features) < 1:
        raise ValueError(
            f"Feature statistics need at least 2 training and 1 validation radiographs, received {num_images} and "
            f"{len(reference_features)}. Add rows to the CSV files."
        )
    mean = train_features.mean(axis=0)
    # The squared singular values over n are the eigenvalues of the covariance (c, c), which is never formed.
    _, singular_values, directions = np.linalg.svd(train_features - mean, full_matrices=False)
    eigenvalues = singular_values**2 / num_images
    rank = min(MAX_COMPONENTS, max(1, num_images // 4), num_features - 1)
    floor = max(float(eigenvalues.max()) * 1e-6, 1e-12)  # keeps the distance finite where features are constant
    statistics = FeatureStatistics(
        mean=mean.astype(np.float32),
        components=directions[:rank].T.astype(np.float32),
        variances=np.maximum(eigenvalues[:rank], floor).astype(np.float32),
        residual_variance=max(float(eigenvalues[rank:].sum()) / (num_features - rank), floor),
        reference_distances=np.zeros(len(REFERENCE_QUANTILES), np.float32),
    )
    reference = np.quantile(feature_distances(statistics, reference_features), REFERENCE_QUANTILES)
    return FeatureStatistics(
        statistics.mean,
        statistics.components,
        statistics.variances,
        statistics.residual_variance,
        reference.astype(np.float32),
    )


def feature_distances(statistics: FeatureStatistics, features: np.ndarray) -> np.ndarray:
    """Measure how far pooled features lie from the training features (Mahalanobis distance, low-rank covariance).

    Returns: float32 (n,), the distance divided by sqrt(c): about 1 for a radiograph like the training ones.
    """
    centred = np.asarray(features, np.float64) - statistics.mean  # (n, c)
    coordinates = centred @ statistics.components.astype(np.float64)  # (n, k)
    squared_residual = np.maximum((centred**2).sum(axis=1) - (coordinates**2).sum(axis=1), 0.0)
    squared = (coordinates**2 / statistics.variances).sum(axis=1) + squared_residual / statistics.residual_variance
    return np.sqrt(squared / centred.shape[1]).astype(np.float32)


def novelty_percentiles(statistics: FeatureStatistics, features: np.ndarray) -> np.ndarray:
    """Place the distances among those of the validation radiographs.

    Returns: float32 (n,), 0-100: the percentage of validation radiographs that lie nearer; 100 means that it is
    farther from the training radiographs than every validation radiograph.
    """
    distances = feature_distances(statistics, features)
    return np.interp(distances, statistics.reference_distances, 100.0 * REFERENCE_QUANTILES).astype(np.float32)
