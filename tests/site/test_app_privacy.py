"""Nothing of an upload is stored, logged or mixed up with another's."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from quick_site import expected_probabilities
from site_tools import (
    ROOT,
    noisy_png,
    png,
    quick_client,
    text_of,
    upload,
)

from cxr.imaging.radiograph import decode_radiograph


@pytest.fixture
def client():
    return quick_client()


@pytest.mark.fault("H06")
def test_a_hostile_file_name_is_shown_escaped_and_never_logged(client, caplog):
    caplog.set_level("DEBUG")
    page = upload(client, ("MUSTERMANN <img src=x onerror=alert(1)>.png", png()))
    assert page.status_code == 200
    assert "<img src=x" not in page.text
    assert "MUSTERMANN <img src=x onerror=alert(1)>.png" in text_of(page)  # after unescaping
    assert "MUSTERMANN" not in str(page.headers) + caplog.text


@pytest.mark.fault("H11")
def test_the_result_has_no_address_and_is_not_kept(client):
    assert 'name="file"' in client.get("/predict").text
    assert upload(client, png()).headers["Cache-Control"] == "no-store"


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
