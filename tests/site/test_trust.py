"""What the pages say of how far to trust an answer, what the model has seen, and why few findings reach 0.5."""

import dataclasses
import re

import pytest
from quick_site import FINDINGS, StandIn, expected_probabilities
from site_tools import png, shared_decoder, text_of, upload

import app as site
from cxr.heatmaps.explanation import explain
from cxr.imaging.radiograph import decode_radiograph
from cxr.network.input_check import Source
from cxr.site.model_slot import ModelSlot


def results(description, auroc, num_images):
    same = dict.fromkeys(FINDINGS, 0.25)
    return {
        "description": description,
        "num_images": num_images,
        "num_patients": num_images,
        "num_defined": 14,
        "mean_auroc": auroc,
        "mean_auroc_interval": [auroc - 0.1, auroc + 0.1],
        "auroc": dict.fromkeys(FINDINGS, auroc),
        "auroc_intervals": {finding: [auroc - 0.1, None] for finding in FINDINGS},
        "positives": dict.fromkeys(FINDINGS, 7),
        "sensitivity": same,
        "specificity": dict.fromkeys(FINDINGS, 0.97),
        "sensitivity_chosen": dict.fromkeys(FINDINGS, 0.61),
        "specificity_chosen": dict.fromkeys(FINDINGS, 0.83),
        "views": {"AP": {"mean_auroc": 0.71, "mean_auroc_interval": [0.65, 0.77]}},
        "pointing": {"num_cases": 114, "in_box": 0.45, "random_in_box": 0.08},
    }


class TwoSources(StandIn):
    """Knows radiographs of patients and of a phantom."""

    info = dataclasses.replace(
        StandIn.info,
        sources=(
            Source("nih", "radiographs of patients", 2300, 1443),
            Source("phantom", "synthetic radiographs", 1200, 700),
        ),
        test_sets={
            "nih": results("radiographs of patients", 0.78, 439),
            "phantom": results("synthetic radiographs", 0.96, 240),
        },
    )


def client_of(model):
    slot = ModelSlot(__file__, load=lambda path, precision: model)
    slot.load()
    return site.create_app(slot, shared_decoder()).test_client()


@pytest.fixture
def client(monkeypatch):
    """A site whose answers say that the picture resembles `client.source`, at `client.input_check`."""
    client = client_of(TwoSources())
    client.source, client.input_check = 0, 0.5

    def explained(predictor, radiograph, **options):
        found = explain(predictor, radiograph, **options)
        return dataclasses.replace(found, input_check=client.input_check, source=client.source)

    monkeypatch.setattr("cxr.site.service.explain", explained)
    return client


def said(page):
    return re.sub(r"\s+", " ", text_of(page))


@pytest.mark.parametrize(
    ("source", "like", "other"),
    [
        (0, "439 radiographs of patients): AUROC 0.78", "On 240 synthetic radiographs: AUROC 0.96"),
        (1, "240 synthetic radiographs): AUROC 0.96", "On 439 radiographs of patients: AUROC 0.78"),
    ],
)
def test_result_quotes_the_test_set_that_the_picture_resembles(client, source, like, other):
    client.source = source
    page = said(upload(client, png(1)))
    assert f"the test radiographs that are most like this one ({like}" in page
    assert other in page
    rates = (
        "at its chosen threshold of 0.10 sensitivity 0.61, specificity 0.83; at 0.50 sensitivity 0.25, specificity 0.97"
    )
    assert rates in page
    assert "no figure applies" not in page


@pytest.mark.fault("I81")
def test_unlike_pictures_are_told_that_no_figure_applies(client):
    client.input_check = 1.7
    page = said(upload(client, png(1)))
    assert "no figure applies, because the picture is unlike the radiographs" in page
    assert "AUROC" not in page
    answer = upload(client, ("a.png", png(1)), path="/api/predict").get_json()["results"][0]
    assert answer["input_check"]["resembles"] is None


def test_programs_are_told_which_results_apply(client):
    client.source = 1
    answer = upload(client, ("a.png", png(1)), path="/api/predict").get_json()["results"][0]
    assert answer["input_check"]["resembles"] == "phantom"
    assert client.get("/api/model").get_json()["test_sets"]["phantom"]["mean_auroc"] == 0.96


def test_start_page_says_in_one_sentence_what_the_model_has_seen(client):
    page = said(client.get("/"))
    assert (
        "This model has learned from 2,300 radiographs of patients, and 1,200 synthetic radiographs, and from nothing "
        "else." in page
    )
    assert "0.78 over 14 findings on 439 radiographs of patients; 0.96 over 14 findings on 240 synthetic" in page


@pytest.mark.parametrize(
    ("origin", "settings", "ending"),
    [
        ("400 phantoms", {}, "nothing else but its start weights."),
        ("400 phantoms", {"teachers": "a.h5 12"}, "nothing else but its start weights and other models' answers."),
        ("none", {"teachers": "", "soft_labels": "b.csv 3"}, "nothing else but other models' answers."),
    ],
)
def test_start_page_names_what_else_taught_the_model(origin, settings, ending):
    model = TwoSources()
    model.info = dataclasses.replace(model.info, weights_origin=origin, settings=settings)
    assert ending in said(client_of(model).get("/"))


def test_result_explains_why_few_findings_reach_the_default_threshold(client):
    page = said(upload(client, png(1)))
    assert "Few findings reach 0.50: most are rare" in page
    assert "Chosen per finding" in page


def test_model_card_shows_each_test_set_apart(client):
    page = said(client.get("/model"))
    assert "0.78 (0.68 to 0.88)" in page
    assert "AP 0.71 (0.65 to 0.77)" in page
    assert "0.45 of 114 (random 0.08)" in page
    assert "AUROC on 240 synthetic radiographs" in page


def test_page_writes_a_threshold_on_that_side_of_the_probability_on_which_it_lies():
    first = float(expected_probabilities(decode_radiograph(png(3)))[0])
    assert 0.6261 < first < 0.6269
    model = StandIn()
    model.info = dataclasses.replace(StandIn.info, thresholds=(0.6256, *StandIn.info.thresholds[1:]))
    page = said(upload(client_of(model), png(3)))
    assert "above 0.50 above 0.626" in page
    assert "Atelectasis: probability 0.627 (threshold 0.50). (threshold 0.626)." in page


def test_pages_write_a_small_threshold_as_more_than_nothing():
    model = StandIn()
    model.info = dataclasses.replace(StandIn.info, threshold=0.004, thresholds=(0.003, *StandIn.info.thresholds[1:]))
    client = client_of(model)
    page = said(upload(client, png(3)))
    assert "14 of 14 findings reach the threshold of 0.004" in page
    assert "0.004 for all" in page
    assert "0.00 " not in page
    assert "0.003" in said(client.get("/model"))
