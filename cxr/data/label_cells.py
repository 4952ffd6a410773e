"""What a label cell means: 0, 1, not labelled, or a fault with its explanation; and which labels exclude each other."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cxr.data.problems import LabelError, shown

BLANK, ZERO, ONE = float("nan"), 0.0, 1.0
UNCERTAIN_VALUES = {"zero": ZERO, "one": ONE, "blank": BLANK}
BLANK_VALUES = {"unlabelled": BLANK, "zero": ZERO}
# How databases, spreadsheets, pandas and R write truth values.
WORDS = {"true": ONE, "t": ONE, "yes": ONE, "y": ONE, "false": ZERO, "f": ZERO, "no": ZERO, "n": ZERO}
LABEL_PATTERN = re.compile(r"([01])(?:\.0*)?")
UNCERTAIN_PATTERN = re.compile(r"-1(?:\.0*)?")
NONE_KEYS = ("nofinding", "nofindings", "normal")
# CheXpert's labeller sets No Finding where no disease is mentioned; tubes and pacemakers may be there all the same
# (Irvin et al. 2019, section 3).
COMPATIBLE_KEYS = ("supportdevices", *NONE_KEYS)
MISSING_WORDS = ("na", "nan", "n/a", "null", "none")  # how R, pandas and databases write an empty cell


@dataclass(frozen=True)
class CellRules:
    """Say how label cells that are no truth value are read.

    Args:
        blank: what an empty cell means: "unlabelled" (NaN), "zero", or None for a fault.
        uncertain: what -1 means: "zero", "one", "blank" (NaN), or None for a fault.
    """

    blank: str | None = None
    uncertain: str | None = None

    def __post_init__(self) -> None:
        for name, values in (("uncertain", UNCERTAIN_VALUES), ("blank", BLANK_VALUES)):
            choice = getattr(self, name)
            if choice is not None and choice not in values:
                choices = ", ".join(values)
                raise LabelError(f"{name} must be one of {choices}, or None for a fault. Received: {choice!r}")

    @functools.lru_cache(maxsize=1024)  # noqa: B019 - a file's cells repeat; the rules are a few bytes
    def value(self, cell: str) -> float | None:
        """Return 0.0, 1.0 or NaN for a cell, None where it is a fault."""
        text = cell.strip()
        if match := LABEL_PATTERN.fullmatch(text):
            return float(match[1])
        if text.lower() in WORDS:
            return WORDS[text.lower()]
        if self.blank and (not text or text.lower() in MISSING_WORDS):
            return BLANK_VALUES[self.blank]
        if self.uncertain and UNCERTAIN_PATTERN.fullmatch(text):
            return UNCERTAIN_VALUES[self.uncertain]
        return None

    @functools.lru_cache(maxsize=1024)  # noqa: B019 - as above
    def explain(self, cell: str) -> str:
        """Say what is wrong with a cell for which `value` is None."""
        text = cell.strip()
        if not text or text.lower() in MISSING_WORDS:
            found = "a blank cell" if not text else f"{shown(text)}, which stands for a blank cell"
            return (
                f"expected 0 or 1, received {found}. Fill it in, or use --allow blank to leave it unlabelled, or "
                "--allow blank-zero where blank means absent."
            )
        if UNCERTAIN_PATTERN.fullmatch(text):
            return "expected 0 or 1, received -1 (uncertain). Give it a meaning: --allow uncertain-zero (-one, -blank)."
        return f"expected 0 or 1, received {shown(text)}. Correct the cell or remove the row."


def contradictions(keys: Sequence[str], labels: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Find the rows where "No Finding" is 1 beside a finding that is 1.

    Args:
        keys: (findings,) names as they are compared.
        labels: float (n, findings), 0, 1 or NaN.

    Returns: the rows; the columns of the findings beside it.
    """
    none = [column for column, key in enumerate(keys) if key in NONE_KEYS]
    others = [column for column, key in enumerate(keys) if key not in COMPATIBLE_KEYS]
    positive = labels == 1
    rows = np.flatnonzero(positive[:, none].any(axis=1) & positive[:, others].any(axis=1))
    return rows, [column for column in others if positive[rows, column].any()]
