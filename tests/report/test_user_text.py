"""Names from the user's tables are drawn as they stand, whatever they look like to a typesetter."""

import csv
import dataclasses

import numpy as np
import pytest
from model_files import make_info
from report_data import FINDINGS, HISTORY, realistic

from cxr.heatmaps.panel import CaptionedOverlay, draw_panel
from cxr.metrics.per_finding import evaluate
from cxr.report import figures, finding_panels
from cxr.report.report_files import RunRecord, write_report

NAMES = ("Cost $5 to $10", r"$\frac{", "100 % $")


@pytest.mark.fault("T60")
def test_a_dollar_in_a_name_is_no_mathematics_in_the_reports_figures():
    predictions = dataclasses.replace(realistic(), findings=NAMES)
    evaluation = evaluate(predictions, (0.5,) * len(FINDINGS), None, num_resamples=10)
    for figure in (
        figures.draw_intervals(evaluation),
        finding_panels.draw_roc(predictions, evaluation),
        finding_panels.draw_precision_recall(predictions, evaluation),
        finding_panels.draw_confusions(evaluation, chosen=False),
        figures.draw_reliability(predictions, None),
        figures.draw_cooccurrence(predictions.labels, NAMES),
        figures.draw_history(HISTORY),
    ):
        figure.canvas.draw()


@pytest.mark.fault("T60")
def test_a_dollar_in_a_name_is_no_mathematics_in_the_panel():
    info = make_info(findings=("a $b$ c", r"$\x"))
    overlay = np.zeros((40, 40, 3), np.uint8)
    captioned = [CaptionedOverlay(overlay, k, "$$") for k in range(2)]
    png = draw_panel(r"$\frac{.png", overlay[..., 0], captioned, np.array([0.25, 0.75]), info, "$_")
    assert png.startswith(b"\x89PNG")


@pytest.mark.fault("I72")
def test_names_that_a_spreadsheet_would_run_are_guarded_in_the_reports_predictions(tmp_path):
    plain = realistic()
    images = ("=1+1.png", "@sum.png", *plain.images[2:])
    predictions = dataclasses.replace(plain, images=images, findings=("-Mass", "Edema, mild", "+Hernia"))
    evaluation = evaluate(predictions, (0.5,) * len(FINDINGS), None, num_resamples=10)
    write_report(tmp_path, evaluation, predictions, RunRecord("r", "now"))
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["Image", "'-Mass", "Edema, mild", "'+Hernia"]
    assert [row[0] for row in rows[1:]] == ["'=1+1.png", "'@sum.png", *plain.images[2:]]
