"""What goes into JSON: every kind of value by hand, and what has no form there."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cxr.system.json_values import json_values


@dataclass(frozen=True)
class Rate:
    JSON_PROPERTIES = ("half",)
    value: float

    @property
    def half(self) -> float:
        return self.value / 2

    @property
    def not_named(self) -> float:
        raise AssertionError("only what JSON_PROPERTIES names is written")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (7, 7),
        ("Ödem", "Ödem"),
        (0.25, 0.25),
        (float("nan"), None),
        (float("-inf"), None),
        (np.float32(0.5), 0.5),
        (np.float64("nan"), None),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([[1.0, np.nan], [2.0, np.inf]]), [[1.0, None], [2.0, None]]),
        (np.array(2.5), 2.5),
        ((1, [2.0, ("x",)]), [1, [2.0, ["x"]]]),
        ({1: np.nan, "a": {"b": (np.int8(4),)}}, {"1": None, "a": {"b": [4]}}),
        (Rate(3.0), {"value": 3.0, "half": 1.5}),
        ([Rate(float("nan"))], [{"value": None, "half": None}]),
    ],
)
def test_values_become_those_of_json(value, expected):
    found = json_values(value)
    assert found == expected and type(found) is type(expected)
    assert json.loads(json.dumps(found, allow_nan=False)) == expected


@pytest.mark.parametrize("value", [b"x", Path("x"), {1, 2}, object(), Rate, [1, {"a": b""}]])
def test_what_json_has_no_form_for_is_refused(value):
    with pytest.raises(TypeError, match="Expected a value that JSON can hold, received"):
        json_values(value)
