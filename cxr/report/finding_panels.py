"""Draw one small panel per finding: ROC, precision-recall, confusion matrices. Other figures are in cxr.report.figures.

A finding for which a curve is undefined keeps its panel, and the panel says so.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.metrics import precision_recall_curve, roc_curve

from cxr.data.columns import display_name
from cxr.metrics.number_text import threshold
from cxr.metrics.per_finding import Evaluation, FindingEvaluation, Predictions
from cxr.report.figures import (
    BLUE,
    DARK_SHADE,
    GREEN,
    GREY,
    ORANGE,
    clean,
    new_figure,
    prevalence,
    say,
    write_count,
)

PANEL_COLUMNS = 5
MAX_NAME = 24  # characters; what fits over a panel
PANEL_HEIGHT = 2.25  # inches
# A ring and a dot: both stay visible where the two thresholds are the same.
DEFAULT_POINT = {"marker": "o", "markersize": 8, "fillstyle": "none", "markeredgewidth": 1.6, "color": ORANGE}
DEFAULT_POINT |= {"linestyle": "none", "clip_on": False, "zorder": 5}
CHOSEN_POINT = DEFAULT_POINT | {"markersize": 5, "fillstyle": "full", "color": GREEN, "markeredgecolor": "white"}
CHOSEN_POINT |= {"markeredgewidth": 0.6, "zorder": 6}


def draw_roc(predictions: Predictions, evaluation: Evaluation) -> Figure:
    """Draw one ROC curve per finding with its two operating points."""
    figure, panels = _panels(evaluation)
    for axes, row, labels, probabilities in _columns(panels, predictions, evaluation):
        if np.isnan(row.auroc.value):
            say(axes, "one class only")
        else:
            axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
            false_rate, true_rate, _ = roc_curve(labels, probabilities)
            axes.plot(false_rate, true_rate, color=BLUE, linewidth=1.6)
            for confusion, style in ((row.at_default, DEFAULT_POINT), (row.at_chosen, CHOSEN_POINT)):
                axes.plot([1 - confusion.specificity], [confusion.sensitivity], **style)
        _title(axes, row, f"AUROC {row.auroc.value:.2f}" if not np.isnan(row.auroc.value) else "AUROC n/a")
    _label_panels(figure, "1 - specificity", "Sensitivity", "chance")
    return figure


def draw_precision_recall(predictions: Predictions, evaluation: Evaluation) -> Figure:
    """Draw one precision-recall curve per finding with its two operating points."""
    figure, panels = _panels(evaluation)
    for axes, row, labels, probabilities in _columns(panels, predictions, evaluation):
        value = row.average_precision.value
        if np.isnan(value):
            say(axes, "one class only")
        else:
            axes.axhline(prevalence(row), color=GREY, linewidth=0.8, linestyle=":")
            precision, recall, _ = precision_recall_curve(labels, probabilities)
            axes.step(recall, precision, where="post", color=BLUE, linewidth=1.6)
            for confusion, style in ((row.at_default, DEFAULT_POINT), (row.at_chosen, CHOSEN_POINT)):
                axes.plot([confusion.sensitivity], [confusion.precision], **style)
        _title(axes, row, f"AP {value:.2f}" if not np.isnan(value) else "AP n/a")
    _label_panels(figure, "Recall (sensitivity)", "Precision", "prevalence")
    return figure


def draw_confusions(evaluation: Evaluation, chosen: bool) -> Figure:
    """Draw one confusion matrix of counts per finding, shaded by the share of its row.

    Args:
        chosen: at the thresholds chosen on the validation split instead of the default.
    """
    figure, panels = _panels(evaluation, row_height=2.1)
    for axes, row in zip(panels, evaluation.findings, strict=True):
        confusion = row.at_chosen if chosen else row.at_default
        counts = np.array(
            [
                [confusion.true_negatives, confusion.false_positives],
                [confusion.false_negatives, confusion.true_positives],
            ]
        )
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (label, predicted), count in np.ndenumerate(counts):
            write_count(axes, predicted, label, count, dark=shares[label, predicted] > DARK_SHADE)
        axes.axhline(0.5, color="white", linewidth=1.5)
        axes.axvline(0.5, color="white", linewidth=1.5)
        axes.spines[:].set_visible(False)
        axes.set_xticks((0, 1), ("no", "yes"), fontsize=8)
        axes.set_yticks((0, 1), ("no", "yes"), fontsize=8)
        axes.tick_params(length=0)
        axes.set_title(f"{_short(row.finding)}\nthreshold {threshold(confusion.threshold)}", fontsize=8.5)
    figure.supxlabel("Predicted", fontsize=9)
    figure.supylabel("Labelled", fontsize=9)
    return figure


def _panels(evaluation: Evaluation, row_height: float = PANEL_HEIGHT) -> tuple[Figure, list[Axes]]:
    """Return a figure with one panel per finding; places left over stay empty."""
    count = len(evaluation.findings)
    columns = min(PANEL_COLUMNS, count)
    num_rows = math.ceil(count / columns)
    figure = new_figure(row_height * num_rows + 0.5)
    grid = figure.subplots(num_rows, columns, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, list(grid[:count])


def _columns(
    panels: Sequence[Axes], predictions: Predictions, evaluation: Evaluation
) -> Iterator[tuple[Axes, FindingEvaluation, np.ndarray, np.ndarray]]:
    """Yield each panel with its finding's numbers and its known labels and probabilities."""
    probabilities = predictions.probabilities
    for k, (axes, row) in enumerate(zip(panels, evaluation.findings, strict=True)):
        clean(axes)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.05), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        axes.set_xticklabels(["0", ".5", "1"])
        axes.set_yticklabels(["0", ".5", "1"])
        axes.tick_params(labelsize=8)
        known = ~np.isnan(predictions.labels[:, k])
        yield axes, row, predictions.labels[known, k], probabilities[known, k]


def _label_panels(figure: Figure, x_label: str, y_label: str, dotted: str) -> None:
    figure.supxlabel(x_label, fontsize=9)
    figure.supylabel(y_label, fontsize=9)
    points = [Line2D([], [], **style) for style in (DEFAULT_POINT, CHOSEN_POINT)]
    handle = Line2D([], [], color=GREY, linewidth=0.8, linestyle=":")
    labels = ["at threshold 0.5", "at the chosen threshold", dotted]
    figure.legend([*points, handle], labels, loc="outside upper center", ncols=3, frameon=False, fontsize=9)


def _title(axes: Axes, row: FindingEvaluation, value: str) -> None:
    axes.set_title(f"{_short(row.finding)}\n{value}, {row.support} positive", fontsize=8.5)


def _short(finding: str) -> str:
    """Return a finding's name as it is shown, cut to the width of a panel."""
    name = display_name(finding)
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
