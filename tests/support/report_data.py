"""A realistic evaluation and its degenerate cousins."""

import numpy as np

from cxr.metrics.per_finding import Predictions

FINDINGS = ("Effusion", "Pleural_Thickening", "Hernia")


HISTORY = {"loss": [0.6, 0.4], "val_loss": [0.7, float("nan")], "val_mean_auroc": [0.5, 0.75]}


DEGENERATE = {
    "one row": lambda: (np.array([[1.0, 0.0, np.nan]]), np.zeros((1, 3))),
    "all negative": lambda: (np.zeros((6, 3)), np.arange(18.0).reshape(6, 3)),
    "all blank": lambda: (np.full((6, 3), np.nan), np.zeros((6, 3))),
    "constant": lambda: (np.tile([0.0, 1.0, 0.0], (6, 1)), np.zeros((6, 3))),
    "saturated": lambda: (np.tile([[0.0], [1.0]], (3, 3)), np.tile([[-500.0], [500.0]], (3, 3))),
}


def make_predictions(labels, logits):
    images = tuple(f"{row:08d}_000.png" for row in range(len(labels)))
    return Predictions(images, tuple(f"p{row // 2}" for row in range(len(labels))), FINDINGS, labels, logits)


def realistic():
    rng = np.random.default_rng(0)
    labels = (rng.random((40, 3)) < (0.4, 0.3, 0.0)).astype(np.float32)  # Hernia: one class only
    labels[0, 0] = np.nan
    logits = rng.normal(-1, 1, labels.shape) + np.nan_to_num(labels)
    return make_predictions(labels, logits)
