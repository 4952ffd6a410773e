"""One picture that explains one radiograph: the radiograph, its overlays, every finding's probability.

Owns the layout only. Uses Matplotlib without pyplot, so it needs no display and keeps no global state.
"""

import io
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from cxr.data.columns import display_name
from cxr.heatmaps.overlay import draw_legend
from cxr.metrics.number_text import probability_by, threshold
from cxr.network.model_info import ModelInfo

matplotlib.rcParams["text.parse_math"] = False  # names are the user's: a "$" in one is no mathematics
BACKGROUND, TEXT, MUTED, TRACK = "#101317", "#e9edf1", "#9ba6b2", "#262c33"
ABOVE, BELOW = "#ffb454", "#6b8fb0"  # differ in brightness too; the text says the same
WARNING = "#ff8a80"
OUTLINE = "#8fdcff"  # none of the heat's colours
DPI = 150
# Inches.
MARGIN, GAP, TITLE, WARNING_LINE, CAPTION, PLACE_LINE, FOOTER = 0.3, 0.2, 0.55, 0.35, 0.5, 0.17, 0.6
TITLE_CHARACTER = 0.15  # width of an average one in bold at 16 points
PICTURE_WIDTH, BARS_WIDTH, MIN_BARS_HEIGHT = 3.3, 4.3, 3.4
PICTURES_PER_ROW = 4
MAX_BARS = 20  # findings in the chart; of more, the most probable are drawn
BAR_PITCH = 0.2  # inches from bar to bar at least: a line of text at 10 points
MAX_FINDING_LENGTH = 20  # characters; what fits beside the bars and over a picture


class CaptionedOverlay(NamedTuple):
    """An overlay, uint8 (height, width, 3), the position of its finding, what its scale means, where its heat lies."""

    overlay: np.ndarray
    position: int
    scale: str
    place: str = ""


class Lines(NamedTuple):
    """Lines to draw over every picture, and a caption for the radiograph.

    Attributes:
        outlines: float (points, 2) arrays of x and y, closed, in shares of the picture's width and height.
        widths: as the outlines, open; over the radiograph alone.
    """

    outlines: Sequence[np.ndarray] = ()
    widths: Sequence[np.ndarray] = ()
    caption: str = ""


NO_LINES = Lines()


class _Page:
    """A figure that is laid out in inches from its upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), facecolor=BACKGROUND)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        position = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(position, facecolor=BACKGROUND)

    def text(self, left: float, top: float, text: str, **style: object) -> None:
        self.figure.text(left / self.width, 1 - top / self.height, text, va="top", **style)


def draw_panel(
    name: str,
    radiograph: np.ndarray,
    overlays: Sequence[CaptionedOverlay],
    probabilities: np.ndarray,
    info: ModelInfo,
    warning: str = "",
    peak: float | None = None,
    lines: Lines = NO_LINES,
) -> bytes:
    """Draw the panel.

    Args:
        name: the radiograph's file name, for the title.
        radiograph: uint8 (height, width).
        overlays: in the order in which they are shown.
        probabilities: float32 (findings,).
        warning: a sentence to put above everything, such as that the picture is unlike the training radiographs.
        peak: the end of the scale that the overlays share, in logit units; None where each has its own.
        lines: to draw over the pictures, such as the outlines of lungs and heart.

    Returns:
        A PNG file.
    """
    columns = min(len(overlays) + 1, PICTURES_PER_ROW)
    rows = -(-(len(overlays) + 1) // PICTURES_PER_ROW)
    picture_height = PICTURE_WIDTH * radiograph.shape[0] / radiograph.shape[1]
    caption = CAPTION + (PLACE_LINE if lines.caption or any(one.place for one in overlays) else 0)
    row_height = caption + picture_height + GAP
    min_bars_height = max(MIN_BARS_HEIGHT, BAR_PITCH * min(len(probabilities), MAX_BARS))
    content_height = max(rows * row_height, CAPTION + min_bars_height + GAP)
    bars_left = MARGIN + columns * (PICTURE_WIDTH + GAP)
    head = MARGIN + TITLE + (WARNING_LINE if warning else 0)
    page = _Page(bars_left + BARS_WIDTH + MARGIN, head + content_height + FOOTER)
    title = _shortened(name, int((page.width - 2 * MARGIN) / TITLE_CHARACTER))
    page.text(MARGIN, MARGIN, title, color=TEXT, fontsize=16, weight="bold")
    page.text(MARGIN, MARGIN + 0.4, warning, color=WARNING, fontsize=11)
    for index, captioned in enumerate([None, *overlays]):
        left = MARGIN + index % PICTURES_PER_ROW * (PICTURE_WIDTH + GAP)
        top = head + index // PICTURES_PER_ROW * row_height
        axes = page.axes(left, top + caption, PICTURE_WIDTH, picture_height)
        axes.set_axis_off()
        if captioned is None:
            title, colour, scale = "Radiograph", TEXT, f"{radiograph.shape[1]} x {radiograph.shape[0]} pixels"
            axes.imshow(radiograph, cmap="gray", vmin=0, vmax=255, aspect="auto")
            place = lines.caption
        else:
            probability = probabilities[captioned.position]
            title = f"{_short_name(info.findings[captioned.position])}  {probability_by(probability, info.threshold)}"
            colour, scale = ABOVE if probability >= info.threshold else TEXT, captioned.scale
            axes.imshow(captioned.overlay, aspect="auto")
            place = captioned.place
        _draw_lines(axes, lines, radiograph.shape, with_widths=captioned is None)
        page.text(left, top, title, color=colour, fontsize=12.5, weight="bold")
        page.text(left, top + 0.25, scale, color=MUTED, fontsize=9)
        page.text(left, top + 0.25 + PLACE_LINE, place, color=MUTED, fontsize=9)
    bars_height = min(content_height - CAPTION - GAP, max(picture_height, min_bars_height))
    _draw_bars(page, bars_left, head, bars_height, probabilities, info)
    _draw_footer(page, info, with_legend=bool(overlays), peak=peak)
    buffer = io.BytesIO()
    page.figure.savefig(buffer, format="png", dpi=DPI, facecolor=BACKGROUND)
    return buffer.getvalue()


def _draw_lines(axes: Axes, lines: Lines, shape: tuple[int, ...], *, with_widths: bool) -> None:
    axes.autoscale(False)
    size = np.array(shape[::-1])
    for outline in lines.outlines:
        # Pixel centres are whole numbers in Matplotlib's coordinates.
        axes.plot(*(np.vstack([outline, outline[:1]]) * size - 0.5).T, color=OUTLINE, linewidth=0.7, alpha=0.9)
    for width in lines.widths if with_widths else ():
        rim = [withStroke(linewidth=2.2, foreground=BACKGROUND, alpha=0.6)]  # to be seen on a white heart
        axes.plot(*(width * size - 0.5).T, color=TEXT, linewidth=0.9, marker="|", markersize=5, path_effects=rim)


def _draw_bars(page: _Page, left: float, top: float, height: float, probabilities: np.ndarray, info: ModelInfo) -> None:
    ranking = np.argsort(probabilities, kind="stable")[-MAX_BARS:]  # the most probable at the top
    whole = len(ranking) == len(probabilities)
    title = (
        "Probability of each finding" if whole else f"The {len(ranking)} most probable of {len(probabilities)} findings"
    )
    page.text(left, top, title, color=TEXT, fontsize=12.5, weight="bold")
    page.text(left, top + 0.25, f"line: threshold {threshold(info.threshold)}", color=MUTED, fontsize=9)
    axes = page.axes(left + 1.45, top + CAPTION, BARS_WIDTH - 1.45 - 0.45, height)
    positions = np.arange(len(ranking))
    values = probabilities[ranking]
    axes.barh(positions, np.ones(len(ranking)), color=TRACK, height=0.62)
    axes.barh(positions, values, color=[ABOVE if value >= info.threshold else BELOW for value in values], height=0.62)
    axes.axvline(info.threshold, color=TEXT, linewidth=1, linestyle=(0, (4, 3)))
    for position, value in zip(positions, values, strict=True):
        axes.text(1.03, position, probability_by(value, info.threshold), color=TEXT, fontsize=10, va="center")
    axes.set(xlim=(0, 1), ylim=(-0.6, len(ranking) - 0.4), xticks=[0, 0.5, 1])
    axes.set_yticks(positions, [_short_name(info.findings[finding]) for finding in ranking], fontsize=10, color=TEXT)
    axes.tick_params(length=0, colors=MUTED, labelsize=9, axis="x")
    axes.tick_params(length=0, axis="y", labelcolor=TEXT)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_footer(page: _Page, info: ModelInfo, *, with_legend: bool, peak: float | None) -> None:
    top = page.height - FOOTER + 0.18
    page.text(page.width - MARGIN, top - 0.03, info.disclaimer, color=MUTED, fontsize=9, ha="right")
    if not with_legend:
        return
    bar = page.axes(MARGIN, top, 1.6, 0.13)
    bar.set_axis_off()
    bar.imshow(draw_legend(20, 256), aspect="auto")
    page.text(
        MARGIN + 1.75,
        top - 0.03,
        "heat (Grad-CAM of the logit), from none to "
        + ("each map's own peak" if peak is None else f"{peak:+.2g}, the largest peak of all findings"),
        color=MUTED,
        fontsize=9,
    )


def _short_name(finding: str) -> str:
    text = display_name(finding)
    return text if len(text) <= MAX_FINDING_LENGTH else text[: MAX_FINDING_LENGTH - 1] + "…"


def _shortened(name: str, length: int) -> str:
    return name if len(name) <= length else "…" + name[1 - length :]
