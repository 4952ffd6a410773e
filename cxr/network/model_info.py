"""What a model file says about its model: ModelInfo, and its form as JSON and arrays.

Owns the record; the file is written and checked in model_file. Knows nothing of Keras.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from cxr.network.input_check import AspectStatistics, Source
from cxr.system.hdf5_guard import ModelFileError
from cxr.system.json_values import json_values

SCHEMA_VERSION = 3
# 1 and 2 know one source of training radiographs and one test set; 1 checks inputs by the pooled features alone.
READABLE_VERSIONS = (1, 2, 3)
TRAINED_NAMES = "trained_names"
ARRAYS = ("self_check", TRAINED_NAMES)  # fields that are stored as data sets
ASPECTS = ("features", "layout")  # of a source; their statistics are arrays
OLD_NAMES = {"features": "feature_statistics", "layout": "layout_statistics"}  # of these arrays, before version 3
SELF_CHECK_GROUP = "golden"  # of the self-check picture's arrays in the file, since schema version 1
OLD_SPREAD = 0.1  # of a log-distance: a distance a tenth below the old limit counts as nothing odd
SELF_CHECK_SEED = 0
DISCLAIMER = "Prototype for education. Not intended for clinical use."


@dataclass(frozen=True, eq=False)
class SelfCheckPicture:
    """One model input and the probabilities that the saved model gives for it: a self-check after loading.

    Attributes:
        model_input: uint8 (size, size, 1).
        probabilities: float32 (findings,).
    """

    model_input: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True, eq=False)
class ModelInfo:
    """What a reader of the model file must know beside the weights.

    Attributes:
        findings: the finding order of labels, logits and probabilities everywhere.
        image_size: side of the model input in pixels.
        threshold: the default rule, predicted = probability >= threshold, for every finding.
        thresholds: threshold per finding, chosen on the validation split; None where it is undefined. Empty before.
        threshold_rule: in words, how `thresholds` were chosen.
        calibration: {"method": "platt", "slopes": [...], "biases": [...]}, from the validation split. Empty before.
        feature_shape: (h, w, channels) of layer `relu`.
        data: what the radiographs are that it was trained and tested on, in words; empty where nobody said.
        weights_origin: where the start weights came from.
        licence: of the weights, where they were published by others.
        published: {"figure": what the source says the model reaches, "source": where}; never measured here.
        data_fingerprint: SHA-256 over the labels and image files that the model was trained with.
        split_sizes: {"train": {"images": n, "patients": m}, "val": ..., "test": ...}.
        test_metrics: summary of the test split. Empty before the evaluation.
        test_sets: summary of each test set by its name, the test split's first. Empty before the evaluation.
        settings: the training settings and the library versions.
        leakage: True where the run was told to accept patients shared between splits.
        patients_known: False where a table named no patients, so that each image counts as one.
        trained_names: uint64 (n,), `hash_image_names` of the training and validation images; None where not known.
        sources: the training radiographs by their origin, with the statistics of the input check.
        self_check: a picture with its probabilities, on which a loaded model is tried.
    """

    findings: tuple[str, ...]
    image_size: int
    threshold: float = 0.5
    thresholds: tuple[float | None, ...] = ()
    threshold_rule: str = ""
    calibration: dict[str, Any] = field(default_factory=dict)
    feature_shape: tuple[int, ...] = ()
    data: str = ""
    weights_origin: str = ""
    licence: str = ""
    published: dict[str, str] = field(default_factory=dict)
    data_fingerprint: str = ""
    split_sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    test_metrics: dict[str, Any] = field(default_factory=dict)
    test_sets: dict[str, dict[str, Any]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    leakage: bool = False
    patients_known: bool = True
    disclaimer: str = DISCLAIMER
    keras_version: str = ""
    created: str = ""
    digest: str = ""
    schema_version: int = SCHEMA_VERSION
    sources: tuple[Source, ...] = ()
    self_check: SelfCheckPicture | None = None
    trained_names: np.ndarray | None = None


def hash_image_names(images: Sequence[str]) -> np.ndarray:
    """Return the first 64 bits of the SHA-256 of each image's file name: to know it again without handing it on."""
    names = [image.rpartition("/")[2] for image in images]
    digests = [hashlib.sha256(name.encode()).digest()[:8] for name in names]
    return np.frombuffer(b"".join(digests), "<u8")


def info_arrays(info: ModelInfo) -> dict[str, np.ndarray]:
    """Collect the arrays that are stored as data sets, under the names they have in the file."""
    records = {SELF_CHECK_GROUP: info.self_check}
    for position, source in enumerate(info.sources):
        records |= {f"sources.{position}.{aspect}": getattr(source, aspect) for aspect in ASPECTS}
    arrays = {} if info.trained_names is None else {TRAINED_NAMES: info.trained_names}
    return arrays | {
        f"{group}.{one.name}": np.asarray(getattr(record, one.name))
        for group, record in records.items()
        if record is not None
        for one in dataclasses.fields(record)
    }


def info_to_json(info: ModelInfo) -> str:
    """Return all of ModelInfo but its arrays as JSON."""
    plain = {one.name: getattr(info, one.name) for one in dataclasses.fields(info) if one.name not in ARRAYS}
    plain["sources"] = [
        {one.name: getattr(source, one.name) for one in dataclasses.fields(source) if one.name not in ASPECTS}
        for source in info.sources
    ]
    return json.dumps(json_values(plain), allow_nan=False, sort_keys=True)


def info_from_json(text: str, arrays: dict[str, np.ndarray]) -> ModelInfo:
    """Rebuild ModelInfo from its JSON form and the arrays of `info_arrays`.

    Raises:
        ModelFileError: another schema version.
        ValueError, TypeError, KeyError: the text is not ModelInfo's JSON.
    """
    plain = json.loads(text)
    if plain.get("schema_version") not in READABLE_VERSIONS:
        raise ModelFileError(
            f"expected ModelInfo of schema version {SCHEMA_VERSION}, found {plain.get('schema_version')!r}. "
            "Use the version of this project that saved the file, or train again."
        )
    for name in ("findings", "thresholds", "feature_shape"):
        plain[name] = tuple(plain[name])
    plain["trained_names"] = arrays.get(TRAINED_NAMES)
    records: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        if name == TRAINED_NAMES:
            continue
        group, one = name.rsplit(".", 1)
        records.setdefault(group, {})[one] = array if array.ndim else array.item()
    self_check = records.pop(SELF_CHECK_GROUP, None)
    if plain["schema_version"] < 3:
        plain["sources"], records = _only_source(plain, records)
    plain["sources"] = tuple(
        _source(one, {aspect: records.get(f"sources.{position}.{aspect}") for aspect in ASPECTS})
        for position, one in enumerate(plain["sources"])
    )
    plain["schema_version"] = SCHEMA_VERSION
    plain["self_check"] = None if self_check is None else SelfCheckPicture(**self_check)
    return ModelInfo(**plain)


def _source(plain: dict[str, Any], records: dict[str, dict[str, Any] | None]) -> Source:
    statistics = {name: AspectStatistics(**record) for name, record in records.items() if record is not None}
    return Source(**plain | {name: tuple(plain[name]) for name in ("centres", "spreads")} | statistics)


def _only_source(
    plain: dict[str, Any], records: dict[str, dict[str, Any]]
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Describe the training radiographs of a file of schema version 1 or 2 as one source, with its records.

    Its test results become those of the one test set.

    Those files hold a limit of the distance for each aspect; score and limit are made such that it stays what it was.
    """
    found = {aspect: dict(records[old]) for aspect, old in OLD_NAMES.items() if old in records}
    limits = []
    for record in found.values():
        # Version 1 holds the percentiles 0 to 100 of the validation distances, the last but one of which was the limit.
        percentiles = record.pop("reference_distances", None)
        limits.append(float(record.pop("limit") if percentiles is None else percentiles[99]))
    if plain["test_metrics"]:
        plain["test_sets"] = {"test": {"description": plain["data"], "views": {}, **plain["test_metrics"]}}
    train = plain["split_sizes"].get("train", {})
    source = {
        "name": "",
        "description": plain["data"],
        "num_images": train.get("images", 0),
        "num_patients": train.get("patients", 0),
        "centres": [math.log(limit) - OLD_SPREAD for limit in limits],
        "spreads": [OLD_SPREAD] * len(limits),
        "limit": 1.0,
    }
    return [source], {f"sources.0.{aspect}": record for aspect, record in found.items()}


def draw_self_check_picture(image_size: int) -> np.ndarray:
    """Draw smooth blotches from a fixed seed: uint8 (size, size, 1), the same for every model of that size."""
    rng = np.random.default_rng(SELF_CHECK_SEED)
    coarse = [rng.uniform(0, 255, (cells, cells)).astype(np.float32) for cells in (3, 8, 24)]
    layers = [cv2.resize(one, (image_size, image_size), interpolation=cv2.INTER_LINEAR) for one in coarse]
    return np.clip(np.rint(np.mean(layers, axis=0)), 0, 255).astype(np.uint8)[..., np.newaxis]
