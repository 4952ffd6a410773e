"""The report draft in the JSON answer and on the page: what it says, where it says nothing, odd names."""

import dataclasses

import numpy as np
import pytest
import radiographs as files
from quick_site import StandIn
from site_tools import answers_of, png, quick_client, shared_decoder, text_of, upload

import app
from cxr.imaging.dicom import LATERAL_VIEW
from cxr.network.model_info import DISCLAIMER
from cxr.site.model_slot import ModelSlot

ODD_NAMES = ("<script>alert(1)</script>", "$x_{1}$", "a\nb", 'Grade_3 "{0}" & %s', *(f"F_{k}" for k in range(10)))


@pytest.fixture(scope="module")
def client():
    return quick_client()


def client_of(info):
    model = StandIn()
    model.info = info
    slot = ModelSlot(__file__, load=lambda path, precision: model)
    slot.load()
    return app.create_app(slot, shared_decoder()).test_client()


def answer_of(client, data):
    return upload(client, data, path="/api/predict").json["results"][0]


def sentences_of(report):
    return [one for section in report["sections"] for one in section["sentences"]]


def test_an_answer_has_a_draft_for_either_threshold_rule(client):
    answer = answer_of(client, png(3))
    report, chosen = answer["report"], answer["chosen_report"]
    assert (report["rule"], chosen["rule"]) == ("default", "chosen")
    for one, kind in ((report, "threshold"), (chosen, "chosen_threshold")):
        said = [sentence["text"] for sentence in one["sections"][2]["sentences"]]
        reached = {text.split(": probability")[0] for text in said if ": probability" in text}
        above = {f["name"].replace("_", " ") for f in answer["findings"] if f["probability"] >= f[kind]}
        assert reached == above
        titles = [section["title"] for section in one["sections"]]
        assert titles == ["Technique", "Comparison", "Findings", "Impression", "Limits"]
        lines = one["text"].splitlines()
        assert lines[0] == one["opening"]
        assert lines[-1] == one["closing"]
        assert [line for line in lines if line in [sentence["text"] for sentence in sentences_of(one)]] == [
            sentence["text"] for sentence in sentences_of(one)
        ]
        assert DISCLAIMER in lines[0]
        assert DISCLAIMER in lines[-1]


def test_the_numbers_of_the_draft_are_those_of_the_answer(client):
    answer = answer_of(client, png(3))
    by_name = {one["name"]: one["value"] for said in sentences_of(answer["chosen_report"]) for one in said["numbers"]}
    assert by_name["width of the picture, pixels"] == answer["width"]
    for finding in answer["findings"]:
        name = finding["name"].replace("_", " ")
        assert by_name[f"probability of {name}"] == finding["probability"]
        assert by_name[f"threshold of {name}"] == pytest.approx(finding["chosen_threshold"], rel=1e-5)


def test_a_model_without_chosen_thresholds_has_one_draft():
    client = client_of(dataclasses.replace(StandIn.info, thresholds=()))
    assert answer_of(client, png())["chosen_report"] is None
    page = upload(client, png())
    assert page.text.count('<div class="draft at-') == 1


def test_a_lateral_view_gets_no_statement_about_findings(client):
    lateral = files.dicom(files.radiograph(), ViewPosition="LL")
    for report in (answer_of(client, lateral)[name] for name in ("report", "chosen_report")):
        findings, impression = (report["sections"][k]["sentences"] for k in (2, 3))
        assert [one["text"] for one in findings] == [
            "No statement is made, because the file is marked as something else than a frontal view of a chest."
        ]
        assert [one["text"] for one in impression] == ["None, for the reason given under Findings."]
        assert LATERAL_VIEW in report["text"]


def test_odd_names_of_findings_are_shown_as_they_are_and_run_nothing():
    client = client_of(dataclasses.replace(StandIn.info, findings=ODD_NAMES))
    page = upload(client, png(3))
    assert page.status_code == 200
    assert "<script>alert(1)" not in page.text
    (answer,) = answers_of(page)
    shown = [" ".join(name.replace("_", " ").split()) for name in ODD_NAMES]
    for name in shown:
        assert name in answer["report"]["text"]
        assert name in text_of(page)


def test_an_answer_whose_heatmaps_failed_has_a_draft_too(client, monkeypatch):
    def fail(*_):
        raise ArithmeticError

    monkeypatch.setattr("cxr.heatmaps.explanation.heatmaps", fail)
    answer = answer_of(client, png(3))
    reached = [one for one in answer["findings"] if one["probability"] >= one["chosen_threshold"]]
    assert answer["chosen_report"]["text"].count("Its heatmap could not be computed.") == len(reached)
    assert np.all([one["heatmap"] is None for one in answer["findings"]])
