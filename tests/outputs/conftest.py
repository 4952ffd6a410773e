"""Fixtures of the tests of what gradcam.py leaves."""

import pytest
from served_model import served_predictor

import gradcam


@pytest.fixture
def run_main(monkeypatch, tmp_path):
    """Run the command line in a scratch folder with the small model, which is loaded once."""
    monkeypatch.setattr("cxr.inference.predictor.Predictor", lambda path, **options: served_predictor())
    monkeypatch.chdir(tmp_path)
    return gradcam.main
