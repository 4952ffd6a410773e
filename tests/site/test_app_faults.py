"""Faults of the model, of the code and of the load end in pages and documents without details."""

from pathlib import Path

import numpy as np
import pytest
from quick_site import StandIn
from site_tools import (
    Broken,
    answers_of,
    broken,
    png,
    quick_client,
    shared_decoder,
    site_in_state,
    text_of,
    upload,
)

import app as site
from cxr.inference.prediction import Prediction
from cxr.site.answer import NO_HEATMAPS
from cxr.site.errors import ERRORS, SiteError
from cxr.site.model_slot import ModelSlot


@pytest.fixture
def client():
    return quick_client()


@pytest.mark.fault("H13")
@pytest.mark.parametrize("state", ["loading", "missing", "refused"])
def test_503_says_when_to_come_back(state):
    client = site_in_state(state)
    page = upload(client, png())
    assert page.status_code == 503
    assert int(page.headers["Retry-After"]) > 0
    assert ERRORS[f"model_{state}"].title in text_of(page)
    assert client.get("/").status_code == 200
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503


@pytest.mark.fault("H13")
def test_a_full_house_is_503_before_the_body_is_looked_at(client, monkeypatch):
    places = client.application.service._places
    while places.acquire(blocking=False):
        pass
    monkeypatch.setattr(site, "_uploads", None)  # reading the form would fail
    page = upload(client, png())
    assert (page.status_code, page.headers["Retry-After"]) == (503, "2")
    assert ERRORS["busy"].title in text_of(page)
    monkeypatch.undo()
    places.release()
    assert upload(client, png()).status_code == 200
    assert upload(client, b"").status_code == 422
    assert upload(client, png()).status_code == 200  # an error gives its place back, too


@pytest.mark.fault("H19")
@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("cxr.site.service.build_answer", "answer"),
        ("app.overlay_heatmap", "draw"),
        ("cxr.heatmaps.explanation.to_model_input", "preprocess"),
        ("quick_site.StandIn.predict", "model"),
        ("cxr.decoding.pool.Decoder.decode", "decode"),
        ("app.render_template", "render"),
    ],
)
def test_a_fault_in_any_stage_is_a_page_without_details(client, monkeypatch, caplog, place, name):
    plain_render = site.render_template
    if name == "render":

        def broken_result(template, **context):
            return broken() if template == "result.html" else plain_render(template, **context)

        monkeypatch.setattr(place, broken_result)
    else:
        monkeypatch.setattr(place, broken)
    page = upload(client, ("secret-name.png", png()))
    assert page.status_code == 500
    words = text_of(page)
    assert ERRORS["internal"].title in words
    assert page.headers["X-Request-Id"] in words
    assert "Traceback" not in page.text and "MUSTERMANN" not in page.text
    assert f"Request {page.headers['X-Request-Id']} failed" in caplog.text
    assert "Broken" in caplog.text  # the whole trace is in the log
    assert "secret-name" not in caplog.text
    api = upload(client, png(), path="/api/predict")
    if name not in ("draw", "render"):
        assert (api.status_code, api.json["code"], api.json["request_id"]) == (
            500,
            "internal",
            api.headers["X-Request-Id"],
        )
    monkeypatch.undo()
    assert upload(client, png()).status_code == 200


@pytest.mark.fault("H19")
def test_failing_heatmaps_alone_leave_the_probabilities(client, monkeypatch, caplog):
    expected = answers_of(upload(client, png()))[0]
    monkeypatch.setattr("cxr.heatmaps.explanation.heatmaps", broken)
    page = upload(client, png())
    assert page.status_code == 200
    (answer,) = answers_of(page)
    for one, whole in zip(answer["findings"], expected["findings"], strict=True):
        assert one["probability"] == whole["probability"]
        assert (one["heatmap"], one["peak"]) == (None, None)
    assert NO_HEATMAPS in answer["notices"]
    assert NO_HEATMAPS in text_of(page)
    assert "Broken" in caplog.text


@pytest.mark.fault("H19")
def test_numbers_that_are_not_finite_are_never_shown(client, monkeypatch):
    whole = StandIn().predict(np.zeros((1, 64, 64, 1), np.uint8))
    for spoilt in range(4):
        outputs = Prediction(*(part.copy() for part in whole))
        outputs[spoilt].flat[0] = np.nan
        monkeypatch.setattr(StandIn, "predict", lambda self, inputs, outputs=outputs: outputs)
        assert upload(client, png()).status_code == 500
        assert upload(client, png(), path="/api/predict").status_code == 500


@pytest.mark.fault("M01")
def test_without_a_model_file_the_site_starts_and_says_how_to_make_one(tmp_path):
    slot = ModelSlot(tmp_path / "none.h5")
    slot.load()
    assert slot.state == "missing"
    client = site.create_app(slot, shared_decoder()).test_client()
    assert "python main_train.py" in text_of(client.get("/"))
    assert client.get("/model").status_code == 200
    assert client.get("/healthz").status_code == 200
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json["code"]) == (503, "model_missing")
    page = upload(client, png())
    assert page.status_code == 503
    assert "python main_train.py" in text_of(page)
    assert str(tmp_path) not in page.text


@pytest.mark.fault("M02")
@pytest.mark.parametrize("content", [b"", b"text", b"<html>", b"version https://git-lfs.github.com/spec/v1\n", None])
def test_what_is_no_hdf5_file_is_refused(tmp_path, content, caplog):
    path = tmp_path / "model.h5"
    path.mkdir() if content is None else path.write_bytes(content)
    slot = ModelSlot(path)
    slot.load()
    assert slot.state == "refused"
    assert str(path) in caplog.text
    client = site.create_app(slot, shared_decoder()).test_client()
    assert client.get("/readyz").json["code"] == "model_refused"
    page = upload(client, png())
    assert page.status_code == 503
    assert str(tmp_path) not in page.text


@pytest.mark.fault("M09")
def test_a_running_site_keeps_its_model(tmp_path):
    path = tmp_path / "model.h5"
    path.write_bytes(b"x")
    slot = ModelSlot(path, load=lambda path, precision: StandIn())
    slot.load()
    client = site.create_app(slot, shared_decoder()).test_client()
    before = answers_of(upload(client, png()))
    path.write_bytes(b"another model, half written")
    assert answers_of(upload(client, png())) == before
    path.unlink()
    assert answers_of(upload(client, png())) == before


@pytest.mark.fault("M10")
def test_a_model_file_that_may_not_be_read_is_refused_with_the_reason(tmp_path, monkeypatch, caplog):
    path = tmp_path / "model.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    plain_open = Path.open

    def denied(self, *arguments, **more):
        if self == path:
            raise PermissionError(13, "Permission denied", str(path))
        return plain_open(self, *arguments, **more)

    monkeypatch.setattr(Path, "open", denied)  # the tests may run as root, who may read everything
    slot = ModelSlot(path)
    slot.load()
    assert slot.state == "refused"
    assert "Permission denied" in caplog.text


@pytest.mark.fault("M11")
def test_an_old_keras_is_refused_with_the_version_that_is_needed(tmp_path, monkeypatch, caplog):
    path = tmp_path / "model.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setattr("keras.__version__", "3.15.0")
    slot = ModelSlot(path)
    slot.load()
    assert slot.state == "refused"
    assert "expected 3.15.1 or newer" in caplog.text


def test_a_loader_that_breaks_leaves_no_site_that_waits_for_ever():
    slot = ModelSlot(__file__, load=broken)
    with pytest.raises(Broken):
        slot.load()
    assert slot.state == "refused"
    with pytest.raises(SiteError):
        slot.require()
