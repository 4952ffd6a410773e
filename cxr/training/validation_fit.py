"""From a trained network to a complete ModelInfo: thresholds, calibration, feature statistics, the golden radiograph.

Everything is fitted on the validation split; the test split is not touched here.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import platform
from typing import Any

import keras
import numpy as np

from cxr.data.cache import CachedSplit
from cxr.metrics.calibration import fit_calibration, sigmoid
from cxr.metrics.per_finding import THRESHOLD_RULE, choose_thresholds
from cxr.network.densenet import build_network
from cxr.network.input_check import AspectStatistics, fit_statistics, layout_features
from cxr.network.model_info import GoldenRadiograph, ModelInfo
from cxr.training.loop import layer_output, predict_split

MAX_STATISTICS_IMAGES = 2000  # training radiographs behind the check of unlike pictures: two per feature
BATCH_SIZE = 32


def describe_model(network: keras.Model, cached: dict[str, CachedSplit], **known: Any) -> ModelInfo:
    """Fit on the validation split all that a reader of the model file needs.

    Args:
        network: trained, from `build_network`.
        cached: the splits by name; "test" is only counted.
        known: other fields of ModelInfo, such as the weights' origin.
    """
    val = cached["val"]
    logits = predict_split(layer_output(network, "logits"), val, BATCH_SIZE)
    calibration = fit_calibration(val.split.labels, logits)
    return ModelInfo(
        findings=val.split.findings,
        image_size=val.image_size,
        thresholds=choose_thresholds(val.split.labels, sigmoid(logits)),
        threshold_rule=THRESHOLD_RULE,
        calibration={"method": "platt", **dataclasses.asdict(calibration)},
        feature_shape=tuple(network.get_layer("relu").output.shape[1:]),
        split_sizes={
            name: {"images": len(one), "patients": len(set(one.split.patients))} for name, one in cached.items()
        },
        data_fingerprint=_fingerprint(cached),
        golden=GoldenRadiograph(np.array(val.model_inputs[0]), sigmoid(logits[0]).astype(np.float32)),
        **_aspect_statistics(network, cached["train"], val),
        **known,
    )


def in_float32(network: keras.Model, findings: tuple[str, ...], image_size: int) -> keras.Model:
    """Return the network without mixed precision, which is how it is saved and evaluated."""
    if network.get_layer("relu").compute_dtype == "float32":
        return network
    plain = build_network(findings, image_size)
    plain.set_weights(network.get_weights())
    return plain


def _fingerprint(cached: dict[str, CachedSplit]) -> str:
    return hashlib.sha256("".join(one.fingerprint for one in cached.values()).encode()).hexdigest()


def _aspect_statistics(network: keras.Model, train: CachedSplit, val: CachedSplit) -> dict[str, AspectStatistics]:
    """Fit ModelInfo's statistics on training radiographs as they are, not augmented; none where there are too few."""
    if len(train) < 2 or len(val) < 2:
        return {}
    rows = np.sort(np.random.default_rng(0).permutation(len(train))[:MAX_STATISTICS_IMAGES])
    train, pooled = train.select(rows), layer_output(network, "pooled")
    return {
        "feature_statistics": fit_statistics(
            predict_split(pooled, train, BATCH_SIZE), predict_split(pooled, val, BATCH_SIZE)
        ),
        "layout_statistics": fit_statistics(layout_features(train.model_inputs), layout_features(val.model_inputs)),
    }


def library_versions() -> dict[str, str]:
    """Return the versions of what the numbers depend on."""
    names = ("numpy", "scikit-learn", "opencv-python-headless", keras.backend.backend())
    found = {"python": platform.python_version(), "keras": keras.__version__}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
