"""Outlines, places and the ratio in the site's answers, and a site whose outline model cannot be used."""

import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_outlines import DrawnOutlines, drawn_outlines
from jsonschema import Draft202012Validator
from quick_site import StandIn
from site_tools import ROOT, answers_of, png, quick_client, shared_decoder, text_of, upload

import app as site
from cxr.anatomy.cardiothoracic import cardiothoracic_ratio
from cxr.anatomy.outlines import labels_at
from cxr.heatmaps.explanation import explain
from cxr.heatmaps.places import OUTSIDE, Place, Region, places_of
from cxr.imaging.radiograph import decode_radiograph
from cxr.network.model_info import ModelFileError
from cxr.site.arguments import parse_args
from cxr.site.model_slot import ModelSlot

SHAPE = (240, 200)
DOCUMENT = json.loads((ROOT / "static" / "openapi.json").read_text(encoding="utf-8"))
BESIDE = Path(__file__)  # stands for the file of the outline model


def client_with(load_outlines):
    options = {"load": lambda path, precision: StandIn(), "load_outlines": load_outlines}
    slot = ModelSlot(__file__, anatomy=BESIDE, **options)
    slot.load()
    assert slot.state == "ready"
    return site.create_app(slot, shared_decoder()).test_client()


def answer_of(outlines, picture):
    response = upload(client_with(lambda path: DrawnOutlines(outlines)), picture, path="/api/predict")
    schema = {"$ref": "#/components/schemas/Prediction", "components": DOCUMENT["components"]}
    Draft202012Validator(schema).validate(response.json)
    return response.json["results"][0]


def test_answer_has_polygons_in_pixels_of_the_radiograph():
    answer = answer_of(None, png(3, SHAPE))
    outlines = drawn_outlines()
    assert {name: answer["outlines"][name] for name in ("credible", "heart_credible", "reason")} == {
        "credible": True,
        "heart_credible": True,
        "reason": None,
    }
    labels = labels_at(outlines, *SHAPE)
    heart = cv2.resize(outlines.heart.astype(np.uint8), SHAPE[::-1], interpolation=cv2.INTER_NEAREST)
    for organ, mask in (("right_lung", labels == 1), ("left_lung", labels == 2), ("heart", heart > 0)):
        (polygon,) = answer["outlines"]["polygons"][organ]
        drawn = cv2.fillPoly(np.zeros(SHAPE, np.uint8), [np.rint(polygon).astype(np.int32)], 1) > 0
        assert 2 * (drawn & mask).sum() / (drawn.sum() + mask.sum()) > 0.95, organ


def test_answer_has_the_ratio_and_each_findings_place():
    answer = answer_of(None, png(3, SHAPE))
    outlines, radiograph = drawn_outlines(), decode_radiograph(png(3, SHAPE))
    ratio = cardiothoracic_ratio(outlines, SHAPE[1], SHAPE[0])
    found = answer["cardiothoracic_ratio"]
    assert found["ratio"] == pytest.approx(ratio.ratio, abs=1e-4)
    assert [found["thorax"][name] for name in ("left", "right", "y")] == pytest.approx(ratio.thorax, abs=0.05)
    places = places_of(explain(StandIn(), radiograph).heatmaps, outlines)
    assert any(places)
    for finding, place in zip(answer["findings"], places, strict=True):
        if place is None:
            assert finding["place"] is None
            continue
        assert finding["place"]["peak"]["text"] == place.peak.words
        assert finding["place"]["largest"]["zone"] == place.largest.zone
        assert finding["place"]["largest"]["share"] == pytest.approx(place.largest_share, rel=1e-5)
        assert finding["place"]["share_inside"] == pytest.approx(place.share_inside, rel=1e-5)


def test_what_is_not_credible_is_not_said():
    reason = "No outline of the heart: it was not found."
    answer = answer_of(replace(drawn_outlines(), heart_credible=False, reason=reason), png(3))
    assert (answer["outlines"]["reason"], answer["outlines"]["polygons"]["heart"]) == (reason, [])
    assert answer["outlines"]["polygons"]["left_lung"]
    assert answer["cardiothoracic_ratio"] is None
    reason = "No outline: the right lung was not found."
    answer = answer_of(replace(drawn_outlines(), lungs_credible=False, heart_credible=False, reason=reason), png(3))
    assert not any(answer["outlines"]["polygons"].values())
    assert [finding["place"] for finding in answer["findings"]] == [None] * 14


def test_page_says_zone_share_and_ratio():
    words = text_of(upload(client_with(lambda path: DrawnOutlines()), png(3, SHAPE)))
    place = next(
        filter(None, places_of(explain(StandIn(), decode_radiograph(png(3, SHAPE))).heatmaps, drawn_outlines()))
    )
    assert f"({100 * place.largest_share:.0f} %) lies" in words
    assert f"{100 * place.share_inside:.0f} % of it is inside lungs and heart" in words
    ratio = cardiothoracic_ratio(drawn_outlines(), *SHAPE)
    assert f"{ratio.ratio:.2f} of the thorax's width (cardiothoracic ratio)" in words


@pytest.mark.parametrize("inside", [0.39, 0.41])
def test_page_says_it_where_much_heat_lies_outside(monkeypatch, inside):
    def placed(heatmaps, outlines):
        return [place and replace(place, share_inside=inside) for place in places_of(heatmaps, outlines)]

    monkeypatch.setattr("cxr.heatmaps.explanation.places_of", placed)
    words = text_of(upload(client_with(lambda path: DrawnOutlines()), png(3, SHAPE)))
    assert ("Much of the heat lies outside lungs and heart" in words) == (inside < 0.4)


HEART, LEFT_HILUM, BESIDE_LUNG = Region("middle", "heart"), Region("left", "hilum"), Region("right", OUTSIDE)


@pytest.mark.parametrize(
    ("place", "named"),
    [
        (Place(HEART, HEART, 0.3, 0.8), "heart"),
        (Place(LEFT_HILUM, LEFT_HILUM, 0.9, 0.9), "left hilum"),
        (Place(HEART, HEART, 0.29, 0.8), None),  # spread out
        (Place(LEFT_HILUM, HEART, 0.6, 0.8), None),  # in two places
        (Place(BESIDE_LUNG, BESIDE_LUNG, 0.9, 0.1), None),
    ],
)
def test_headline_names_a_place_where_the_impression_of_the_draft_does(monkeypatch, place, named):
    monkeypatch.setattr("cxr.heatmaps.explanation.places_of", lambda heatmaps, outlines: [place] * len(heatmaps))
    page = upload(client_with(lambda path: DrawnOutlines()), png(3, SHAPE))
    (answer,) = answers_of(page)
    assert {finding["place"]["definite"] for finding in answer["findings"]} == {named is not None}
    assert set(re.findall(r'<span class="zone">(.*?)</span>', page.text)) == ({named} if named else set())
    impression = answer["report"]["sections"][3]["sentences"][0]["text"]
    assert "reach the threshold of 0.50: " in impression
    assert re.findall(r"\((?:over the )?(.*?)\)", impression)[:1] == ([named] if named else [])


def refuse(path):
    raise ModelFileError(f"{path}: damaged.")


def fail(path):
    raise MemoryError


@pytest.mark.parametrize(("load_outlines", "said"), [(refuse, "damaged."), (fail, "not enough memory")])
def test_a_site_does_without_an_outline_model_that_cannot_be_used(caplog, load_outlines, said):
    client = client_with(load_outlines)
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert [line.startswith("No outlines of lungs and heart: ") and said in line for line in lines] == [True]
    answer = upload(client, png(3), path="/api/predict").json["results"][0]
    assert (answer["outlines"], answer["cardiothoracic_ratio"]) == (None, None)


def test_a_site_without_the_file_of_the_outline_model_answers_as_one_that_needs_none(tmp_path):
    options = {"load": lambda path, precision: StandIn(), "load_outlines": refuse}
    slot = ModelSlot(__file__, anatomy=tmp_path / "none.h5", **options)
    slot.load()
    client = site.create_app(slot, shared_decoder()).test_client()
    answers = [upload(one, png(3), path="/api/predict").json["results"] for one in (client, quick_client())]
    assert answers[0] == answers[1]


def test_command_line_takes_a_file_or_none():
    assert parse_args([], anatomy=site.ANATOMY_PATH).anatomy == ROOT / "model" / "anatomy.h5"
    assert parse_args(["--anatomy", "none"]).anatomy is None
    assert parse_args(["--anatomy", "b.h5"]).anatomy == Path("b.h5")
