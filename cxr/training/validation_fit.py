"""From a trained network to a complete ModelInfo: thresholds, calibration, the input check, the self-check picture.

Everything is fitted on the validation split; the test split is not touched here.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from cxr.data.cache import CachedSplit
from cxr.data.labels import Split, top_folder
from cxr.metrics.calibration import fit_calibration, sigmoid
from cxr.metrics.per_finding import THRESHOLD_RULE, choose_thresholds
from cxr.network import densenet
from cxr.network.input_check import Source, fit_source, layout_features
from cxr.network.model_info import ModelInfo, SelfCheckPicture, draw_self_check_picture, hash_image_names
from cxr.training.loop import layer_output, predict_split

MAX_STATISTICS_IMAGES = 2000  # training radiographs of a source behind the input check: two per feature
MIN_REFERENCE = 30  # validation radiographs of a source that its limit needs; with fewer some are taken from training
HELD_OUT_SHARE = 0.2  # of the training radiographs of a source, then
BATCH_SIZE = 32


def describe_model(
    network: keras.Model, cached: dict[str, CachedSplit], descriptions: Mapping[str, str] | None = None, **known: Any
) -> ModelInfo:
    """Fit on the validation split all that a reader of the model file needs.

    Args:
        network: trained, from `build_network`.
        cached: the splits by name; "test" is only counted.
        descriptions: what the radiographs of each source are, in words; a source is a folder that the names of its
            training images begin with. The others are of one source without a name.
        known: other fields of ModelInfo, such as the weights' origin.
    """
    val, pooled_of = cached["val"], layer_output(network, "pooled")
    pooled = predict_split(pooled_of, val, BATCH_SIZE)
    logits = _logits(network, pooled)
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
        self_check=_self_check(network, pooled_of, val.split.findings, val.image_size),
        trained_names=hash_image_names([image for name in ("train", "val") for image in cached[name].split.images]),
        sources=_fit_sources(
            pooled_of, cached["train"], (val, pooled), {"": known.get("data", ""), **(descriptions or {})}
        ),
        **known,
    )


def refit_model(network: keras.Model, info: ModelInfo, val: CachedSplit, train: CachedSplit | None) -> ModelInfo:
    """Fit thresholds, calibration and input check again, on other radiographs; the network stays as it is.

    Args:
        network: the one that `info` describes, with all its findings.
        val: its findings may be some of the model's; the others keep what they had.
        train: radiographs for the input check, which otherwise takes those of `val`, some of them for its limit.
    """
    pooled_of = layer_output(network, "pooled")
    pooled = predict_split(pooled_of, val, BATCH_SIZE)
    logits = _logits(network, pooled)
    columns = [info.findings.index(name) for name in val.split.findings]
    fitted = fit_calibration(val.split.labels, logits[:, columns])
    chosen = choose_thresholds(val.split.labels, sigmoid(logits[:, columns]))
    count = len(info.findings)
    old = info.calibration or {"slopes": (1.0,) * count, "biases": (0.0,) * count}
    thresholds, slopes, biases = (
        [dict(zip(columns, new, strict=True)).get(column, before[column]) for column in range(count)]
        for new, before in (
            (chosen, info.thresholds or (None,) * count),
            (fitted.slopes, old["slopes"]),
            (fitted.biases, old["biases"]),
        )
    )
    if train is None:
        rows = np.random.default_rng(0).permutation(len(val))
        held_out = np.sort(rows[: max(1, int(HELD_OUT_SHARE * len(val)))])
        train, val, pooled = val.select(np.setdiff1d(rows, held_out)), val.select(held_out), pooled[held_out]
    descriptions = {"": "the radiographs that the model was fitted to after training"}
    return dataclasses.replace(
        info,
        thresholds=tuple(thresholds),
        threshold_rule=f"{THRESHOLD_RULE}; fitted to other radiographs after training",
        calibration={"method": "platt", "slopes": slopes, "biases": biases},
        sources=_fit_sources(pooled_of, train, (val, pooled), descriptions),
        settings=info.settings | {"refit": {"images": len(logits), "fingerprint": val.fingerprint[:16]}},
    )


def as_saved(network: keras.Model, findings: tuple[str, ...], image_size: int) -> keras.Model:
    """Return the network as it is saved and evaluated: without mixed precision, of Keras' own layers."""
    if densenet.is_plain(network):
        return network
    plain = densenet.build_network(findings, image_size)
    plain.set_weights(network.get_weights())
    return plain


def _fingerprint(cached: dict[str, CachedSplit]) -> str:
    return hashlib.sha256("".join(one.fingerprint for one in cached.values()).encode()).hexdigest()


def _logits(network: keras.Model, pooled: np.ndarray) -> np.ndarray:
    """Return the logits (n, findings) of pooled features, which one forward pass gives for the input check too."""
    kernel, bias = network.get_layer("logits").get_weights()
    return pooled @ kernel + bias


def _self_check(
    network: keras.Model, pooled_of: keras.Model, findings: tuple[str, ...], image_size: int
) -> SelfCheckPicture:
    """Return a drawn picture with the network's answer; a radiograph would hand a patient on with the model."""
    picture = draw_self_check_picture(image_size)
    labels = np.zeros((1, len(findings)), np.float32)
    drawn = CachedSplit(Split("self-check", ("drawn",), ("",), labels, findings), picture[np.newaxis], "")
    logits = _logits(network, predict_split(pooled_of, drawn, BATCH_SIZE))
    return SelfCheckPicture(picture, sigmoid(logits[0]).astype(np.float32))


def _fit_sources(
    pooled_of: keras.Model,
    train: CachedSplit,
    known_val: tuple[CachedSplit, np.ndarray],
    descriptions: Mapping[str, str],
) -> tuple[Source, ...]:
    """Fit the input check to each source, on training radiographs as they are, not augmented.

    Args:
        pooled_of: from model inputs to pooled features.
        known_val: the validation split with its pooled features (n, channels).
    """
    sources = []
    val, val_pooled = known_val
    for name, description in descriptions.items():
        rows, reference = (_rows_of(name, one.split.images, descriptions) for one in (train, val))
        known = {
            "name": name,
            "description": description,
            "num_images": len(rows),
            "num_patients": len({train.split.patients[row] for row in rows}),
        }
        if not len(rows):
            continue
        chosen = np.random.default_rng(0).permutation(rows)[:MAX_STATISTICS_IMAGES]
        too_few = len(reference) < MIN_REFERENCE and HELD_OUT_SHARE * len(chosen) >= MIN_REFERENCE
        num_held_out = int(HELD_OUT_SHARE * len(chosen)) if too_few else 0
        if min(len(chosen) - num_held_out, num_held_out or len(reference)) < 2:
            sources.append(Source(**known))
            continue
        picked = train.select(chosen)
        pooled, layouts = predict_split(pooled_of, picked, BATCH_SIZE), layout_features(picked.model_inputs)
        held_out, fitted = ((pooled[part], layouts[part]) for part in (slice(num_held_out), slice(num_held_out, None)))
        if not too_few:
            held_out = val_pooled[reference], layout_features(val.select(reference).model_inputs)
        sources.append(fit_source(fitted, held_out, **known))
    return tuple(sources)


def _rows_of(source: str, images: Sequence[str], sources: Mapping[str, str]) -> np.ndarray:
    """Return the positions of a source's images; those of no named source are the nameless one's."""
    folders = [top_folder(image) for image in images]
    return np.flatnonzero([(folder if folder in sources else "") == source for folder in folders])


def library_versions() -> dict[str, str]:
    """Return the versions of what the numbers depend on."""
    names = ("numpy", "scikit-learn", "opencv-python-headless", keras.backend.backend())
    found = {"python": platform.python_version(), "keras": keras.__version__}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
