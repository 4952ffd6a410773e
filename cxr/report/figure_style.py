"""The look that the report's figures share: colours, sizes, and the smallest drawing steps."""

import seaborn
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cxr.metrics.per_finding import FindingEvaluation

PALETTE = seaborn.color_palette("colorblind")
BLUE, ORANGE, GREEN = PALETTE[0], PALETTE[1], PALETTE[2]
GREY = "#5f6b76"
LIGHT_GREY = "#d5dadf"
INK = "#1c2733"
DARK_SHADE = 0.66  # share of the colour scale from which white figures read better than dark ones
WIDTH = 10.0  # inches; the pictures are shown about 1000 CSS pixels wide


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
