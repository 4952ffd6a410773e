"""The table of published models, and fetching one from a hub that is played by a local server."""

import dataclasses
import hashlib
import threading

import pytest
from fake_hub import COMMIT, running_hub

from cxr.network import known_models
from cxr.network.known_models import KNOWN_MODELS, PublishedModel, fetch
from cxr.network.model_info import ModelFileError

CONTENT = bytes(range(256)) * 4000  # 1 MB


@pytest.fixture
def hub(monkeypatch):
    with running_hub(CONTENT) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        yield hub


def model(**changes):
    known = PublishedModel("m", ("A",), (0.5,), (0.25,), 64, "x", "Apache-2.0", "someone/chest", "model.bin")
    return dataclasses.replace(known, **changes)


def test_table_is_sound():
    for name, known in KNOWN_MODELS.items():
        assert known.name == name
        assert known.repository.count("/") == 1
        assert known.file
        assert len(known.mean) == len(known.std)
        assert len(known.sha256) in (0, 64)
        assert known.licence
        assert len(known.thresholds) in (0, len(known.outputs))
        assert bool(known.figure) == bool(known.figure_source)
        assert len(set(known.findings)) == len(known.findings)
        if known.thresholds:  # a point for every output that has a finding, and for no other
            assert [one is not None for one in known.thresholds] == [bool(one) for one in known.outputs]


def test_unnamed_outputs_are_left_out_and_order_is_the_files_own():
    rsna = KNOWN_MODELS["xrv-rsna"]
    assert (rsna.findings, rsna.named_columns) == (("Pneumonia", "Lung Opacity"), [8, 16])
    assert len(rsna.outputs) == 18
    assert KNOWN_MODELS["xrv-all"].findings[:3] == ("Atelectasis", "Consolidation", "Infiltration")
    assert KNOWN_MODELS["medmae-mae"].findings[:3] == ("Atelectasis", "Cardiomegaly", "Effusion")


def test_file_is_fetched_once_at_its_revision(hub, tmp_path):
    known = model(revision=COMMIT, sha256=hashlib.sha256(CONTENT).hexdigest())
    path = fetch(known, tmp_path)
    assert path.read_bytes() == CONTENT
    assert all(asked == f"/someone/chest/resolve/{COMMIT}/model.bin" for _, asked, _ in hub.requests)
    asked = len(hub.requests)
    assert fetch(known, tmp_path) == path
    assert len(hub.requests) == asked  # a file of a fixed revision needs no network again


@pytest.mark.fault("P06")
def test_broken_connection_is_told_and_the_next_try_goes_on_from_there(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 50_000)  # what is kept of a broken download
    hub.cut_after = 0
    with pytest.raises(ModelFileError, match=r"someone/chest/model.bin could not be fetched.*try again"):
        fetch(model(), tmp_path)
    assert not list(tmp_path.rglob("model.bin"))
    hub.cut_after = 700_000
    assert fetch(model(), tmp_path).read_bytes() == CONTENT  # it goes on by itself after each break
    assert [span for method, _, span in hub.requests if method == "GET"][-1] == "bytes=700000-"


@pytest.mark.parametrize("stated_by", ["table", "hub"])
@pytest.mark.fault("P06")
def test_wrong_checksum_is_told_and_the_file_deleted(hub, tmp_path, stated_by):
    right = hashlib.sha256(b"another file").hexdigest()
    if stated_by == "hub":
        hub.stated_sha256 = right
    with pytest.raises(ModelFileError, match=rf"expected SHA-256 {right[:16]}.*deleted"):
        fetch(model(sha256=right if stated_by == "table" else ""), tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 1000]
    hub.stated_sha256 = hashlib.sha256(CONTENT).hexdigest()
    assert fetch(model(), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [401, 404, 500])
@pytest.mark.fault("P06")
def test_answer_of_a_hub_that_has_no_such_file(hub, tmp_path, status, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.status = status
    with pytest.raises(ModelFileError, match="could not be fetched") as caught:
        fetch(model(), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.fault("P06")
def test_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(ModelFileError, match="could not be fetched"):
        fetch(model(), tmp_path)


@pytest.mark.fault("P06")
def test_network_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(known_models, "DOWNLOAD_SECONDS", 0.05)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *_, **__: threading.Event().wait(30))
    with pytest.raises(ModelFileError, match="not finished after 0 s"):
        fetch(model())
