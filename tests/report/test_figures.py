"""Figures: texts that do not overlap, points, counts."""

import matplotlib.pyplot
import numpy as np
from report_data import FINDINGS, realistic

from cxr.metrics.per_finding import Predictions, evaluate
from cxr.report import figures, finding_panels


def text_boxes(figure):
    """Return the pixel boxes of all visible, non-empty texts."""
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(matplotlib.text.Text) if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent()) for text in texts]


def long_names():
    """Fourteen findings, as the project has, so that the panels are as small as they get."""
    names = tuple(f"Pleural_Thickening_{index:02d}"[-18:] for index in range(14))
    rng = np.random.default_rng(1)
    labels = (rng.random((60, 14)) < 0.4).astype(np.float32)
    images = tuple(map(str, range(60)))
    return Predictions(images, images, names, labels, rng.normal(size=labels.shape))


def test_panel_texts_do_not_overlap_with_fourteen_long_names():
    predictions = long_names()
    evaluation = evaluate(predictions, (0.5,) * 14, num_resamples=5)
    for figure in (
        figures.draw_intervals(evaluation),
        finding_panels.draw_roc(predictions, evaluation),
        finding_panels.draw_precision_recall(predictions, evaluation),
        finding_panels.draw_confusions(evaluation, chosen=False),
    ):
        boxes = text_boxes(figure)
        for index, (text, box) in enumerate(boxes):
            overlapping = [other for other, other_box in boxes[index + 1 :] if box.overlaps(other_box)]
            assert not overlapping, f"{text!r} overlaps {overlapping}"


def test_roc_panel_marks_both_operating_points():
    predictions = realistic()
    evaluation = evaluate(predictions, (0.3, 0.4, 0.5), num_resamples=5)
    axes = finding_panels.draw_roc(predictions, evaluation).axes[0]
    points = {(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if len(line.get_xdata()) == 1}
    row = evaluation.findings[0]
    assert points == {(1 - rates.specificity, rates.sensitivity) for rates in (row.at_default, row.at_chosen)}


def test_cooccurrence_counts_pairs():
    labels = np.array([[1, 1, 0], [1, 0, 0], [1, 1, np.nan]])
    texts = [text.get_text() for text in figures.draw_cooccurrence(labels, FINDINGS).axes[0].texts]
    assert texts == ["3", "2", "0", "2", "2", "0", "0", "0", "0"]


def test_figures_leave_no_shared_state():
    predictions = realistic()
    finding_panels.draw_roc(predictions, evaluate(predictions, (0.5,) * 3, num_resamples=5))
    figures.draw_cooccurrence(predictions.labels, FINDINGS)
    assert matplotlib.pyplot.get_fignums() == []
