"""The examples in gradcam.py's docstring and in docs/models.md run as they stand."""

import re
import textwrap
from pathlib import Path

import numpy as np
from served_model import served_predictor

import gradcam
from cxr.imaging.radiograph import to_model_input


def test_the_docstrings_example_draws_an_overlay_of_the_radiographs_size(monkeypatch):
    predictor = served_predictor()
    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.setattr("cxr.inference.predictor.Predictor", lambda path: predictor)
    example = gradcam.__doc__.split("In Python:\n\n")[1].split("\n\n")[0]
    assert len(example.splitlines()) == 5
    names = {}
    exec(textwrap.dedent(example), names)  # noqa: S102 - the project's own text
    radiograph = names["radiograph"]
    assert names["picture"].shape == (*radiograph.shape, 3)
    features = predictor.predict(to_model_input(radiograph, predictor.info.image_size)[np.newaxis]).features
    np.testing.assert_array_equal(names["answer"].heatmaps, gradcam.heatmaps(features, predictor.head_kernel)[0])


def test_the_documents_example_answers_in_five_lines(monkeypatch):
    predictor, folder = served_predictor(), Path(__file__).parents[2]
    monkeypatch.chdir(folder)
    monkeypatch.setattr("cxr.inference.predictor.Predictor", lambda path: predictor)
    page = (folder / "docs" / "models.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len([line for line in example.splitlines() if line]) == 5
    names = {}
    exec(example, names)  # noqa: S102 - the project's own text
    alone = gradcam.explain(predictor, names["picture"].radiograph)
    np.testing.assert_array_equal(names["answer"].probabilities, alone.probabilities)
    assert names["answer"].input_check == alone.input_check
    assert names["picture"].notices == ()
