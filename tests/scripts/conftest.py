"""Fixtures of the tests that run main_train.py."""

import signal
from pathlib import Path

import pytest
from small_network import build_small_network
from small_run import make_data

import main_train

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project's layout with little data; returns its folder."""
    make_data(tmp_path)
    monkeypatch.setattr(main_train, "PROJECT_DIR", tmp_path)
    monkeypatch.setattr(main_train, "is_sample", lambda split, image_dir: split.name == "test")  # its boxes are read
    for name in ("MODEL_PATH", "START_WEIGHTS_PATH"):
        monkeypatch.setattr(main_train, name, tmp_path / getattr(main_train, name).relative_to(ROOT))
    monkeypatch.setattr(
        "cxr.network.densenet.build_network",
        lambda findings, size, momentum=0.99, precision="float32": build_small_network(findings, size),
    )
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def without_report(monkeypatch):
    """Leave out the figures, which take longer than the training here."""
    monkeypatch.setattr("cxr.report.report_files.write_report", lambda folder, *args: folder / "report.html")
