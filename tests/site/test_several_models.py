"""A site with several models: each answers with its own thresholds, programs name one, and one may be missing."""

import io
import re

import pytest
from quick_site import StandIn
from radiographs import png, radiograph
from site_tools import shared_decoder

import app as site
from cxr.network.model_info import ModelFileError, ModelInfo
from cxr.site.arguments import parse_args
from cxr.site.model_slot import ModelSlot, load_in_turn


class Second(StandIn):
    """Another model, with other thresholds, that others published."""

    info = ModelInfo(
        StandIn.info.findings,
        StandIn.info.image_size,
        thresholds=(0.77,) * 14,
        digest="4567" * 16,
        licence="Apache-2.0",
        published={"figure": "mean AUROC 0.812", "source": "its README"},
        data="what others collected",
    )


def slot(tmp_path, name, predictor):
    path = tmp_path / f"{name}.h5"
    if predictor:
        path.touch()
    made = ModelSlot(path, load=lambda *_: predictor)
    made.load()
    return made


def client_of(*slots):
    return site.create_app(slots[0], shared_decoder(), further_models=slots[1:]).test_client()


@pytest.fixture
def client(tmp_path):
    return client_of(slot(tmp_path, "first", StandIn()), slot(tmp_path, "second", Second()))


def send(client, path, **fields):
    files = {"file": (io.BytesIO(png(radiograph())), "chest.png")}
    return client.post(path, data=files | fields, content_type="multipart/form-data")


def test_page_answers_by_every_model_with_its_own_thresholds(client):
    page = send(client, "/predict").text
    assert "2 answers of 2 models" in page
    assert re.findall(r'data-model="(\w+)"', page) == ["012301230123", "456745674567"]
    assert re.findall(r'<a href="#picture-\d">([^<]*)</a>', page) == ["chest.png · first", "chest.png · second"]
    sections = page.split("data-model=")[1:]
    assert '"chosen_threshold": 0.1,' in sections[0] and '"chosen_threshold": 0.77' not in sections[0]
    assert '"chosen_threshold": 0.77' in sections[1]
    assert page.count("<footer") == 1


def test_page_of_the_one_model_that_is_named_is_as_simple_as_ever(client):
    page = send(client, "/predict", model="second").text
    assert "answers of" not in page
    assert re.findall(r'data-model="(\w+)"', page) == ["456745674567"]


def test_programs_get_the_first_model_or_the_one_they_name(client):
    assert send(client, "/api/predict").json["model"]["digest"] == "0123" * 16
    assert send(client, "/api/predict", model="second").json["model"]["digest"] == "4567" * 16
    assert client.get("/api/model").json["digest"] == "0123" * 16
    assert client.get("/api/model?model=second").json["digest"] == "4567" * 16


def test_card_of_each_model(client):
    assert "Model card of first" in client.get("/model").text
    page = client.get("/model?model=second").text
    for said in (
        "Model card of second",
        "Apache-2.0",
        "mean AUROC 0.812 (its README); not measured here",
        "others collected",
    ):
        assert said in page


@pytest.mark.fault("P10")
def test_model_that_is_not_served_is_told_with_those_that_are(client):
    for answer in (send(client, "/api/predict", model="none"), client.get("/api/model?model=none")):
        assert (answer.status_code, answer.json["code"]) == (400, "unknown_model")
        assert "first, second" in answer.json["detail"]


@pytest.mark.fault("P10")
def test_others_answer_where_one_is_missing(tmp_path):
    client = client_of(slot(tmp_path, "gone", None), slot(tmp_path, "second", Second()))
    assert client.get("/readyz").status_code == 200
    assert send(client, "/api/predict").json["model"]["digest"] == "4567" * 16
    assert "answers of" not in send(client, "/predict").text
    assert send(client, "/api/predict", model="gone").json["code"] == "model_missing"


def test_models_are_loaded_one_after_the_other(tmp_path):
    order, slots = [], []
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.h5").touch()

        def load(path, precision):
            order.append(path.stem)
            if path.stem == "b":
                raise ModelFileError("damaged")
            return StandIn()

        slots.append(ModelSlot(tmp_path / f"{name}.h5", load=load))
    load_in_turn(slots).join()
    assert order == ["a", "b", "c"]
    assert [one.state for one in slots] == ["ready", "refused", "ready"]


def test_files_of_one_name_cannot_be_told_apart():
    with pytest.raises(SystemExit):
        parse_args(["--model-path", "a/model.h5", "--model-path", "b/model.h5"])
