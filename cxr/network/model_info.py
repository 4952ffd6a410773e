"""What a model file says about its model: ModelInfo, and its form as JSON and arrays.

Owns the record; writing and checking the file is modelfile's work. Knows nothing of Keras.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cxr.network.input_check import AspectStatistics

SCHEMA_VERSION = 2
READABLE_VERSIONS = (1, 2)  # 1 checks for unlike pictures by the pooled features alone
DISCLAIMER = "Prototype for education. Not intended for clinical use."


class ModelFileError(ValueError):
    """A model or weights file that is missing, damaged, or does not fit."""


@dataclass(frozen=True, eq=False)
class GoldenRadiograph:
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
        data_fingerprint: SHA-256 over the labels and image files that the model was trained with.
        split_sizes: {"train": {"images": n, "patients": m}, "val": ..., "test": ...}.
        test_metrics: summary of the test split. Empty before the evaluation.
        settings: the training settings and the library versions.
        leakage: True where the run was told to accept patients shared between splits.
        feature_statistics, layout_statistics: of the training radiographs, for the check of unlike pictures.
        golden: a radiograph with its probabilities.
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
    data_fingerprint: str = ""
    split_sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    test_metrics: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    leakage: bool = False
    disclaimer: str = DISCLAIMER
    keras_version: str = ""
    created: str = ""
    digest: str = ""
    schema_version: int = SCHEMA_VERSION
    feature_statistics: AspectStatistics | None = None
    layout_statistics: AspectStatistics | None = None
    golden: GoldenRadiograph | None = None


# The fields of ModelInfo that hold arrays; they are stored as data sets, not in the JSON.
RECORDS = {
    "feature_statistics": AspectStatistics,
    "layout_statistics": AspectStatistics,
    "golden": GoldenRadiograph,
}


def info_arrays(info: ModelInfo) -> dict[str, np.ndarray]:
    """Collect the arrays that are stored as data sets, under the names they have in the file."""
    arrays = {}
    for group in RECORDS:
        record = getattr(info, group)
        if record is not None:
            names = [one.name for one in dataclasses.fields(record)]
            arrays |= {f"{group}.{name}": np.asarray(getattr(record, name)) for name in names}
    return arrays


def info_to_json(info: ModelInfo) -> str:
    plain = {one.name: getattr(info, one.name) for one in dataclasses.fields(info) if one.name not in RECORDS}
    return json.dumps(_plain(plain), allow_nan=False, sort_keys=True)


def _plain(value: Any) -> Any:
    """Turn NumPy values and tuples into JSON's, and undefined numbers (NaN, Inf) into null."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


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
    records: dict[str, dict[str, Any]] = {name: {} for name in RECORDS}
    for name, array in arrays.items():
        group, one = name.split(".")
        records[group][one] = array if array.ndim else array.item()
    if plain["schema_version"] == 1 and records["feature_statistics"]:
        # It holds the percentiles 0 to 100 of the validation distances, the last but one of which was the limit.
        records["feature_statistics"]["limit"] = float(records["feature_statistics"].pop("reference_distances")[99])
    plain["schema_version"] = SCHEMA_VERSION
    plain |= {name: RECORDS[name](**values) for name, values in records.items() if values}
    return ModelInfo(**plain)
