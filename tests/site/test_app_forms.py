"""The site through Flask's client: what a visitor sees, and what no visitor may get."""

import re

import numpy as np
import pytest
from quick_site import FINDINGS, expected_probabilities
from served_model import served_predictor
from site_tools import (
    FORM,
    ROOT,
    answers_of,
    form,
    png,
    quick_client,
    shared_decoder,
    text_of,
    upload,
)

import app as site
import gradcam
from cxr.imaging.radiograph import decode_radiograph
from cxr.site.errors import ERRORS, MAX_FILES, MAX_REQUEST_BYTES
from cxr.site.model_slot import ModelSlot


@pytest.fixture
def client():
    return quick_client()


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


@pytest.mark.fault("H01")
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
def test_a_form_without_a_file_comes_back_with_a_message(client, data):
    data = {name: value() if callable(value) else value for name, value in data.items()}
    page = client.post("/predict", data=data, content_type="multipart/form-data")
    assert page.status_code == 400
    assert ERRORS["no_file"].title in text_of(page)
    assert re.search(r'<input[^>]*name="file"[^>]*autofocus', page.text)


@pytest.mark.fault("H02")
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
def test_what_is_no_whole_form_is_400(client, path, request_of):
    assert client.post(path, **request_of).status_code == 400


@pytest.mark.fault("H03")
@pytest.mark.parametrize(("excess", "status"), [(-1, 415), (0, 415), (1, 413)])
def test_a_body_up_to_the_limit_is_read(client, excess, status):
    empty = form(("x.png", b""))
    body = form(("x.png", bytes(MAX_REQUEST_BYTES + excess - len(empty))))
    assert len(body) == MAX_REQUEST_BYTES + excess
    as_servers_do = {"wsgi.input_terminated": True}
    page = client.post("/predict", data=body, content_type=FORM, environ_overrides=as_servers_do)
    assert page.status_code == status
    assert ERRORS["type" if status == 415 else "request_too_large"].title in text_of(page)


@pytest.mark.fault("H04")
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
def test_oversized_forms(client, body, status):
    assert client.post("/predict", data=body, content_type=FORM).status_code == status


@pytest.mark.fault("H05")
def test_each_of_several_files_has_its_own_result_or_error(client):
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


def raw_form(*heads, data=None):
    """Write a form whose parts have these heads, as bytes, and picture after picture as content."""
    parts = (b"--border\r\n" + head + b"\r\n\r\n" + (data or png(seed)) + b"\r\n" for seed, head in enumerate(heads))
    return b"".join(parts) + b"--border--\r\n"


def disposition(filename):
    return b'Content-Disposition: form-data; name="file"; filename="' + filename + b'"'


@pytest.mark.fault("H83")
@pytest.mark.parametrize(
    ("filename", "shown"),
    [
        ("prüfung.png".encode("latin-1"), "prüfung.png"),
        ("prüfung.png".encode(), "prüfung.png"),
        ("Thorax\u20131.png".encode("cp1252"), "Thorax1.png"),  # a control character in Latin-1
        ("胸部.png".encode("shift_jis"), "¹.png"),
        (b"\xff\xfe\x80\xc3(.png", "ÿþÃ(.png"),
    ],
    ids=["Latin-1", "UTF-8", "Windows-1252", "Shift JIS", "no encoding"],
)
@pytest.mark.parametrize("path", ["/predict", "/api/predict"])
def test_a_name_in_any_encoding_loses_no_file(client, path, filename, shown):
    body = raw_form(disposition(b"a.png"), disposition(filename), disposition(b"c.png"))
    answer = client.post(path, data=body, content_type=FORM)
    assert answer.status_code == 200
    answers = answer.json["results"] if path == "/api/predict" else answers_of(answer)
    assert [one["file"] for one in answers] == ["a.png", shown, "c.png"]
    for seed, one in enumerate(answers):
        expected = expected_probabilities(decode_radiograph(png(seed)))
        np.testing.assert_allclose([finding["probability"] for finding in one["findings"]], expected, atol=1e-5)


@pytest.mark.fault("H83")
@pytest.mark.parametrize(
    "head",
    [
        b"Content-Type: image/png",
        b"\xff\xfe",
        b"Content-Disposition",
        b"Content-Disposition: \xe4",
        b'Content-Disposition: form-data; filename="x.png"',
        b'Content-Disposition: form-data; name="\xe4"; filename="x.png"',
        b"Content-Disposition: form-data; name=file; filename*=klingon''%e4%ff.png",
        b"Content-Disposition: form-data; name=file; filename*=utf-8''%ff%fe.png",
        b"Content-Disposition: form-data; name=file; filename*0=a; filename*9=b; filename*x=c",
        b'Content-Disposition: form-data; name="file"; filename="a"b"c\\".png',
        b'Content-Disposition: form-data; name="file"; filename="x.png"\r\nContent-Type: image/png; charset=\xe4\x00',
        b'Content-Disposition: form-data; name="file"; filename="x.png"\r\nContent-Transfer-Encoding: base64',
        b'Content-Disposition: form-data; name="file"; filename="x.png"\r\nContent-Length: ' + b"9" * 5000,
        b'Content-Disposition: form-data; name="file"; filename="x.png"\r\n \xe4folded: x',
        b"Content-Disposition: form-data; name=file; filename=" + b"\xe4" * 60_000,
    ],
)
def test_an_odd_head_of_a_part_is_answered_or_refused_with_its_reason(client, head):
    answer = client.post("/api/predict", data=raw_form(disposition(b"a.png"), head), content_type=FORM)
    if answer.status_code == 400:
        assert answer.json["code"] == "bad_request"
        assert "The form cannot be read" in answer.json["detail"]
    else:
        assert answer.status_code == 200
        assert answer.json["results"][0]["file"] == "a.png"


@pytest.mark.fault("H06")
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
def test_file_names_are_cleaned(name, shown):
    assert site.clean_name(name) == shown


def test_findings_of_the_stand_in_are_spoken_without_underscore(client):
    assert "Pleural_Thickening" in FINDINGS
    assert "Pleural Thickening" in text_of(upload(client, png()))


@pytest.mark.fault("H05")
def test_mutation_a_site_that_answers_the_first_file_only_is_noticed(monkeypatch):
    real = site._uploads
    monkeypatch.setattr(site, "_uploads", lambda: real()[:1])
    with pytest.raises((AssertionError, ValueError)):
        test_each_of_several_files_has_its_own_result_or_error(quick_client())
