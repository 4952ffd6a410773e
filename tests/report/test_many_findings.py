"""With 174 findings tables, charts and pages show the most frequent or most probable ones, and all on demand."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from cxr.data.checks import check_splits
from cxr.heatmaps.panel import draw_panel
from cxr.metrics.per_finding import Predictions, evaluate
from cxr.network.model_info import ModelInfo
from cxr.report.report_files import draw_figures
from cxr.report.report_page import RunRecord, render_page
from cxr.report.summary import describe_predictions, most_frequent, terminal_table

NUM_FINDINGS = 174
FINDINGS = tuple(f"finding with quite a long name {number:03}" for number in range(NUM_FINDINGS))


@pytest.fixture(scope="module")
def predictions():
    """Finding 0 has most positives, finding 173 the fewest."""
    rng = np.random.default_rng(0)
    labels = (rng.random((60, NUM_FINDINGS)) < np.linspace(0.9, 0.05, NUM_FINDINGS)).astype(np.float32)
    labels[0], labels[1] = 0, 1
    logits = rng.normal(size=labels.shape).astype(np.float32)
    images = tuple(f"{row}.png" for row in range(60))
    return Predictions(images, images, FINDINGS, labels, logits)


@pytest.fixture(scope="module")
def evaluation(predictions):
    return evaluate(predictions, [0.5] * NUM_FINDINGS, num_resamples=20)


def test_the_most_frequent_keep_their_order():
    assert most_frequent([3, 9, 1, 9, 5], 3) == [1, 3, 4]
    assert most_frequent([3, 9], 3) == [0, 1]


@pytest.mark.fault("C79")
def test_terminal_table_has_twenty_rows_of_at_most_110_columns(evaluation):
    text = terminal_table(evaluation)
    assert max(map(len, text.splitlines())) <= 110
    supports = sorted((row.support for row in evaluation.findings), reverse=True)
    shown = [int(found) for found in re.findall(r"^finding\D+(\d+)  \d", text, re.MULTILINE)]
    assert sorted(shown, reverse=True) == supports[:20]
    assert "154 more findings are in the report and in metrics.json" in text


@pytest.mark.fault("C79")
def test_one_image_names_five_findings_and_counts_the_others():
    (line,) = describe_predictions(["a.png"], np.full((1, NUM_FINDINGS), 0.9), FINDINGS)
    assert line.count("finding with") == 5
    assert line.endswith("and 169 more")


@pytest.mark.fault("C79")
def test_panel_draws_the_most_probable_at_a_readable_size():
    probabilities = np.linspace(0, 1, NUM_FINDINGS).astype(np.float32)
    radiograph = np.zeros((100, 100), np.uint8)
    sizes = {}
    for count in (14, 20, NUM_FINDINGS):
        info = ModelInfo(FINDINGS[:count], 64)
        sizes[count] = Image.open(io.BytesIO(draw_panel("a.png", radiograph, [], probabilities[-count:], info))).size
    assert sizes[NUM_FINDINGS] == sizes[20]
    assert sizes[20][1] > sizes[14][1]  # the chart grows as far as it may


@pytest.mark.fault("C79")
def test_figures_are_as_large_as_those_of_twenty_findings(predictions, evaluation):
    figures = draw_figures(evaluation, predictions, RunRecord("run", "today"), None)
    assert len([axes for axes in figures["roc"].axes if axes.lines]) == 20
    assert all(figure.get_size_inches()[1] < 15 for figure in figures.values())


@pytest.mark.fault("C79")
def test_report_lists_twenty_findings_and_all_on_demand(predictions, evaluation):
    pictures = dict.fromkeys(
        ("roc", "precision_recall", "confusion_default", "confusion_chosen", "reliability"), b"picture"
    )
    page = render_page(evaluation, RunRecord("run", "today"), pictures, None, [])
    assert page.count("<details>") == page.count("</details>") == 3
    open_part = re.sub(r"(?s)<details>.*?</details>", "", page)
    assert open_part.count("finding with quite a long name") == 20
    assert page.count("finding with quite a long name") == 20 + 3 * NUM_FINDINGS


@pytest.mark.fault("C79")
def test_data_check_lists_the_twenty_most_frequent(tmp_path):
    paths = []
    for name in ("train", "val", "test"):
        lines = [",".join(["Image", *FINDINGS, "Patientid"])]
        for row in range(40):
            cells = ["1" if row % 40 < max(1, 30 - number) else "0" for number in range(NUM_FINDINGS)]
            lines.append(",".join([f"{name}{row}.png", *cells, f"{name}{row}"]))
        paths.append(tmp_path / f"{name}.csv")
        paths[-1].write_text("\n".join(lines))
    text = check_splits(*paths, None).as_text()
    assert text.count("finding with quite a lo") == 20
    assert "The 20 most frequent of 174; --finding NAME shows any other." in text
