"""Records, arrays and numbers as what JSON holds; what is undefined (NaN, infinity) becomes null."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def json_values(value: Any) -> Any:
    """Turn a value into JSON's own: dict, list, str, int, float, bool and None, with no number that is not finite.

    A dataclass becomes a dict of its fields and of the properties that its class names in `JSON_PROPERTIES`.

    Raises:
        TypeError: a value that JSON has no form for, such as bytes or a path; its owner must say how it is written.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [one.name for one in dataclasses.fields(value)] + list(getattr(value, "JSON_PROPERTIES", ()))
        return {name: json_values(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): json_values(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(one) for one in value]
    if isinstance(value, np.ndarray | np.generic):
        return json_values(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"Expected a value that JSON can hold, received {type(value).__name__}. Convert it before.")
