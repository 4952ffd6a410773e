"""Random labels and logits."""

import numpy as np

from cxr.metrics.per_finding import (
    Predictions,
)


def random_split(seed, num_rows=120, num_findings=4, prevalence=0.25, blanks=0.1, ties=True):
    rng = np.random.default_rng(seed)
    labels = (rng.random((num_rows, num_findings)) < prevalence).astype(np.float32)
    logits = rng.normal(-1.0, 1.0, labels.shape) + 1.2 * labels
    if ties:
        logits = np.round(logits * 2) / 2
    labels[rng.random(labels.shape) < blanks] = np.nan
    return labels, logits.astype(np.float32)


def make_predictions(labels, logits, patients=None):
    images = tuple(f"{row:03d}.png" for row in range(len(labels)))
    findings = tuple(f"Finding {column}" for column in range(labels.shape[1]))
    return Predictions(images, tuple(patients) if patients is not None else images, findings, labels, logits)
