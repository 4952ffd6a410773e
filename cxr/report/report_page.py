"""The report as one HTML page: the records it is made from and the filling of templates/report.html."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from cxr.data.columns import display_name
from cxr.data.labels import Split
from cxr.metrics.calibration import NUM_BINS
from cxr.metrics.localisation import Localisation
from cxr.metrics.per_finding import Evaluation
from cxr.metrics.ranking import MIN_INTERVAL_PATIENTS, Estimate
from cxr.network.model_info import ModelInfo
from cxr.report.comparison import Comparison, comparison_rows, verdict
from cxr.report.history import History
from cxr.report.summary import interval, most_frequent, number

NO_RULE = "none; 0.5 for every finding"  # of thresholds that nobody chose
TEMPLATE_DIR = Path(__file__).resolve().parents[2] / "templates"
GALLERY_SIDE = 480  # pixels of the longer side of a gallery picture inside the page
GALLERY_QUALITY = 88  # JPEG
BAR_WIDTH, BAR_HEIGHT = 150, 14  # of an interval drawn in a table, in SVG units


@dataclass(frozen=True, eq=False)
class GalleryPicture:
    """A finished picture for the report.

    Args:
        overlay: uint8 (h, w, 3), RGB.
        caption: what it shows; also read out to those who cannot see it.
        hit: True for a clear hit, False for an error.
    """

    overlay: np.ndarray
    caption: str
    hit: bool


@dataclass(frozen=True, eq=False)
class RunRecord:
    """What is known of a training run besides its numbers.

    Args:
        name: of the run, such as the name of its folder.
        created: date and time, as text.
        history: by epoch: `loss`, `val_loss`, `val_mean_auroc` are drawn, other columns only written.
        splits: train, val, test.
        settings, versions: name to value, printed as they are.
        note: a sentence of warning or explanation under the headline, or nothing.
        comparison: with another model on the same radiographs, or None.
        threshold_rule: how the chosen thresholds were chosen, in words, by `rule_of`.
    """

    name: str
    created: str
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
    splits: Sequence[Split] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    comparison: Comparison | None = None
    threshold_rule: str = NO_RULE


def rule_of(info: ModelInfo) -> str:
    """Say how a model's thresholds were chosen: not every model's were by this project's rule, or at all."""
    if all(one is None for one in info.thresholds):
        return NO_RULE
    return info.threshold_rule or "not said by the model file"


def describe_run(name: str, info: ModelInfo, history: History, splits: Sequence[Split]) -> RunRecord:
    """Collect what the report says of the run beside its numbers."""
    settings = {key: value for key, value in info.settings.items() if key != "versions"}
    rows = history.rows
    notes = (
        (info.data, f"The data are {info.data}."),
        (info.leakage, "Some patients are in more than one split, so that the scores are too good."),
        (
            not info.patients_known,
            "The tables name no patients: each image counts as a patient of its own. If a patient is in two splits, "
            "the scores are too good; intervals are too narrow.",
        ),
    )
    return RunRecord(
        name=name,
        created=info.created,
        history={key: [np.nan if row[key] is None else row[key] for row in rows] for key in (rows[0] if rows else ())},
        splits=splits,
        settings={"image_size": info.image_size, **settings},
        versions=info.settings["versions"],
        note=" ".join(note for applies, note in notes if applies),
        threshold_rule=rule_of(info),
    )


def render_page(
    evaluation: Evaluation,
    run: RunRecord,
    pictures: Mapping[str, bytes],
    localisation: Localisation | None,
    gallery: Sequence[GalleryPicture],
) -> str:
    """Fill templates/report.html; every picture goes in as a data URI."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE_DIR),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "interval": interval, "spoken": display_name}
    axis_start = _axis_start([row.auroc for row in evaluation.findings])
    return environment.get_template("report.html").render(
        evaluation=evaluation,
        run=run,
        pictures={name: _data_uri(data, "image/png") for name, data in pictures.items()},
        frequent=most_frequent([row.support for row in evaluation.findings]),
        bars=[
            (_bar(row.auroc, axis_start, 0.5), _bar(row.average_precision, 0.0, row.support / max(row.num_known, 1)))
            for row in evaluation.findings
        ],
        axis_start=axis_start,
        bar_size=(BAR_WIDTH, BAR_HEIGHT),
        localisation=localisation,
        gallery=[(_data_uri(_jpeg(picture.overlay), "image/jpeg"), picture) for picture in gallery],
        data_rows=_data_rows(run.splits),
        comparison_rows=comparison_rows(run.comparison) if run.comparison else [],
        verdict=verdict(run.comparison) if run.comparison else "",
        threshold_rule=run.threshold_rule,
        num_bins=NUM_BINS,
        min_interval_patients=MIN_INTERVAL_PATIENTS,
    )


def _axis_start(estimates: Sequence[Estimate]) -> float:
    """Return where the AUROC bars begin: 0.4, or the tenth below the lowest limit."""
    lows = [value for estimate in estimates for value in (estimate.value, estimate.low) if math.isfinite(value)]
    return min(0.4, math.floor(min(lows, default=0.4) * 10) / 10)


def _bar(estimate: Estimate, start: float, chance: float) -> dict[str, float] | None:
    """Place an estimate on the axis start..1 of an SVG bar; None where it is undefined."""
    if not math.isfinite(estimate.value):
        return None

    def place(value: float) -> float:
        return round(4 + (BAR_WIDTH - 8) * (value - start) / (1 - start), 1)

    low, high = (estimate.low, estimate.high) if math.isfinite(estimate.low) else (estimate.value, estimate.value)
    return {"low": place(low), "high": place(high), "value": place(estimate.value), "chance": place(chance)}


def _data_rows(splits: Sequence[Split]) -> list[tuple[str, list[str]]]:
    """Return (name, one cell per split): images, patients, then positives per finding, with blanks where there are."""
    if not splits:
        return []
    rows = [
        ("Images", [f"{len(split.images):,}" for split in splits]),
        ("Patients", [f"{len(set(split.patients)):,}" for split in splits]),
    ]
    for k, finding in enumerate(splits[0].findings):
        cells = []
        for split in splits:
            num_blank = int(np.isnan(split.labels[:, k]).sum())
            blank = f" ({num_blank:,} blank)" if num_blank else ""
            cells.append(f"{int((split.labels[:, k] == 1).sum()):,}{blank}")
        rows.append((finding, cells))
    return rows


def _jpeg(overlay: np.ndarray) -> bytes:
    picture = Image.fromarray(overlay)
    picture.thumbnail((GALLERY_SIDE, GALLERY_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=GALLERY_QUALITY)
    return buffer.getvalue()


def _data_uri(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"
