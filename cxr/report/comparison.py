"""Two models on the same radiographs: what one ranks better than the other, as numbers, lines and rows of a table."""

import dataclasses
import math
from dataclasses import dataclass

from cxr.metrics.per_finding import Predictions
from cxr.metrics.ranking import Estimate, RankingDifferences, auroc, estimate_differences
from cxr.report.summary import number


@dataclass(frozen=True)
class Comparison:
    """The AUROC of two models and their difference, the first less the second.

    Attributes:
        model, other: the files' names.
        auroc, other_auroc: per finding; NaN where undefined.
    """

    model: str
    other: str
    findings: tuple[str, ...]
    auroc: tuple[float, ...]
    other_auroc: tuple[float, ...]
    difference: RankingDifferences


def compare(predictions: Predictions, other: Predictions, model: str, other_model: str, seed: int = 0) -> Comparison:
    """Compare what two models said about the same rows.

    Args:
        seed: of the paired patient bootstrap.
    """
    columns = range(len(predictions.findings))
    return Comparison(
        model,
        other_model,
        predictions.findings,
        *(tuple(auroc(one.labels[:, k], one.logits[:, k]) for k in columns) for one in (predictions, other)),
        estimate_differences(predictions.labels, predictions.logits, other.logits, predictions.patients, seed=seed),
    )


def comparison_rows(comparison: Comparison) -> list[tuple[str, str, str, str]]:
    """Return finding, both AUROC and their difference as text, the mean last."""
    rows = [
        (finding, number(a, 3), number(b, 3), signed(difference))
        for finding, a, b, difference in zip(
            comparison.findings, comparison.auroc, comparison.other_auroc, comparison.difference.auroc, strict=True
        )
    ]
    count = f"mean over {comparison.difference.num_defined} of {len(comparison.findings)}"
    return [*rows, (count, "", "", signed(comparison.difference.mean_auroc))]


def comparison_table(comparison: Comparison) -> str:
    """Return the comparison for a terminal."""
    rows = comparison_rows(comparison)
    width = max(len(row[0]) for row in rows)
    lines = [
        f"AUROC of {comparison.model} (A) less that of {comparison.other} (B), 95 % interval over resampled patients:",
        f"{'Finding':{width}}  {'A':>5}  {'B':>5}  A - B",
    ]
    lines += [f"{finding:{width}}  {a:>5}  {b:>5}  {difference}" for finding, a, b, difference in rows]
    return "\n".join([*lines, verdict(comparison)])


def verdict(comparison: Comparison) -> str:
    """Say in a sentence what the interval of the mean difference allows to say."""
    mean = comparison.difference.mean_auroc
    if not mean.low <= mean.high:  # NaN
        return "Too few patients to tell the two apart."
    if mean.low > 0 or mean.high < 0:
        better, worse = (comparison.model, comparison.other)[:: 1 if mean.low > 0 else -1]
        return f"{better} ranks better than {worse} on these radiographs: the interval of the mean excludes 0."
    return "These radiographs do not tell the two apart: the interval of the mean includes 0."


def signed(estimate: Estimate) -> str:
    """Format a difference as "+0.021 [+0.004, +0.037]"."""
    value, low, high = (f"{one:+.3f}" if math.isfinite(one) else "n/a" for one in dataclasses.astuple(estimate))
    return value if "n/a" in (value, low) else f"{value} [{low}, {high}]"
