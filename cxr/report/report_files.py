"""Write what an evaluation found: metrics.json, predictions.csv, history.csv, figures, and one report.html.

Owns the files and their content. Numbers come from cxr.metrics, pictures from figures and finding_panels,
the page from report_page; heatmap overlays arrive as finished pictures.
"""

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas
from matplotlib.figure import Figure

from cxr.inference.table_columns import harmless
from cxr.metrics.calibration import Calibration
from cxr.metrics.localisation import Localisation
from cxr.metrics.per_finding import Evaluation, Predictions
from cxr.report import figures, finding_panels
from cxr.report.report_page import GalleryPicture, RunRecord, render_page
from cxr.report.summary import most_frequent
from cxr.system.atomic_files import replacing
from cxr.system.json_values import json_values

FIGURE_DPI = 150


def write_report(
    directory: Path | str,
    evaluation: Evaluation,
    predictions: Predictions,
    run: RunRecord,
    calibration: Calibration | None = None,
    localisation: Localisation | None = None,
    gallery: Sequence[GalleryPicture] = (),
) -> Path:
    """Write the report of one evaluated split and return the path of report.html.

    Each file is replaced as a whole; report.html comes last. An existing folder is used and files of other names in it
    are left alone.

    Raises: OSError where the folder cannot be written.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    _replace(directory / "metrics.json", metrics_json(evaluation, run, calibration, localisation).encode())
    # Names are those of somebody's table, and this one is for spreadsheets too.
    findings, images = ([*map(harmless, names)] for names in (predictions.findings, predictions.images))
    probabilities = pandas.DataFrame(predictions.probabilities, columns=findings)
    probabilities.insert(0, "Image", images)
    _replace(directory / "predictions.csv", probabilities.to_csv(index=False, float_format="%.6g").encode())
    if run.history:
        epochs = pandas.DataFrame({name: list(values) for name, values in run.history.items()})
        if "epoch" not in epochs:
            epochs.insert(0, "epoch", np.arange(1, len(epochs) + 1))
        _replace(directory / "history.csv", epochs.to_csv(index=False).encode())

    pictures = {}
    for name, figure in draw_figures(evaluation, predictions, run, calibration).items():
        pictures[name] = _png(figure)
        _replace(directory / f"{name}.png", pictures[name])
    page = render_page(evaluation, run, pictures, localisation, gallery)
    _replace(directory / "report.html", page.encode())
    return directory / "report.html"


def draw_figures(
    evaluation: Evaluation, predictions: Predictions, run: RunRecord, calibration: Calibration | None
) -> dict[str, Figure]:
    """Draw every figure of the report, by file name without ending; of very many findings the most frequent."""
    places = most_frequent([row.support for row in evaluation.findings])
    some = dataclasses.replace(evaluation, findings=tuple(evaluation.findings[place] for place in places))
    columns = _columns_of(predictions, places)
    drawn = {
        "intervals": figures.draw_intervals(some),
        "roc": finding_panels.draw_roc(columns, some),
        "precision_recall": finding_panels.draw_precision_recall(columns, some),
        "confusion_default": finding_panels.draw_confusions(some, chosen=False),
        "confusion_chosen": finding_panels.draw_confusions(some, chosen=True),
        "reliability": figures.draw_reliability(predictions, calibration),
    }
    if run.history:
        drawn["history"] = figures.draw_history(run.history)
    if run.splits:
        labels, findings = run.splits[0].labels, run.splits[0].findings
        places = most_frequent((labels == 1).sum(axis=0).tolist())
        drawn["cooccurrence"] = figures.draw_cooccurrence(labels[:, places], [findings[place] for place in places])
    return drawn


def _columns_of(predictions: Predictions, places: Sequence[int]) -> Predictions:
    """Return the predictions of some findings."""
    names = tuple(predictions.findings[place] for place in places)
    labels, logits = predictions.labels[:, places], predictions.logits[:, places]
    return dataclasses.replace(predictions, findings=names, labels=labels, logits=logits)


def metrics_json(
    evaluation: Evaluation,
    run: RunRecord,
    calibration: Calibration | None = None,
    localisation: Localisation | None = None,
) -> str:
    """Return all numbers as JSON; what is undefined is null."""
    content = {
        "run": run.name,
        "created": run.created,
        "evaluation": evaluation,
        "threshold_rule": run.threshold_rule,
        "calibration": calibration,
        "localisation": localisation,
        "comparison": run.comparison,
        "settings": run.settings,
        "versions": run.versions,
    }
    return json.dumps(json_values(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=FIGURE_DPI)
    return buffer.getvalue()


def _replace(path: Path, data: bytes) -> None:
    with replacing(path, durable=False) as temp:
        temp.write_bytes(data)
