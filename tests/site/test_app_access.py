"""Who may ask what: hosts, other sites, methods, addresses, security headers."""

import re

import pytest
from quick_site import StandIn, ready_slot
from site_tools import (
    broken,
    png,
    quick_client,
    shared_decoder,
    site_in_state,
    text_of,
    upload,
)

import app as site
from cxr.site.errors import ERRORS
from cxr.site.middleware import HEADERS
from cxr.site.model_slot import ModelSlot


@pytest.fixture
def client():
    return quick_client()


PAGES = ("/", "/predict", "/model", "/api", "/api/model", "/api/openapi.json", "/healthz", "/readyz")


@pytest.mark.fault("H07")
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
def test_wrong_host_is_refused(client, headers, status, monkeypatch):
    if status == 400:
        monkeypatch.setitem(client.application.view_functions, "index", broken)  # no view may be reached
    page = client.get("/", headers=headers)
    assert page.status_code == status
    assert (ERRORS["wrong_host"].title in text_of(page)) == (status == 400)
    assert "evil" not in page.text


@pytest.mark.fault("H08")
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
def test_posts_from_other_sites_are_refused(client, headers, status, path):
    assert upload(client, png(), path=path, headers=headers).status_code == status


@pytest.mark.fault("H09")
@pytest.mark.parametrize("path", [*PAGES, "/api/predict", "/samples/00000011_001.png", "/static/style.css"])
def test_methods(client, path):
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


@pytest.mark.fault("H10")
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
def test_unknown_addresses_are_404_in_the_same_design(client, path):
    page = client.get(path)
    assert page.status_code == 404
    assert ERRORS["not_found"].title in text_of(page)
    assert "style.css" in page.text
    assert "import" not in page.text


@pytest.mark.fault("H12")
def test_headers_are_on_every_response(client):
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


@pytest.mark.fault("H20")
def test_the_debug_variable_has_no_effect(monkeypatch):
    monkeypatch.setenv("FLASK_DEBUG", "1")
    client = quick_client()
    assert client.application.debug is False
    monkeypatch.setattr(StandIn, "predict", broken)
    page = upload(client, png())
    assert page.status_code == 500
    assert "Traceback" not in page.text


def test_pages_need_neither_inline_code_nor_another_host(client):
    for page in (*map(client.get, ("/", "/model", "/api", "/x")), upload(client, png()), upload(client, png(), png(1))):
        code = re.sub(r'<script type="application/json"[^>]*>', "", page.text)
        assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=|javascript:", code)
        assert not re.search(r'(src|href|action)="(https?:)?//', page.text)


def test_static_addresses_carry_a_version_of_the_content(client):
    addresses = re.findall(r"/static/[\w.]+\?v=\w+", client.get("/").text)
    assert addresses
    for address in addresses:
        response = client.get(address)
        assert response.status_code == 200
        response.close()


def test_script_refuses_a_taken_port():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert site.main(["--port", str(taken.getsockname()[1])]) == 3


@pytest.mark.parametrize("port", ["-1", "65536", "http", "\N{SUPERSCRIPT TWO}", "8_0"])
def test_script_refuses_what_is_no_port(port, capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        site.main([f"--port={port}"])
    assert f"argument --port: Expected a number from 0 to 65535, received {port!r}." in capsys.readouterr().err


def test_create_app_alone_makes_a_site_of_the_shipped_model(monkeypatch):
    started = []
    monkeypatch.setattr(ModelSlot, "load_in_background", lambda self: started.append(self.state))
    monkeypatch.setattr(site, "Decoder", lambda **_options: shared_decoder())
    assert site.create_app().test_client().get("/readyz").json["code"] == "model_loading"
    assert started == ["loading"]
    assert ready_slot().state == "ready"


@pytest.mark.fault("H08")
@pytest.mark.parametrize("path", ["/predict", "/api/predict"])
def test_mutation_a_site_that_takes_posts_from_everywhere_is_noticed(monkeypatch, path):
    monkeypatch.setattr(site, "sent_by_another_site", lambda *_: False)
    with pytest.raises(AssertionError):
        test_posts_from_other_sites_are_refused(quick_client(), {"Sec-Fetch-Site": "cross-site"}, 403, path)
