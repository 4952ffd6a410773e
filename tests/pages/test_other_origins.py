"""Pages of other origins, in a real browser: who may use the interface for programs, and that nobody sends forms."""

import threading
from contextlib import contextmanager

import pytest
from browser import radiograph_file, running_site
from site_tools import quick_client
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from cxr.site.arguments import parse_args
from cxr.site.limits import page_origin
from cxr.site.model_slot import ModelSlot

ALLOWED, OTHER = "https://app.example", "https://other.example"
# Sends a picture given as numbers, with a progress listener, for which browsers ask first (preflight).
SEND = """async ([address, picture, path]) => {
    const form = new FormData();
    form.append("file", new Blob([new Uint8Array(picture)]), "a.png");
    const request = new XMLHttpRequest();
    request.upload.onprogress = () => {};
    return await new Promise(resolve => {
        const number = () => request.getResponseHeader("X-Request-Id");
        request.onload = () => resolve([request.status, request.responseText, number()]);
        request.onerror = () => resolve([0, "", null]);
        request.open("POST", address + path);
        request.send(form);
    });
}"""
FETCH = "([address, options]) => fetch(address, options).then(one => one.status, () => 0)"


@contextmanager
def other_site():
    """Serve an empty page: yields its port."""
    server = make_server("127.0.0.1", 0, Response("<title>Another site</title>", mimetype="text/html"))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.fault("H82")
def test_in_a_browser_the_allowed_origin_is_answered_and_no_other(browser, predictor):
    slot = ModelSlot(__file__, load=lambda path, precision: predictor)
    slot.load()
    picture = list(radiograph_file(1))
    with other_site() as port:
        allowed = f"http://app.example:{port}"
        with running_site(slot, allowed_origins=[allowed]) as address:
            page = browser.new_page()
            page.goto(allowed)
            status, text, number = page.evaluate(SEND, [address, picture, "/api/predict"])
            assert (status, len(number)) == (200, 12)
            assert '"findings"' in text
            status, text, _ = page.evaluate(SEND, [address, [1, 2, 3], "/api/predict"])
            assert status == 415  # errors can be read as well
            assert '"code": "type"' in text
            assert page.evaluate(FETCH, [address + "/api/model", {}]) == 200
            assert page.evaluate(FETCH, [address + "/api/model", {"credentials": "include"}]) == 0
            assert page.evaluate(SEND, [address, picture, "/predict"])[0] == 0  # the form is not theirs
            page.goto(f"http://evil.example:{port}")
            assert page.evaluate(SEND, [address, picture, "/api/predict"])[0] == 0
            assert page.evaluate(FETCH, [address + "/api/model", {}]) == 0
            page.close()


@pytest.mark.fault("H82")
def test_without_the_flag_no_answer_says_anything_of_origins():
    client = quick_client()
    for method, path in (("GET", "/api/model"), ("OPTIONS", "/api/predict"), ("POST", "/api/predict")):
        answer = client.open(path, method=method, headers={"Origin": ALLOWED})
        assert not [name for name in answer.headers.keys() if name.startswith("Access-Control") or name == "Vary"]  # noqa: SIM118
    assert answer.status_code == 403


@pytest.mark.fault("H82")
def test_the_flag_opens_the_interface_for_programs_to_one_origin_and_nothing_else():
    client = quick_client(allowed_origins=[ALLOWED])

    def ask(method, path, origin):
        headers = {"Sec-Fetch-Site": "cross-site"} | ({"Origin": origin} if origin else {})
        return client.open(path, method=method, headers=headers)

    preflight = ask("OPTIONS", "/api/predict", ALLOWED)
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == ALLOWED
    assert preflight.headers["Access-Control-Allow-Methods"] == "GET, POST"
    assert ask("POST", "/api/predict", ALLOWED).json["code"] == "no_file"
    assert ask("POST", "/predict", ALLOWED).status_code == 403
    for path in ("/", "/predict", "/healthz", "/static/style.css", "/samples/00000011_001.png", "/api"):
        with ask("GET", path, ALLOWED) as answer:
            assert "Access-Control-Allow-Origin" not in answer.headers, path
    for origin in (OTHER, "http://app.example", "https://app.example:8443", "https://app.example.", "null", "*", None,
                   "https://sub.app.example", "https://app.example.evil.example", "https://APP.example"):  # fmt: skip
        for method in ("GET", "OPTIONS", "POST"):
            answer = ask(method, "/api/predict", origin)
            assert "Access-Control-Allow-Origin" not in answer.headers, origin
            assert answer.headers["Vary"] == "Origin"
        assert answer.status_code == 403
    for answer in (preflight, ask("GET", "/api/model", ALLOWED)):
        assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://App.Example", "https://app.example"),
        ("https://app.example/", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("http://app.example:443", "http://app.example:443"),
        ("http://[0:0::1]:3000", "http://[::1]:3000"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
    ],
)
def test_an_origin_is_written_as_browsers_write_it(text, expected):
    assert page_origin(text) == expected


@pytest.mark.fault("H82")
@pytest.mark.parametrize(
    "text",
    ["*", "null", "", "app.example", "https://*.example", "https://app.example/path", "https://a@app.example", "file://",
     "ftp://app.example", "https://app.example:0", "https://app.example:70000", "https://app.example?x", "https://a.example."],
)  # fmt: skip
def test_what_is_no_origin_is_refused_at_the_start_in_one_line(capsys, text):
    with pytest.raises(SystemExit, match="2"):
        parse_args(["--allow-origin", text])
    assert "--allow-origin: Expected an origin such as" in capsys.readouterr().err
