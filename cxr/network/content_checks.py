"""Whether the fields of a ModelInfo and the layers of a model file are such as their readers count on.

A file's digest says that nothing changed since it was written, not who wrote it: fields and layers are another's.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cxr.data.columns import name_key
from cxr.network.input_check import AspectStatistics, Source
from cxr.network.model_info import ModelFileError, ModelInfo

MAX_FINDINGS = 10_000
MAX_NAME_LENGTH = 200  # characters, of a finding
MAX_TEXT_LENGTH = 10_000  # characters, of any other text
MAX_VALUES = 1_000_000  # numbers and texts in one field; 10,000 findings have 10 numbers for each of some test sets
MAX_DEPTH = 6  # of mappings and lists in each other
MAX_SIDE = 100_000  # of a feature map
NUM_ASPECTS = 3  # of the input check: features, layout, posture
MAX_LAYERS = 2_000  # DenseNet121 has 430
MAX_STEP = 16  # of kernels, strides, pools and paddings; DenseNet121 has at most 7
MAX_CHANNELS = 4_096  # of what a layer says that it was built for
STEP_KEYS = ("kernel_size", "strides", "padding", "pool_size", "dilation_rate", "groups", "size")

# The layers that the network is made of. A file that asks for anything else was not made by this project.
LAYER_CLASSES = {
    "Activation",
    "AveragePooling2D",
    "BatchNormalization",
    "Concatenate",
    "Conv2D",
    "Dense",
    "GlobalAveragePooling2D",
    "InputLayer",
    "MaxPooling2D",
    "Normalization",
    "Rescaling",
    "ZeroPadding2D",
}


def check_info(info: ModelInfo) -> None:
    """Look at every field.

    Raises:
        ModelFileError: naming the first field that is wrong, and what was expected.
    """
    num_findings = len(info.findings)
    _need(1 <= num_findings <= MAX_FINDINGS, "findings", f"1 to {MAX_FINDINGS:,} names", num_findings)
    names = f"names of 1 to {MAX_NAME_LENGTH} printable characters"
    _need(all(_is_name(one) for one in info.findings), "findings", names)
    _need(len(set(map(name_key, info.findings))) == num_findings, "findings", "names that differ")
    for name, (fits, expected) in _rules(num_findings).items():
        value = getattr(info, name)
        _need(fits(value), name, expected, value)
    for name in ("accuracy", "mean_auroc"):
        partner = {"accuracy": "baseline_accuracy", "mean_auroc": "num_defined"}[name]
        if _is_number(info.test_metrics.get(name)):
            both = _is_number(info.test_metrics.get(partner, 0.0))
            _need(both, "test_metrics", f"a number for {partner}", info.test_metrics.get(partner))
    _check_arrays(info)


def _rules(num_findings: int) -> dict[str, tuple[Callable[[Any], bool], str]]:
    """Return field -> (what holds for its value, that in words)."""
    text = _is_text, f"a text of at most {MAX_TEXT_LENGTH:,} characters"
    flag = (lambda value: isinstance(value, bool)), "true or false"
    texts = ("threshold_rule", "data", "weights_origin", "licence", "data_fingerprint", "disclaimer", "keras_version")
    each_or_none = f"no entry, or one for each of the {num_findings} findings"
    return {
        **dict.fromkeys((*texts, "created", "digest"), text),
        **dict.fromkeys(("leakage", "patients_known"), flag),
        "image_size": (lambda value: _is_count(value) and value > 0, "a whole number of pixels"),
        "threshold": (_is_share, "a number of 0 to 1"),
        "thresholds": (
            lambda values: len(values) in (0, num_findings) and all(one is None or _is_share(one) for one in values),
            f"{each_or_none}, of 0 to 1 or null",
        ),
        "calibration": (lambda value: _is_calibration(value, num_findings), f"{each_or_none}, of slopes and biases"),
        "feature_shape": (
            lambda shape: len(shape) in (0, 3) and all(_is_count(side) and 0 < side <= MAX_SIDE for side in shape),
            "height, width and channels",
        ),
        "published": (lambda value: _is_mapping_of(value, _is_text), "texts by their names"),
        "split_sizes": (
            lambda value: _is_mapping_of(
                value, lambda one: _is_mapping_of(one, _is_count) and {"images", "patients"} <= one.keys()
            ),
            "images and patients of each split",
        ),
        "settings": (_is_plain, "settings by their names"),
        "test_metrics": (_is_metrics, "numbers by their names"),
        "test_sets": (lambda value: _is_mapping_of(value, _is_metrics), "numbers by their names for each test set"),
    }


def _need(fits: bool, name: str, expected: str, received: object = None) -> None:
    if not fits:
        found = "" if received is None and name == "findings" else f", received {received!a:.60}"
        raise ModelFileError(f"field {name} of ModelInfo: expected {expected}{found}. Do not use this file.")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT_LENGTH


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and len(value) <= MAX_NAME_LENGTH and value.isprintable()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_share(value: object) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_mapping_of(value: object, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) and holds(one) for key, one in value.items())


def _is_calibration(value: object, num_findings: int) -> bool:
    if not isinstance(value, dict) or not value:
        return value == {}
    lists = [value.get(name) for name in ("slopes", "biases")]
    return all(
        isinstance(one, list) and len(one) == num_findings and all(x is None or _is_number(x) for x in one)
        for one in lists
    )


def _is_plain(value: object) -> bool:
    """Tell whether a mapping holds nothing but texts, numbers, lists and mappings, of a bounded depth and number."""
    return isinstance(value, dict) and _depth_and_count(value) is not None


def _depth_and_count(value: object) -> tuple[int, int] | None:
    """Return how deep and how many the values are, None where that or one of them is out of bounds."""
    inner: Iterable[object] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    depth, count = 0, 1
    for one in inner:
        found = _depth_and_count(one)
        if found is None:
            return None
        depth, count = max(depth, found[0] + 1), count + found[1]
    fits = value is None or isinstance(value, dict | list | bool) or _is_number(value) or _is_text(value)
    return (depth, count) if fits and depth <= MAX_DEPTH and count <= MAX_VALUES else None


def _is_metrics(value: object) -> bool:
    """Tell whether metrics are a mapping of numbers, pairs, texts and further mappings; what is undefined is None."""

    def is_metric(name: str, one: object) -> bool:
        if isinstance(one, dict):
            return all(is_metric("", inner) for inner in one.values())
        if isinstance(one, list):
            return len(one) == 2 and all(x is None or _is_number(x) for x in one)
        if name.startswith(("auroc", "mean_auroc_interval")):
            return one is None
        return one is None or _is_number(one) or _is_text(one)

    return _is_plain(value) and all(is_metric(name, one) for name, one in value.items())


def _check_arrays(info: ModelInfo) -> None:
    """Compare the arrays' shapes with each other and with the fields; all of them are finite."""
    self_check = info.self_check
    if self_check is not None:
        side = info.image_size
        fits = _is_array(self_check.model_input, np.uint8, (side, side, 1))
        _need(fits, "self_check", f"a model input uint8 ({side}, {side}, 1)", np.shape(self_check.model_input))
        fits = _is_array(self_check.probabilities, np.float32, (len(info.findings),))
        _need(fits, "self_check", "a float32 probability for each finding", np.shape(self_check.probabilities))
    names = info.trained_names
    fits = names is None or (isinstance(names, np.ndarray) and names.dtype == np.uint64 and names.ndim == 1)
    _need(fits, "trained_names", "a list of 64-bit digests", np.shape(names))
    for source in info.sources:
        _need(_is_source(source), "sources", "texts, counts and statistics that fit each other", source.name)


def _is_source(source: Source) -> bool:
    numbers = (*source.centres, *source.spreads, source.limit)
    aspects = [one for one in (source.features, source.layout) if one is not None]
    return (
        _is_text(source.name)
        and _is_text(source.description)
        and _is_count(source.num_images)
        and _is_count(source.num_patients)
        and all(map(_is_number, numbers))
        and len(source.centres) == len(source.spreads) <= NUM_ASPECTS
        and all(spread > 0 for spread in source.spreads)
        and all(map(_are_statistics, aspects))
    )


def _are_statistics(statistics: AspectStatistics) -> bool:
    shapes = {one.name: np.shape(getattr(statistics, one.name)) for one in dataclasses.fields(statistics)}
    channels, num_components = (*shapes["mean"], *shapes["variances"], 0, 0)[:2]
    expected: Mapping[str, tuple[int, ...]] = {
        "mean": (channels,),
        "components": (channels, num_components),
        "variances": (num_components,),
        "residual_variance": (),
    }
    return shapes == expected and all(
        np.asarray(getattr(statistics, name)).dtype.kind == "f" and np.isfinite(getattr(statistics, name)).all()
        for name in shapes
    )


def _is_array(value: object, dtype: type, shape: tuple[int, ...]) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == dtype and value.shape == shape


def check_layers(file: h5py.File, path: Path, classes: Collection[str] = LAYER_CLASSES) -> None:
    """Refuse layers that the network does not have, and widths that no stored weight backs.

    Keras allocates what the configuration asks for before it reads a weight.

    Args:
        classes: Keras' names of the layers that the network is made of.
    """
    layers = json.loads(file.attrs["model_config"])["config"]["layers"]
    if len(layers) > MAX_LAYERS:
        raise ModelFileError(f"{path}: {len(layers):,} layers; expected at most {MAX_LAYERS:,}. Do not use this file.")
    unknown = sorted({layer["class_name"] for layer in layers}.difference(classes))
    if unknown:
        raise ModelFileError(f"{path}: expected only the layers of this project's network, found {', '.join(unknown)}.")
    weights = file["model_weights"]
    for layer in layers:
        _check_geometry(layer, path)
        width = layer["config"].get("units", layer["config"].get("filters"))
        if width is not None:
            name = layer["config"]["name"]
            kernel = weights[name][weights[name].attrs["weight_names"][0]]
            if kernel.shape[-1] != width:
                raise ModelFileError(f"{path}: layer {name} asks for width {width}, its kernel is {kernel.shape}.")


def _check_geometry(layer: dict, path: Path) -> None:
    """Refuse kernels, strides, paddings and shapes that no network of this project has."""
    steps = [number for key in STEP_KEYS for number in _whole_numbers(layer["config"].get(key))]
    shapes = [*_whole_numbers(layer["config"].get("batch_shape")), *_whole_numbers(layer.get("build_config"))]
    for numbers, limit in ((steps, MAX_STEP), (shapes, MAX_CHANNELS)):
        if numbers and not -1 <= min(numbers) <= max(numbers) <= limit:
            name = ascii(layer["config"].get("name"))
            raise ModelFileError(f"{path}: layer {name} has {max(numbers, key=abs)}; expected at most {limit}.")


def _whole_numbers(value: object) -> list[int]:
    """Collect the whole numbers of a part of a layer's configuration."""
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return [number for one in parts for number in _whole_numbers(one)]
    return [value] if isinstance(value, int) and not isinstance(value, bool) else []
