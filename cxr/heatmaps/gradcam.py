"""Grad-CAM behind global average pooling and one dense layer. Owns the formula; pictures of it are in overlay."""

import numpy as np


def heatmaps(features: np.ndarray, head_kernel: np.ndarray) -> np.ndarray:
    """Weight each feature map by its mean gradient (Grad-CAM, Selvaraju et al. 2017, eq. 1-2), for every finding.

    Behind global average pooling and one dense layer, the gradient of logit k with respect to the feature maps A is
    the constant W[:, k] / (h * w), so the method's weighted sum is one matrix product. The logit itself is the sum of
    A @ W[:, k] / (h * w) over all cells, plus the bias: a cell of the map says how much it adds to the logit.

    Args:
        features: float (n, h, w, channels), the last activation of the backbone.
        head_kernel: float (channels, findings), the weights of the dense layer.

    Returns:
        float32 (n, findings, h, w) >= 0; a map with no positive evidence is all zero. The peak of each map is its
        maximum; nothing is stretched.

    Raises:
        ValueError: the shapes do not fit a head of pooling and one dense layer.
    """
    if features.ndim != 4 or head_kernel.ndim != 2 or features.shape[3] != head_kernel.shape[0]:
        raise ValueError(
            "Heatmaps need features (n, h, w, channels) and a head kernel (channels, findings). "
            f"Received: features {features.shape}, head kernel {head_kernel.shape}."
        )
    height, width = features.shape[1:3]
    evidence = features.astype(np.float32) @ head_kernel.astype(np.float32)  # (n, h, w, findings)
    return np.maximum(evidence, 0).transpose(0, 3, 1, 2) / np.float32(height * width)
