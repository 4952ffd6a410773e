"""The report's files and figures, with degenerate input, and that nothing undefined reaches JSON."""

import base64
import csv
import html.parser
import io
import itertools
import json
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image
from report_data import DEGENERATE, FINDINGS, HISTORY, make_predictions, realistic

from cxr.data.boxes import Box
from cxr.data.labels import Split
from cxr.heatmaps.boxes_from_heatmaps import boxes_from_heatmap
from cxr.metrics.calibration import Calibration
from cxr.metrics.localisation import AREA_GRID, localise
from cxr.metrics.per_finding import evaluate
from cxr.metrics.ranking import Estimate
from cxr.network.model_info import ModelInfo
from cxr.report import figures, report_files
from cxr.report.report_files import GalleryPicture, RunRecord, metrics_json, write_report
from cxr.report.report_page import render_page, rule_of
from cxr.report.summary import describe_predictions, interval, number, terminal_table


def make_split(name, predictions):
    return Split(name, predictions.images, predictions.patients, predictions.labels, FINDINGS)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A whole report: (folder, evaluation, predictions)."""
    folder = tmp_path_factory.mktemp("reports") / "run"
    predictions = realistic()
    calibration = Calibration((1.0, 0.9, 0.8), (0.1, 0.0, -0.1))
    evaluation = evaluate(predictions, (0.3, 0.4, 0.5), calibration, num_resamples=40)
    heatmaps = np.random.default_rng(0).random((40, 3, 4, 4))
    boxes = [Box(predictions.images[0], "Effusion", 0.1, 0.1, 0.5, 0.5)]
    everywhere = {predictions.images[0]: np.ones((AREA_GRID, AREA_GRID), bool)}
    localisation = localise(
        heatmaps, predictions.images, FINDINGS, boxes, find_boxes=boxes_from_heatmap, organs=everywhere
    )
    overlay = np.full((600, 900, 3), (200, 30, 30), dtype=np.uint8)
    gallery = [
        GalleryPicture(overlay, "Effusion: <b>0.91</b> & labelled", hit=True),
        GalleryPicture(overlay[:50, :40], "Hernia: 0.88, not labelled", hit=False),
    ]
    run = RunRecord(
        "run-1",
        "2026-01-02 03:04 UTC",
        HISTORY,
        [make_split("train", predictions), make_split("test", predictions)],
        {"epochs": 2, "weights": "<none>", "rate": float("nan")},
        {"keras": "3"},
        note="A note.",
    )
    page = write_report(folder, evaluation, predictions, run, calibration, localisation, gallery)
    assert page == folder / "report.html"
    return folder, evaluation, predictions


class Outline(html.parser.HTMLParser):
    """Collect what a page is made of; fails on tags closed in the wrong order."""

    VOID = ("meta", "img", "line", "circle", "br")

    def __init__(self):
        super().__init__()
        self.tags, self.open, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def outline(written):
    parser = Outline()
    parser.feed((written[0] / "report.html").read_text(encoding="utf-8"))
    assert parser.open == []
    return parser


# Files


def refuse_constant(name):
    raise AssertionError(f"{name} is not JSON")


def test_metrics_json_holds_the_numbers_and_null_for_what_is_undefined(written):
    folder, evaluation, _ = written
    content = json.loads((folder / "metrics.json").read_text(encoding="utf-8"), parse_constant=refuse_constant)
    first, _, hernia = content["evaluation"]["findings"]
    assert first["auroc"]["value"] == evaluation.findings[0].auroc.value
    assert first["at_chosen"]["f1"] == evaluation.findings[0].at_chosen.f1
    assert hernia["auroc"] == {"value": None, "low": None, "high": None}
    assert hernia["at_default"]["sensitivity"] is None
    assert content["calibration"]["slopes"] == [1.0, 0.9, 0.8]
    assert content["localisation"]["overall"]["num_cases"] == 1
    assert content["localisation"]["overall"]["inside"] == pytest.approx(1)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count('class="group">Heat inside</th>') == 1
    boxes = content["localisation"]["boxes"]
    assert boxes["thresholds"] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert boxes["overall"]["iou"]["low"] is None  # of one patient
    assert [hit["value"] for hit in boxes["overall"]["iou_hits"]] == [
        float(boxes["overall"]["iou"]["value"] >= threshold) for threshold in boxes["thresholds"]
    ]
    assert len(boxes["findings"][0]["random_iobb_hits"]) == 7
    assert content["settings"]["rate"] is None


@pytest.mark.fault("M68")
@pytest.mark.parametrize(
    ("thresholds", "rule", "expected"),
    [
        ((0.1, None, 0.3), "the source's operating points", "the source's operating points"),
        ((0.1, None, 0.3), "", "not said by the model file"),
        ((None, None, None), "highest F1", "none; 0.5 for every finding"),
        ((), "", "none; 0.5 for every finding"),
    ],
)
def test_report_states_the_rule_of_the_models_own_thresholds(thresholds, rule, expected):
    info = ModelInfo(FINDINGS, 64, thresholds=thresholds, threshold_rule=rule)
    predictions = realistic()
    evaluation = evaluate(predictions, (0.1, 0.5, 0.3), num_resamples=2)
    run = RunRecord("r", "now", threshold_rule=rule_of(info))
    assert json.loads(metrics_json(evaluation, run))["threshold_rule"] == expected
    drawn = ("intervals", "roc", "precision_recall", "confusion_default", "confusion_chosen", "reliability")
    page = render_page(evaluation, run, dict.fromkeys(drawn, b""), None, [])
    assert f"Chosen thresholds: {html.escape(expected, quote=False).replace(chr(39), '&#39;')}." in page


def test_predictions_csv_holds_a_probability_per_finding(written):
    folder, _, predictions = written
    rows = list(csv.reader(io.StringIO((folder / "predictions.csv").read_text(encoding="utf-8"))))
    assert rows[0] == ["Image", *FINDINGS]
    assert [row[0] for row in rows[1:]] == list(predictions.images)
    stated = np.array([row[1:] for row in rows[1:]], dtype=float)
    assert_allclose(stated, 1 / (1 + np.exp(-predictions.logits)), rtol=1e-5)


def test_history_csv_numbers_its_epochs(written):
    text = (written[0] / "history.csv").read_text(encoding="utf-8")
    assert text.splitlines() == ["epoch,loss,val_loss,val_mean_auroc", "1,0.6,0.7,0.5", "2,0.4,,0.75"]


def test_report_writes_every_figure_beside_the_page_and_nothing_else(written):
    folder = written[0]
    names = {path.name for path in folder.iterdir()}
    pictures = {name for name in names if name.endswith(".png")}
    assert names - pictures == {"metrics.json", "predictions.csv", "history.csv", "report.html"}
    drawn = "intervals history roc precision_recall confusion_default confusion_chosen reliability cooccurrence"
    assert pictures == {f"{name}.png" for name in drawn.split()}


# The page


def test_page_needs_nothing_from_outside(outline, written):
    text = (written[0] / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|<script|<link|@import|url\(", text)
    sources = [attributes["src"] for tag, attributes in outline.tags if tag == "img"]
    assert len(sources) == 7 + 2
    for source in sources:
        kind, _, data = source.partition(";base64,")
        assert kind in ("data:image/png", "data:image/jpeg")
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as picture:
            picture.load()


def test_page_shrinks_gallery_pictures_and_keeps_their_shape_and_colour(outline):
    sources = [a["src"] for tag, a in outline.tags if tag == "img" and a["src"].startswith("data:image/jpeg")]
    with Image.open(io.BytesIO(base64.b64decode(sources[0].partition(",")[2]))) as picture:
        assert picture.size == (480, 320)
        assert_allclose(picture.getpixel((5, 5)), (200, 30, 30), atol=4)
    with Image.open(io.BytesIO(base64.b64decode(sources[1].partition(",")[2]))) as picture:
        assert picture.size == (40, 50)


def test_page_is_accessible(outline):
    tags = outline.tags
    assert [tag for tag, _ in tags].count("h1") == 1
    assert ("html", {"lang": "en"}) in tags
    assert all(len(attributes.get("alt", "")) > 20 for tag, attributes in tags if tag == "img")
    assert all(attributes.get("scope") for tag, attributes in tags if tag == "th")
    assert [tag for tag, _ in tags].count("caption") == [tag for tag, _ in tags].count("table") >= 6
    levels = [int(tag[1]) for tag, _ in tags if re.fullmatch(r"h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    targets = {attributes.get("id") for _, attributes in tags}
    assert all(attributes["href"][1:] in targets for tag, attributes in tags if tag == "a")


def test_page_opens_with_the_disclaimer_and_escapes_what_it_is_given(outline):
    text = " ".join(" ".join(outline.text).split())
    assert text.index("Not intended for clinical use") < text.index("Headline numbers")
    assert "Effusion: <b>0.91</b> & labelled" in text and "<none>" in text  # as text, not as tags
    assert "b" not in {tag for tag, _ in outline.tags}
    assert "n/a" in text and not re.search(r"\bnan\b", text.lower().replace("rate nan", ""))  # a setting, as given
    assert "over 2 of 3 findings" in text


# Text


def test_terminal_table_prints_each_finding_and_the_baselines():
    predictions = realistic()
    evaluation = evaluate(predictions, (0.3, 0.4, 0.5), num_resamples=40)
    lines = terminal_table(evaluation).splitlines()
    effusion = evaluation.findings[0]
    assert max(map(len, lines)) <= 110
    assert re.match(rf"Effusion +{effusion.support} +{effusion.auroc.value:.2f} \[\d\.\d\d, \d\.\d\d\] +", lines[2])
    assert f">=0.30 {effusion.at_chosen.sensitivity:.2f}" in lines[2]
    assert re.match(r"Hernia +0 +n/a +n/a ", lines[4])
    assert "over 2 of 3 findings; 40 images, 20 patients" in lines[-3]
    assert f"always answering no: {evaluation.baseline_accuracy:.3f}" in lines[-2]
    assert f"always stating the prevalence: {evaluation.baseline_loss:.3f}" in lines[-1]


def test_describe_predictions_lists_findings_by_probability():
    probabilities = np.array([[0.5, 0.9, 0.2], [0.1, 0.1, 0.1]])
    lines = describe_predictions(["a.png", "longer.png"], probabilities, FINDINGS)
    assert lines == ["a.png       ['Pleural_Thickening', 'Effusion']", "longer.png  []"]
    assert describe_predictions(["a.png"], probabilities[:1], FINDINGS, (0.6, 0.9, 0.2)) == [
        "a.png  ['Pleural_Thickening', 'Hernia']"
    ]


def test_numbers_say_what_is_undefined():
    nan = float("nan")
    assert (number(0.125, 3), number(nan), number(None)) == ("0.125", "n/a", "n/a")
    assert interval(Estimate(0.5, 0.25, 0.75)) == "0.50 [0.25, 0.75]"
    assert (interval(Estimate(0.5, nan, nan)), interval(Estimate(nan, nan, nan))) == ("0.50", "n/a")


# Figures


def render(figure):
    """Draw a figure and return its pixels; warnings are errors, so a layout that collapses fails here."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    return np.asarray(Image.open(buffer).convert("L"))


@pytest.mark.parametrize("case", DEGENERATE)
def test_report_of_degenerate_input_is_whole(case, tmp_path, monkeypatch):
    monkeypatch.setattr(report_files, "FIGURE_DPI", 40)
    predictions = make_predictions(*DEGENERATE[case]())
    calibration = Calibration((1.0,) * 3, (0.0,) * 3)
    evaluation = evaluate(predictions, (0.5, 0.2, 0.9), calibration, num_resamples=5)
    run = RunRecord("r", "now", splits=[make_split("train", predictions)])
    page = write_report(tmp_path, evaluation, predictions, run, calibration)
    assert "None to show." in page.read_text(encoding="utf-8")  # the empty gallery
    json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"), parse_constant=refuse_constant)
    pictures = list(tmp_path.glob("*.png"))
    assert len(pictures) == 7  # a report of an evaluation without training has no history
    for path in pictures:
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("L")).min() < 128, path.name
    assert terminal_table(evaluation)


def test_report_without_splits_calibration_or_history_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(report_files, "FIGURE_DPI", 40)
    predictions = realistic()
    evaluation = evaluate(predictions, (0.5,) * 3, num_resamples=5)
    text = write_report(tmp_path, evaluation, predictions, RunRecord("r", "now")).read_text(encoding="utf-8")
    assert "No splits were recorded." in text and "no calibration was fitted" in text


@pytest.mark.parametrize(
    "history",
    [
        {},
        {"loss": []},
        {"loss": [float("nan")] * 2, "val_mean_auroc": [float("nan")] * 2},
        {"val_mean_auroc": [0.5]},
        {"val_mean_auroc": [None, 0.5]},
    ],
    ids=["none", "empty", "all NaN", "one epoch", "None"],
)
def test_history_renders_what_there_is(history):
    assert render(figures.draw_history(history)).min() < 128
