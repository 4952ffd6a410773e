"""Draw the report's figures from arrays and records: Seaborn and Matplotlib, colour-blind-safe, no shared state.

Every function returns a matplotlib Figure of its own on the Agg canvas and never touches pyplot's shared state. The
figures with one panel per finding are in cxr.report.finding_panels.
"""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from cxr.data.columns import display_name
from cxr.metrics.calibration import Calibration, calibrate_logits, reliability_bins, sigmoid
from cxr.metrics.per_finding import Evaluation, FindingEvaluation, Predictions

matplotlib.rcParams["text.parse_math"] = False  # names are the user's: a "$" in one is no mathematics
PALETTE = seaborn.color_palette("colorblind")
BLUE, ORANGE, GREEN = PALETTE[0], PALETTE[1], PALETTE[2]
GREY = "#5f6b76"
LIGHT_GREY = "#d5dadf"
INK = "#1c2733"
DARK_SHADE = 0.66  # share of the colour scale from which white figures read better than dark ones
WIDTH = 10.0  # inches; the pictures are shown about 1000 CSS pixels wide
RELIABILITY_TICKS = (0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1)


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Make an empty figure, in inches, on a canvas of its own."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def clean(axes: Axes) -> None:
    """Keep only the left and bottom spine, in grey, and put grid lines behind the data."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    axes.set_axisbelow(True)


def write_count(axes: Axes, x: float, y: float, count: int, dark: bool, bold: bool = False) -> None:
    """Write a count into a cell of a matrix, in white where the cell is dark."""
    colour, weight = "white" if dark else INK, "bold" if bold else "normal"
    axes.text(x, y, f"{count}", ha="center", va="center", fontsize=8.5, color=colour, weight=weight)


def say(axes: Axes, text: str) -> None:
    """Write why a panel is empty."""
    axes.text(0.5, 0.5, text, ha="center", va="center", color=GREY, fontsize=9, transform=axes.transAxes)


def prevalence(row: FindingEvaluation) -> float:
    """Return the share of positives among the known labels; NaN where none is known."""
    return row.support / row.num_known if row.num_known else float("nan")


def draw_intervals(evaluation: Evaluation) -> Figure:
    """Draw AUROC and average precision of each finding with their intervals (a forest plot)."""
    rows = evaluation.findings
    figure = new_figure(0.32 * len(rows) + 1.3)
    left, right = figure.subplots(1, 2, sharey=True)
    positions = np.arange(len(rows))[::-1]
    for axes, name, estimates, baselines in (
        (left, "AUROC", [row.auroc for row in rows], [0.5] * len(rows)),
        (right, "Average precision", [row.average_precision for row in rows], [prevalence(row) for row in rows]),
    ):
        clean(axes)
        axes.grid(axis="x", color=LIGHT_GREY, linewidth=0.6)
        for position, estimate, baseline in zip(positions, estimates, baselines, strict=True):
            if not np.isnan(baseline):
                axes.plot([baseline], [position], marker="|", markersize=9, color=GREY, linestyle="none")
            if np.isnan(estimate.value):
                axes.text(0.02, position, "n/a", color=GREY, fontsize=8, va="center")
                continue
            axes.plot([estimate.low, estimate.high], [position, position], color=BLUE, linewidth=2)
            axes.plot([estimate.value], [position], marker="o", color=BLUE, markersize=5.5)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.7, len(rows) - 0.3))
        axes.set_xlabel(f"{name} (95 % interval); grey mark: by chance", fontsize=9)
    left.set_yticks(positions, [f"{display_name(row.finding)} ({row.support})" for row in rows])
    return figure


def draw_history(history: Mapping[str, Sequence[float]]) -> Figure:
    """Draw `loss` and `val_loss`, and `val_mean_auroc`, by epoch; NaN and None are gaps, an empty panel says so."""
    figure = new_figure(3.4)
    for axes, series, name in zip(
        figure.subplots(1, 2),
        (
            (("loss", "training", BLUE, "-"), ("val_loss", "validation", ORANGE, "--")),
            (("val_mean_auroc", "validation", ORANGE, "--"),),
        ),
        ("Loss", "Mean AUROC"),
        strict=True,
    ):
        clean(axes)
        axes.grid(color=LIGHT_GREY, linewidth=0.6)
        axes.set_xlabel("Epoch")
        axes.set_title(name, fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        drawn = [
            _plot_series(axes, np.asarray(history[key], dtype=float), label, colour, style)
            for key, label, colour, style in series
            if key in history
        ]
        if not any(drawn):
            say(axes, "not recorded")
            axes.set(xticks=[], yticks=[])
            continue
        if name == "Mean AUROC":
            _mark_best(axes, np.asarray(history["val_mean_auroc"], dtype=float))
        axes.legend(frameon=False, fontsize=9)
    return figure


def draw_reliability(predictions: Predictions, calibration: Calibration | None) -> Figure:
    """Draw stated probability against observed rate over all findings, before and after calibration."""
    figure = new_figure(4.6, width=5.6)
    axes = figure.subplots()
    clean(axes)
    axes.set_xscale("function", functions=(_root, np.square))
    axes.set_yscale("function", functions=(_root, np.square))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", label="perfect")
    series = [("as the network states them", predictions.logits, ORANGE, "o", "--")]
    if calibration is not None:
        series.append(("calibrated", calibrate_logits(predictions.logits, calibration), BLUE, "D", "-"))
    for label, logits, colour, marker, style in series:
        bins = reliability_bins(predictions.labels, sigmoid(logits))
        stated, observed = [group.mean_probability for group in bins], [group.observed_rate for group in bins]
        axes.plot(stated, observed, marker=marker, markersize=5, color=colour, linestyle=style, label=label)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(RELIABILITY_TICKS))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter("{x:g}")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="Stated probability (mean of bin)", ylabel="Observed rate")
    axes.tick_params(labelsize=8)
    axes.grid(color=LIGHT_GREY, linewidth=0.6)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    return figure


def draw_cooccurrence(labels: np.ndarray, findings: Sequence[str]) -> Figure:
    """Draw how often findings are labelled together: counts, shaded by the share of the row's positives.

    Args:
        labels: (n, findings), NaN where blank.
    """
    present = (labels == 1).astype(np.int64)
    counts = present.T @ present
    totals = np.diag(counts)
    shares = counts / np.maximum(totals[:, None], 1)
    np.fill_diagonal(shares, np.nan)  # each finding with itself: the count stays, without shade
    size = max(3.5, 0.5 * len(findings) + 1.8)
    figure = new_figure(0.82 * size, width=min(WIDTH, 1.15 * size))
    axes = figure.subplots()
    names = [display_name(finding) for finding in findings]
    seaborn.heatmap(
        shares,
        ax=axes,
        cmap="Blues",
        vmin=0,
        vmax=max(0.2, float(np.nanmax(shares, initial=0.0))),
        linewidths=0.5,
        linecolor="white",
        xticklabels=names,
        yticklabels=names,
        cbar_kws={"label": "Share of the row's positives", "shrink": 0.7},
    )
    top = axes.collections[0].norm.vmax
    for (row, column), count in np.ndenumerate(counts):
        dark = row != column and shares[row, column] > DARK_SHADE * top
        write_count(axes, column + 0.5, row + 0.5, count, dark, bold=row == column)
    axes.set_xticks(axes.get_xticks(), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0, labelsize=9)
    return figure


def _plot_series(axes: Axes, values: np.ndarray, label: str, colour: object, style: str) -> bool:
    if not np.isfinite(values).any():
        return False
    values = np.where(np.isfinite(values), values, np.nan)
    epochs = np.arange(1, len(values) + 1)
    axes.plot(epochs, values, style, marker="o", markersize=3, color=colour, label=label)
    return True


def _mark_best(axes: Axes, values: np.ndarray) -> None:
    best = int(np.nanargmax(values))
    axes.plot(
        [best + 1],
        [values[best]],
        marker="o",
        markersize=9,
        markerfacecolor="none",
        color=BLUE,
        linestyle="none",
        label=f"best: {values[best]:.3f} in epoch {best + 1}",
    )


def _root(values: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(values, 0))
