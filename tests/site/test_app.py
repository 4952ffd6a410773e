"""The site through Flask's client: what a visitor sees, and what no visitor may get."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from quick_site import FINDINGS, StandIn, expected_probabilities, ready_slot
from served_model import served_predictor
from site_tools import (
    FORM,
    ROOT,
    answers_of,
    form,
    noisy_png,
    png,
    quick_client,
    shared_decoder,
    text_of,
    upload,
)

import app as site
import gradcam
from cxr.imaging.radiograph import decode_radiograph
from cxr.inference.prediction import Prediction
from cxr.site.answer import NO_HEATMAPS
from cxr.site.errors import ERRORS, MAX_FILES, MAX_REQUEST_BYTES, SiteError
from cxr.site.middleware import HEADERS
from cxr.site.model_slot import ModelSlot

PAGES = ("/", "/predict", "/model", "/api", "/api/model", "/api/openapi.json", "/healthz", "/readyz")


@pytest.fixture
def client():
    return quick_client()


def site_in_state(state):
    slot = ModelSlot("x")
    slot.state = state
    return site.create_app(slot, shared_decoder()).test_client()


def test_result_shows_the_real_models_own_numbers():
    slot = ModelSlot(__file__, load=lambda path, precision: served_predictor())
    slot.load()
    client = site.create_app(slot, shared_decoder()).test_client()
    expected = gradcam.explain(served_predictor(), decode_radiograph(png(3)))
    (answer,) = answers_of(upload(client, png(3)))
    assert [one["name"] for one in answer["findings"]] == list(served_predictor().info.findings)
    np.testing.assert_allclose([one["probability"] for one in answer["findings"]], expected.probabilities, rtol=1e-5)
    np.testing.assert_allclose([one["heatmap"] for one in answer["findings"]], expected.heatmaps, rtol=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_result_belongs_to_the_picture(client, seed):
    page = upload(client, ("chest.png", png(seed)))
    assert page.status_code == 200
    (answer,) = answers_of(page)
    found = [one["probability"] for one in answer["findings"]]
    np.testing.assert_allclose(found, expected_probabilities(decode_radiograph(png(seed))), atol=1e-5)
    assert (answer["file"], answer["type"], answer["width"], answer["height"]) == ("chest.png", "png", 100, 120)
    assert "clinical use" in text_of(page)


def test_without_script_the_server_draws_the_overlays_and_with_it_none(client):
    def pictures(page):
        return len(re.findall(r"data:image/jpeg;base64,", page.text))

    assert pictures(upload(client, png())) == 4  # the radiograph and three overlays
    assert pictures(upload(client, png(), script="1")) == 1
    assert pictures(upload(client, png(0), png(1), script="1")) == 4  # and a thumbnail for each


def test_samples_are_served_and_answered(client):
    names = re.findall(r"/samples/([\w.]+)", client.get("/").text)
    assert len(set(names)) >= 3
    for name in set(names):
        picture = client.get(f"/samples/{name}")
        assert (picture.status_code, picture.content_type) == (200, "image/png")
        assert picture.data == (ROOT / "images" / name).read_bytes()
    name = names[0]
    page = client.post("/predict", data=form(fields=[("sample", name)]), content_type=FORM)
    expected = expected_probabilities(decode_radiograph((ROOT / "images" / name).read_bytes()))
    np.testing.assert_allclose([one["probability"] for one in answers_of(page)[0]["findings"]], expected, atol=1e-5)
    unknown = client.post("/predict", data=form(fields=[("sample", "../app.py")]), content_type=FORM)
    assert unknown.status_code == 400
    assert ERRORS["unknown_sample"].title in text_of(unknown)
    assert client.get("/samples/00000001_000.png").status_code == 404  # exists, and is no sample


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"picture": (lambda: (__import__("io").BytesIO(b"x"), "x.png"))},
        {"file": "text and no file"},
        {"file": (lambda: (__import__("io").BytesIO(b"x"), ""))},
    ],
    ids=["nothing", "another field", "a text field", "no file name"],
)
def test_H01_a_form_without_a_file_comes_back_with_a_message(client, data):
    data = {name: value() if callable(value) else value for name, value in data.items()}
    page = client.post("/predict", data=data, content_type="multipart/form-data")
    assert page.status_code == 400
    assert ERRORS["no_file"].title in text_of(page)
    assert re.search(r'<input[^>]*name="file"[^>]*autofocus', page.text)


@pytest.mark.parametrize(
    "request_of",
    [
        {"json": {"file": "x"}},
        {"data": {"file": "x"}},
        {"data": b"x"},
        {"data": b"x", "content_type": "multipart/form-data"},
        {"data": b"x", "content_type": "multipart/form-data; boundary="},
        {"data": form(("x.png", png()))[:-40], "content_type": FORM},
        {"data": b"--border\r\n", "content_type": FORM},
    ],
    ids=["json", "urlencoded", "no type", "no boundary", "empty boundary", "cut in the file", "cut in the head"],
)
@pytest.mark.parametrize("path", ["/predict", "/api/predict"])
def test_H02_what_is_no_whole_form_is_400(client, path, request_of):
    assert client.post(path, **request_of).status_code == 400


@pytest.mark.parametrize(("excess", "status"), [(-1, 415), (0, 415), (1, 413)])
def test_H03_a_body_up_to_the_limit_is_read(client, excess, status):
    empty = form(("x.png", b""))
    body = form(("x.png", bytes(MAX_REQUEST_BYTES + excess - len(empty))))
    assert len(body) == MAX_REQUEST_BYTES + excess
    page = client.post("/predict", data=body, content_type=FORM)
    assert page.status_code == status
    assert ERRORS["type" if status == 415 else "request_too_large"].title in text_of(page)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (form(fields=[(f"part{number}", "x") for number in range(1000)]), 413),
        (form(("x.png", png()), fields=[("note", "x" * 20_000)]), 200),
        (form(("n" * 5000 + ".png", png())), 200),
        (form(fields=[("note", "x" * 600_000)]), 413),
    ],
    ids=["1000 parts", "20 kB of text", "long name", "600 kB of text"],
)
def test_H04_oversized_forms(client, body, status):
    assert client.post("/predict", data=body, content_type=FORM).status_code == status


def test_H05_each_of_several_files_has_its_own_result_or_error(client):
    files = [png(0), b"no picture", png(1), b"", png(2)[:300], png(3), png(4), png(5)]
    assert len(files) == MAX_FILES
    page = upload(client, *[(f"file{number}.png", data) for number, data in enumerate(files)])
    assert page.status_code == 200
    answers = answers_of(page)
    assert [one["file"] for one in answers] == [f"file{number}.png" for number in (0, 2, 5, 6, 7)]
    for answer, seed in zip(answers, (0, 1, 3, 4, 5), strict=True):
        expected = expected_probabilities(decode_radiograph(png(seed)))
        np.testing.assert_allclose([one["probability"] for one in answer["findings"]], expected, atol=1e-5)
    words = text_of(page)
    for number, code in ((1, "type"), (3, "empty"), (4, "damaged")):
        assert f"file{number}.png" in words
        assert ERRORS[code].title in words
    too_many = upload(client, *[png()] * (MAX_FILES + 1))
    assert too_many.status_code == 400
    assert f"At most {MAX_FILES} files" in text_of(too_many)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\x\\chest.png", "chest.png"),
        ("..", ""),
        ("a\x00b\x1b.png", "ab.png"),
        ("\u202egnp.exe", "gnp.exe"),
        ("x\r\nSet-Cookie: a=b", "x Set-Cookie: a=b"),
        ("  a \t b\u2028c  ", "a b c"),
        ("\U0001fac1 lung.png", "\U0001fac1 lung.png"),
        ("\u200b\ufeff", ""),
        ("n" * 5000 + ".png", "n" * 44 + "…" + "n" * 11 + ".png"),
    ],
)
def test_H06_file_names_are_cleaned(name, shown):
    assert site.clean_name(name) == shown


def test_H06_a_hostile_file_name_is_shown_escaped_and_never_logged(client, caplog):
    caplog.set_level("DEBUG")
    page = upload(client, ("MUSTERMANN <img src=x onerror=alert(1)>.png", png()))
    assert page.status_code == 200
    assert "<img src=x" not in page.text
    assert "MUSTERMANN <img src=x onerror=alert(1)>.png" in text_of(page)  # after unescaping
    assert "MUSTERMANN" not in str(page.headers) + caplog.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:5000"}, 200),
        ({"Host": "127.0.0.1"}, 200),
        ({"Host": "evil.example"}, 400),
        ({"Host": "localhost.evil.example"}, 400),
        ({"Host": "127.0.0.1, evil.example"}, 400),
        ({"Host": ""}, 400),
        ({"Host": "[::1]:5000"}, 200),
        ({"Host": "[::2]:5000"}, 400),
        ({"Host": "LOCALHOST"}, 200),
        ({"Host": "localhost:99999999"}, 400),
        ({"Host": "user@localhost"}, 400),
        ({"Host": "localhost", "X-Forwarded-Host": "evil.example"}, 200),
    ],
)
def test_H07_wrong_host_is_refused(client, headers, status, monkeypatch):
    if status == 400:
        monkeypatch.setitem(client.application.view_functions, "index", broken)  # no view may be reached
    page = client.get("/", headers=headers)
    assert page.status_code == status
    assert (ERRORS["wrong_host"].title in text_of(page)) == (status == 400)
    assert "evil" not in page.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://localhost"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://localhost:8000"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, 200),  # what a page with no-referrer sends
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/api/predict"])
def test_H08_posts_from_other_sites_are_refused(client, headers, status, path):
    assert upload(client, png(), path=path, headers=headers).status_code == status


@pytest.mark.parametrize("path", [*PAGES, "/api/predict", "/samples/00000011_001.png", "/static/style.css"])
def test_H09_methods(client, path):
    rules = client.open(path, method="OPTIONS")
    assert rules.status_code == 200
    allowed = set(rules.headers["Allow"].replace(" ", "").split(","))
    assert allowed == {"OPTIONS"} | ({"GET", "HEAD"} if path != "/api/predict" else set()) | (
        {"POST"} if path.endswith("predict") else set()
    )
    for method in ("TRACE", "PUT", "DELETE", "PATCH", "FOO", *({"POST", "GET"} - allowed)):
        answer = client.open(path, method=method)
        assert answer.status_code == 405
        assert set(answer.headers["Allow"].replace(" ", "").split(",")) == allowed
    if "GET" in allowed:
        head, get = client.head(path), client.get(path)
        assert (head.status_code, head.data) == (get.status_code, b"")
        assert head.headers["Content-Length"] == get.headers["Content-Length"]
        head.close()
        get.close()
    assert not any(name.startswith("Access-Control") for name, _ in rules.headers)


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/predict/",
        "/model/chest_xray_densenet_model.h5",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static/",
        "/samples/..%2f..%2fapp.py",
        "/.git/config",
        "/%00",
        "/app.py",
        "/images/00000001_000.png",
    ],
)
def test_H10_unknown_addresses_are_404_in_the_same_design(client, path):
    page = client.get(path)
    assert page.status_code == 404
    assert ERRORS["not_found"].title in text_of(page)
    assert "style.css" in page.text
    assert "import" not in page.text


def test_H11_the_result_has_no_address_and_is_not_kept(client):
    assert 'name="file"' in client.get("/predict").text
    assert upload(client, png()).headers["Cache-Control"] == "no-store"


def test_H12_headers_are_on_every_response(client):
    responses = [client.get(path) for path in (*PAGES, "/x", "/static/style.css", "/static/style.css?v=1")]
    responses += [upload(client, png()), upload(client, b""), client.put("/"), client.open("/", method="OPTIONS")]
    responses += [client.get("/", headers={"Host": "evil.example"}), upload(site_in_state("loading"), png())]
    assert {response.status_code for response in responses} == {200, 400, 404, 405, 422, 503}
    for response in responses:
        for name, value in HEADERS.items():
            assert response.headers[name] == value
        assert "unsafe" not in response.headers["Content-Security-Policy"]
        assert not {"Set-Cookie", "Server", "Access-Control-Allow-Origin"} & {name for name, _ in response.headers}
        if response.content_type.startswith("text/html"):
            assert response.content_type == "text/html; charset=utf-8"
        static = response.request.path.startswith("/static/")
        expected = "no-store"
        if static:
            expected = "public, max-age=31536000, immutable" if response.request.query_string else "no-cache"
        assert response.headers["Cache-Control"] == expected
        response.close()


@pytest.mark.parametrize("state", ["loading", "missing", "refused"])
def test_H13_503_says_when_to_come_back(state):
    client = site_in_state(state)
    page = upload(client, png())
    assert page.status_code == 503
    assert int(page.headers["Retry-After"]) > 0
    assert ERRORS[f"model_{state}"].title in text_of(page)
    assert client.get("/").status_code == 200
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503


def test_H13_a_full_house_is_503_before_the_body_is_looked_at(client, monkeypatch):
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


class Broken(RuntimeError):
    """A fault that nobody foresaw."""


def broken(*_arguments, **_more):
    raise Broken("MUSTERMANN /srv/secret")


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("cxr.site.service.build_answer", "answer"),
        ("cxr.site.service.draw_pictures", "draw"),
        ("cxr.inference.explanation.to_model_input", "preprocess"),
        ("quick_site.StandIn.predict", "model"),
        ("cxr.site.decoding_pool.Decoder.decode", "decode"),
        ("app.render_template", "render"),
    ],
)
def test_H19_a_fault_in_any_stage_is_a_page_without_details(client, monkeypatch, caplog, place, name):
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


def test_H19_failing_heatmaps_alone_leave_the_probabilities(client, monkeypatch, caplog):
    expected = answers_of(upload(client, png()))[0]
    monkeypatch.setattr("cxr.inference.explanation.heatmaps", broken)
    page = upload(client, png())
    assert page.status_code == 200
    (answer,) = answers_of(page)
    for one, whole in zip(answer["findings"], expected["findings"], strict=True):
        assert one["probability"] == whole["probability"]
        assert (one["heatmap"], one["peak"]) == (None, None)
    assert NO_HEATMAPS in answer["notices"]
    assert NO_HEATMAPS in text_of(page)
    assert "Broken" in caplog.text


def test_H19_numbers_that_are_not_finite_are_never_shown(client, monkeypatch):
    whole = StandIn().predict(np.zeros((1, 64, 64, 1), np.uint8))
    for spoilt in range(4):
        outputs = Prediction(*(part.copy() for part in whole))
        outputs[spoilt].flat[0] = np.nan
        monkeypatch.setattr(StandIn, "predict", lambda self, inputs, outputs=outputs: outputs)
        assert upload(client, png()).status_code == 500
        assert upload(client, png(), path="/api/predict").status_code == 500


def test_H20_the_debug_variable_has_no_effect(monkeypatch):
    monkeypatch.setenv("FLASK_DEBUG", "1")
    client = quick_client()
    assert client.application.debug is False
    monkeypatch.setattr(StandIn, "predict", broken)
    page = upload(client, png())
    assert page.status_code == 500
    assert "Traceback" not in page.text


def test_M01_without_a_model_file_the_site_starts_and_says_how_to_make_one(tmp_path):
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


@pytest.mark.parametrize("content", [b"", b"text", b"<html>", b"version https://git-lfs.github.com/spec/v1\n", None])
def test_M02_what_is_no_hdf5_file_is_refused(tmp_path, content, caplog):
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


def test_M09_a_running_site_keeps_its_model(tmp_path):
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


def test_M10_a_model_file_that_may_not_be_read_is_refused_with_the_reason(tmp_path, monkeypatch, caplog):
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


def test_M11_an_old_keras_is_refused_with_the_version_that_is_needed(tmp_path, monkeypatch, caplog):
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


def test_pages_need_neither_inline_code_nor_another_host(client):
    for page in (*map(client.get, ("/", "/model", "/api", "/x")), upload(client, png()), upload(client, png(), png(1))):
        code = re.sub(r'<script type="application/json"[^>]*>', "", page.text)
        assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=|javascript:", code)
        assert not re.search(r'(src|href|action)="(https?:)?//', page.text)


def test_nothing_of_an_upload_is_written_named_or_logged(client, monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise AssertionError("a temporary file was asked for")

    def files():
        skipped = {"__pycache__", ".git", ".pytest_cache", ".ruff_cache"}
        return sorted(path for path in ROOT.rglob("*") if not skipped & set(path.parts))

    for name in ("tempfile.TemporaryFile", "tempfile._get_candidate_names", "tempfile.SpooledTemporaryFile.rollover"):
        monkeypatch.setattr(name, fail)
    before, data = files(), noisy_png()
    assert len(data) > 1_000_000
    page = upload(client, ("MUSTERMANN^ERIKA.png", data))
    assert page.status_code == 200
    assert files() == before
    assert "MUSTERMANN" not in caplog.text


def test_the_log_has_one_line_per_request_with_sizes_types_and_times(client, caplog):
    import json

    caplog.set_level("INFO", logger="cxr.requests")
    page = upload(client, ("a.png", png()), ("b.png", b"no picture"))
    (line,) = [record.getMessage() for record in caplog.records if record.name == "cxr.requests"]
    found = json.loads(line)
    assert (found["id"], found["route"], found["status"]) == (page.headers["X-Request-Id"], "/predict", 200)
    good, bad = found["files"]
    assert (good["type"], good["dims"], good["num_bytes"]) == ("png", [100, 120], len(png()))
    assert set(good["ms"]) == {"decode", "model", "draw"}
    assert (bad["code"], bad["num_bytes"]) == ("type", 10)
    caplog.clear()
    client.get("/MUSTERMANN/x")
    assert "MUSTERMANN" not in caplog.text


def test_parallel_visitors_get_their_own_pictures(client):
    application = client.application
    expected = [expected_probabilities(decode_radiograph(png(seed))) for seed in range(8)]

    def visit(seed):
        page = upload(application.test_client(), png(seed), path="/api/predict")
        return [one["probability"] for one in page.json["results"][0]["findings"]]

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(visit, [*range(8)] * 5))
    np.testing.assert_allclose(found, expected * 5, atol=1e-5)


def test_static_addresses_carry_a_version_of_the_content(client):
    addresses = re.findall(r"/static/[\w.]+\?v=\w+", client.get("/").text)
    assert addresses
    for address in addresses:
        response = client.get(address)
        assert response.status_code == 200
        response.close()


def test_findings_of_the_stand_in_are_spoken_without_underscore(client):
    assert "Pleural_Thickening" in FINDINGS
    assert "Pleural Thickening" in text_of(upload(client, png()))


def test_script_refuses_a_taken_port():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert site.main(["--port", str(taken.getsockname()[1])]) == 3


def test_create_app_alone_makes_a_site_of_the_shipped_model(monkeypatch):
    started = []
    monkeypatch.setattr(ModelSlot, "load_in_background", lambda self: started.append(self.state))
    monkeypatch.setattr(site, "Decoder", shared_decoder)
    assert site.create_app().test_client().get("/readyz").json["code"] == "model_loading"
    assert started == ["loading"]
    assert ready_slot().state == "ready"
