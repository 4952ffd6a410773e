"""An evaluation in words and figures: the table for the terminal, lines per image, and how numbers are written."""

import math
from collections.abc import Sequence

import numpy as np

from cxr.metrics.localisation import Localisation
from cxr.metrics.number_text import threshold
from cxr.metrics.per_finding import Confusion, Evaluation
from cxr.metrics.ranking import Estimate

MAX_ROWS = 20  # findings in a table or figure that is to be read at a glance; of more, the most frequent
MAX_NAME = 23  # characters of a finding's name in the terminal
MAX_NAMED = 5  # findings named of one image


def most_frequent(supports: Sequence[int], count: int = MAX_ROWS) -> list[int]:
    """Return the places of the `count` largest numbers, in their order."""
    return sorted(sorted(range(len(supports)), key=lambda place: (-supports[place], place))[:count])


def terminal_table(evaluation: Evaluation) -> str:
    """Return the evaluation as text of at most 110 columns; of very many findings the most frequent."""
    rows = [evaluation.findings[place] for place in most_frequent([row.support for row in evaluation.findings])]
    names = [row.finding if len(row.finding) <= MAX_NAME else f"{row.finding[: MAX_NAME - 1]}…" for row in rows]
    width = max(map(len, ["Finding", *names]))
    head = f"{'Finding':{width}}    n+  AUROC [95 %]        AP    | at 0.5: sens  spec    F1 | chosen: sens  spec    F1"
    lines = [head, "-" * len(head)]
    for name, row in zip(names, rows, strict=True):
        default, chosen = row.at_default, row.at_chosen
        ranking = f"{row.support:5d}  {interval(row.auroc):19} {number(row.average_precision.value):5}"
        decisions = f"     {_rates(default)} | >={threshold(chosen.threshold):4} {_rates(chosen)}"
        lines.append(f"{name:{width}} {ranking} | {decisions}")
    if num_more := len(evaluation.findings) - len(rows):
        lines.append(f"The {len(rows)} most frequent; {num_more} more findings are in the report and in metrics.json.")
    lines.append("-" * len(head))
    lines.append(ranking_line(evaluation))
    lines.append(
        f"accuracy   {number(evaluation.accuracy, 3)} at 0.5, {number(evaluation.accuracy_chosen, 3)} at the chosen "
        f"thresholds; always answering no: {number(evaluation.baseline_accuracy, 3)}"
    )
    calibrated = f", {number(evaluation.calibrated.loss, 3)} calibrated" if evaluation.calibrated else ""
    lines.append(
        f"loss       {number(evaluation.stated.loss, 3)}{calibrated}; always stating the prevalence: "
        f"{number(evaluation.baseline_loss, 3)}"
    )
    return "\n".join(lines)


def ranking_line(evaluation: Evaluation) -> str:
    """Return the mean AUROC of a test set with its interval, and over what it is, as one line."""
    count = f"over {evaluation.num_defined} of {len(evaluation.findings)} findings"
    size = f"{evaluation.num_images} images, {evaluation.num_patients} patients"
    return f"mean AUROC {interval(evaluation.mean_auroc)} {count}; {size}"


def localisation_table(localisation: Localisation | None) -> str:
    """Return how well heatmaps and their boxes fit the boxes drawn, as lines of text; empty where none were drawn."""
    if localisation is None or localisation.boxes is None or not localisation.overall.num_cases:
        return ""
    overall, boxes = localisation.overall, localisation.boxes.overall
    pointing = f"{number(overall.pointing)}, random {number(overall.random_pointing)}"
    lines = [f"localisation against boxes: {overall.num_cases} cases; peak of the heatmap in a box {pointing}"]
    lines.append(f"{'boxes of heatmaps':19}mean [95 %]        random | share of cases that reach")
    lines.append(f"{'':47}{'  '.join(f'{one:4}' for one in localisation.boxes.thresholds)}")
    for name, value, random, hits, random_hits in (
        ("IoU", boxes.iou, boxes.random_iou, boxes.iou_hits, boxes.random_iou_hits),
        ("IoBB", boxes.iobb, boxes.random_iobb, boxes.iobb_hits, boxes.random_iobb_hits),
    ):
        lines.append(
            f"  {name:16} {interval(value):18} {number(random):6} | {'  '.join(number(one.value) for one in hits)}"
        )
        lines.append(f"  {'':42} | {'  '.join(number(one) for one in random_hits)}  random")
    return "\n".join(lines)


def describe_predictions(
    images: Sequence[str],
    probabilities: np.ndarray,
    findings: Sequence[str],
    thresholds: float | Sequence[float] = 0.5,
) -> list[str]:
    """Return a line per image with the findings at or above the threshold, most probable first.

    Args:
        probabilities: (n, findings).
        thresholds: one for all findings or one each.
    """
    width = max((len(image) for image in images), default=0)
    lines = []
    for image, row in zip(images, np.asarray(probabilities), strict=True):
        order = np.argsort(-row, kind="stable")
        predicted = [findings[k] for k in order if row[k] >= np.broadcast_to(thresholds, row.shape)[k]]
        more = f" and {len(predicted) - MAX_NAMED} more" if len(predicted) > MAX_NAMED else ""
        lines.append(f"{image:{width}}  {predicted[:MAX_NAMED]}{more}")
    return lines


def number(value: float | None, digits: int = 2) -> str:
    """Format a number; "n/a" where it is undefined."""
    return "n/a" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def interval(estimate: Estimate, digits: int = 2) -> str:
    """Format an estimate as "0.85 [0.77, 0.92]"; without brackets where there is no interval."""
    if not math.isfinite(estimate.low):
        return number(estimate.value, digits)
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def _rates(confusion: Confusion) -> str:
    return "  ".join(f"{number(rate):>4}" for rate in (confusion.sensitivity, confusion.specificity, confusion.f1))
