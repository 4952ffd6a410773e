"""The site through Flask's client: what a visitor sees, and what no visitor may get."""

import base64
import html
import io
import re
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from served_model import FINDINGS, served_model, served_predictor

import app as site
import gradcam
from cxr.images import decode_radiograph
from cxr.overlay import overlay_heatmap

ROOT = Path(__file__).parents[1]


def png(seed=0, shape=(120, 100)):
    small = np.random.default_rng(seed).integers(0, 256, (6, 5), dtype=np.uint8)
    return gradcam.encode_png(cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC))


@pytest.fixture
def client(monkeypatch):
    monkeypatch.setattr(site, "Predictor", lambda path, precision: served_predictor())
    return site.create_app(served_model().path).test_client()


@pytest.fixture
def client_without_model(tmp_path):
    return site.create_app(tmp_path / "none.h5").test_client()


def upload(client, data, name="x.png"):
    """Post one file as a browser does; Flask's client itself would put large ones into temporary files."""
    head = f'--border\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    body = head.encode() + data + b"\r\n--border--\r\n"
    return client.post("/predict", data=body, content_type="multipart/form-data; boundary=border")


def text_of(response):
    """Return the words on a page, without tags and with single blanks."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", response.text)).split())


def pictures_of(response):
    """Decode the viewer's pictures in page order: {alt: uint8 RGB}."""
    found = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"[^>]*alt="([^"]+)"', response.text, re.S)
    return {alt: cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), 1)[:, :, ::-1] for data, alt in found}


def test_index_has_the_form_the_findings_and_the_disclaimer(client):
    page = client.get("/")
    assert page.status_code == 200
    assert 'action="/predict" method="post" enctype="multipart/form-data"' in page.text
    assert 'name="file" type="file" required' in page.text
    for words in ("Pleural Thickening", "Hernia", "not intended for clinical use", "never stored"):
        assert words.lower() in text_of(page).lower()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_result_shows_the_models_own_numbers_in_order(client, seed):
    answer = gradcam.explain(served_predictor(), decode_radiograph(png(seed)))
    page = upload(client, png(seed))
    assert page.status_code == 200
    names = re.findall(r'<th scope="row">([^<]+)</th>', page.text)
    shown = [float(number) for number in re.findall(r'<td class="number">([\d.]+)</td>', page.text)]
    rules = re.findall(r'<td class="rule">(\w+) 0.50</td>', page.text)
    order = np.argsort(-answer.probabilities)
    assert names == [FINDINGS[k].replace("_", " ") for k in order]
    np.testing.assert_allclose(shown, answer.probabilities[order], atol=0.00501)
    assert rules == ["above" if answer.probabilities[k] >= 0.5 else "below" for k in order]
    assert "This is no diagnosis" in text_of(page)


def test_result_shows_the_overlays_of_the_top_three(client):
    data = png(3, (150, 230))
    radiograph = decode_radiograph(data)
    answer = gradcam.explain(served_predictor(), radiograph)
    page = upload(client, data)
    pictures = pictures_of(page)
    for k in np.argsort(-answer.probabilities)[:3]:
        finding = FINDINGS[k].replace("_", " ")
        if answer.heatmaps[k].any():
            shown = pictures[f"The radiograph with a heatmap of where the model found evidence for {finding}"]
            difference = np.abs(shown.astype(int) - overlay_heatmap(radiograph, answer.heatmaps[k])).mean()
            assert difference < 4  # JPEG
            assert gradcam.describe_heatmap(answer.heatmaps[k], answer.logits[k]) in text_of(page)
        else:
            assert f"{finding}: no positive evidence" in text_of(page)
    plain = pictures["The radiograph"]
    assert np.abs(plain.astype(int) - radiograph[:, :, np.newaxis]).mean() < 2


def test_result_shrinks_large_pictures_for_the_page_only(client):
    data = png(4, (2000, 1500))
    assert pictures_of(upload(client, data))["The radiograph"].shape == (1024, 768, 3)


def test_result_says_what_is_unusual(client, monkeypatch):
    small_number_of_levels = np.kron(np.array([[0, 255], [255, 0]], np.uint8), np.ones((50, 50), np.uint8))
    assert "grey levels" in text_of(upload(client, gradcam.encode_png(small_number_of_levels)))
    plain_explain = gradcam.explain

    def unusual(predictor, radiograph):
        answer = plain_explain(predictor, radiograph)
        return gradcam.Explanation(answer.probabilities, answer.logits, answer.heatmaps, 99.5)

    assert "unlike the radiographs" not in text_of(upload(client, png()))
    monkeypatch.setattr(site, "explain", unusual)
    assert "unlike the radiographs" in text_of(upload(client, png()))


def test_result_without_any_evidence_or_finding_says_both(client, monkeypatch):
    nothing = gradcam.Explanation(
        np.full(14, 0.1, np.float32), np.full(14, -2.2, np.float32), np.zeros((14, 3, 3), np.float32), None
    )
    monkeypatch.setattr(site, "explain", lambda predictor, radiograph: nothing)
    page = upload(client, png())
    assert "No finding reaches the threshold That does not mean that the radiograph is normal" in text_of(page)
    assert text_of(page).count("no positive evidence") == 3


def test_probability_beside_the_threshold_gets_a_third_digit(client, monkeypatch):
    close = gradcam.Explanation(
        np.array([0.4991, 0.5009] + [0.1] * 12, np.float32), np.zeros(14), np.zeros((14, 3, 3), np.float32), None
    )
    monkeypatch.setattr(site, "explain", lambda predictor, radiograph: close)
    words = text_of(upload(client, png()))
    assert "Cardiomegaly 0.501 above 0.50" in words
    assert "Atelectasis 0.499 below 0.50" in words


ANIMATED = b"GIF89a" + bytes(100)


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        ({}, 400, "choose one PNG, JPEG or DICOM"),
        ({"picture": (io.BytesIO(b"x"), "x.png")}, 400, "choose one PNG"),
        ({"file": "text and no file"}, 400, "choose one PNG"),
        ({"file": (io.BytesIO(b"x"), "")}, 400, "choose one PNG"),
        ({"file": [(io.BytesIO(b"1"), "1.png"), (io.BytesIO(b"2"), "2.png")]}, 400, "choose one PNG"),
        ({f"part{number}": "x" for number in range(40)}, 413, "too large"),
        ({"file": (io.BytesIO(b""), "x.png")}, 422, "file is empty"),
        ({"file": (io.BytesIO(b"<script>alert(1)</script>"), "x.png")}, 415, "not a PNG, JPEG or DICOM"),
        ({"file": (io.BytesIO(ANIMATED), "x.gif")}, 415, "not a PNG, JPEG or DICOM"),
        ({"file": (io.BytesIO(png()[:200]), "x.png")}, 422, "cannot be used"),
        ({"file": (io.BytesIO(png(0, (70, 700))), "x.png")}, 422, "longer side"),
        ({"file": (io.BytesIO(png(0, (20, 20))), "x.png")}, 422, "each side must have at least"),
        ({"file": (io.BytesIO(gradcam.encode_png(np.full((90, 90), 7, np.uint8))), "x.png")}, 422, "blank"),
    ],
    ids=[
        "no field",
        "another field",
        "text field",
        "no file name",
        "two files",
        "many parts",
        "empty",
        "html",
        "gif",
        "cut short",
        "long and thin",
        "tiny",
        "blank",
    ],
)
def test_bad_uploads_get_a_page_that_says_what_to_do(client, data, status, words):
    page = client.post("/predict", data=data, content_type="multipart/form-data")
    assert page.status_code == status
    assert words.lower() in text_of(page).lower()
    assert "Back to the start page" in text_of(page)
    assert page.content_type == "text/html; charset=utf-8"
    assert "script" not in page.text


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/nothing", {}, 404),
        ("GET", "/static/../app.py", {}, 404),
        ("GET", "/model/chest_xray_densenet_model.h5", {}, 404),
        ("GET", "/predict", {}, 405),
        ("PUT", "/predict", {}, 405),
        ("DELETE", "/", {}, 405),
        ("POST", "/predict", {"json": {"file": "x"}}, 400),
        ("POST", "/predict", {"data": b"x", "content_type": "multipart/form-data"}, 400),
        ("POST", "/predict", {"data": b"--a\r\n", "content_type": "multipart/form-data; boundary=a"}, 400),
        ("POST", "/predict", {"data": b"x" * (32 * 2**20 + 1), "content_type": "multipart/form-data; boundary=a"}, 413),
        ("POST", "/predict", {"headers": {"Sec-Fetch-Site": "cross-site"}}, 403),
    ],
)
def test_bad_requests_get_a_page_in_the_same_design(client, method, path, options, status):
    page = client.open(path, method=method, **options)
    assert page.status_code == status
    assert f"Error {status}" in text_of(page)
    assert "style.css" in page.text
    if status == 405:
        assert page.headers["Allow"]


def test_an_upload_at_the_limit_is_read(client):
    body = b"--a\r\nContent-Disposition: form-data; name=file; filename=x.png\r\n\r\n"
    body += b"\x00" * (32 * 2**20 - len(body) - len(b"\r\n--a--\r\n")) + b"\r\n--a--\r\n"
    assert len(body) == 32 * 2**20
    page = client.post("/predict", data=body, content_type="multipart/form-data; boundary=a")
    assert page.status_code == 415  # it was read, and is not a picture


def test_a_fault_of_the_site_is_a_page_without_details(client, monkeypatch):
    def fault(predictor, radiograph):
        raise RuntimeError("secret path /srv/x")

    monkeypatch.setattr(site, "explain", fault)
    client.application.config["PROPAGATE_EXCEPTIONS"] = False
    page = upload(client, png())
    assert page.status_code == 500
    assert "Something went wrong here" in text_of(page)
    assert "secret" not in page.text
    monkeypatch.undo()


def test_without_a_model_the_site_says_how_to_train_one(client_without_model):
    page = client_without_model.get("/")
    assert page.status_code == 200
    assert "python main_train.py" in text_of(page)
    assert "<form" not in page.text
    answer = upload(client_without_model, png())
    assert answer.status_code == 503
    assert "python main_train.py" in text_of(answer)


def test_a_damaged_model_file_is_refused_and_its_path_is_not_shown(tmp_path):
    path = tmp_path / "damaged.h5"
    path.write_bytes(served_model().path.read_bytes()[:100_000])
    page = site.create_app(path).test_client().get("/")
    assert "found but refused" in text_of(page)
    assert str(tmp_path) not in page.text


def test_headers_are_on_every_response(client):
    responses = [client.get(path) for path in ("/", "/static/style.css", "/x")]
    responses += [upload(client, png()), upload(client, b"")]
    responses[1].close()
    assert [response.status_code for response in responses] == [200, 200, 404, 200, 422]
    for response in responses:
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert not any(name.startswith("Access-Control") for name in response.headers.keys())  # noqa: SIM118
        assert "Set-Cookie" not in response.headers
    assert [response.headers["Cache-Control"] == "no-store" for response in responses] == [
        True,
        False,
        True,
        True,
        True,
    ]


def test_pages_need_neither_inline_code_nor_another_host(client):
    for page in (client.get("/"), upload(client, png()), client.get("/x")):
        assert not re.search(r"<script|<style|\sstyle=|\son\w+=|javascript:|https?://", page.text)


def test_hosts_other_than_the_trusted_are_refused(monkeypatch):
    monkeypatch.setattr(site, "Predictor", lambda path, precision: served_predictor())
    client = site.create_app(served_model().path, trusted_hosts=["127.0.0.1", "localhost"]).test_client()
    assert client.get("/", headers={"Host": "localhost:5000"}).status_code == 200
    refused = client.get("/", headers={"Host": "evil.example"})
    assert refused.status_code == 400
    assert "Error 400" in text_of(refused)


def test_nothing_of_an_upload_is_written_named_or_logged(client, tmp_path, monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise AssertionError("a temporary file was asked for")

    for name in ("tempfile.TemporaryFile", "tempfile._get_candidate_names", "tempfile.SpooledTemporaryFile.rollover"):
        monkeypatch.setattr(name, fail)
    before = sorted(path for path in ROOT.rglob("*") if "__pycache__" not in path.parts and ".git" not in path.parts)
    data = gradcam.encode_png(np.random.default_rng(0).integers(0, 256, (1500, 1500), dtype=np.uint8))
    assert len(data) > 1_000_000
    page = upload(client, data, name="MUSTERMANN^ERIKA <img src=x>.png")
    assert page.status_code == 200
    after = sorted(path for path in ROOT.rglob("*") if "__pycache__" not in path.parts and ".git" not in path.parts)
    assert after == before
    assert "MUSTERMANN" not in page.text
    assert "MUSTERMANN" not in caplog.text


def test_parallel_visitors_get_their_own_pictures(client):
    pictures = [png(seed) for seed in range(8)]
    application = client.application

    def visit(data):
        return upload(application.test_client(), data).text

    alone = [visit(data) for data in pictures]
    assert len(set(alone)) == 8
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(visit, pictures * 3))
    numbers = re.compile(r'<td class="number">[\d.]+</td>|The radiograph"|base64,[^"]{200}')
    assert [numbers.findall(page) for page in together] == [numbers.findall(page) for page in alone * 3]


def test_script_serves_a_page_and_a_second_one_refuses_the_port(tmp_path, capsys):
    model = ["--model-path", str(tmp_path / "none.h5")]
    command = [sys.executable, ROOT / "app.py", *model, "--port", "0"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            address = server.stdout.readline().split()[-1]
            with urllib.request.urlopen(address, timeout=30) as page:  # noqa: S310 - our own address
                assert page.status == 200
                assert "Server" not in page.headers
                assert b"python main_train.py" in page.read()
            port = address.rsplit(":", 1)[1]
            assert site.main([*model, "--port", port]) == 3
        finally:
            server.terminate()
    assert f"Cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
