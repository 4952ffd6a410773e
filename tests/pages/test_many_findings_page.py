"""The page of a model with 40 findings: the 20 most probable in the table, the others below a line to click on."""

import re

import numpy as np
import pytest
from site_tools import answers_of, png, shared_decoder, upload

import app
from cxr.inference.prediction import Prediction
from cxr.network.model_info import ModelInfo
from cxr.site.model_slot import ModelSlot

NUM_FINDINGS, SIZE = 40, 64


class ManyFindings:
    """A predictor whose finding k has the logit k / 10 - 1."""

    engine = "a stand-in"
    head_kernel = np.eye(NUM_FINDINGS, dtype=np.float32)
    info = ModelInfo(tuple(f"finding_{k:02}" for k in range(NUM_FINDINGS)), SIZE, digest="0123" * 16)

    def predict(self, model_inputs):
        logits = np.tile(np.arange(NUM_FINDINGS, dtype=np.float32) / 10 - 1, (len(model_inputs), 1))
        features = np.ones((len(model_inputs), 2, 2, NUM_FINDINGS), np.float32)
        probabilities = 1 / (1 + np.exp(-logits))
        return Prediction(probabilities, logits, features, probabilities)


@pytest.mark.fault("C79")
def test_page_shows_the_twenty_most_probable_findings_and_all_on_demand():
    slot = ModelSlot(__file__, load=lambda path, precision: ManyFindings())
    slot.load()
    response = upload(app.create_app(slot, shared_decoder()).test_client(), png())
    assert response.status_code == 200
    more = re.search(r'(?s)<details class="more-findings">(.*?)</details>', response.text)[1]
    first = re.search(r'(?s)<table class="findings">(.*?)</table>', response.text)[1]

    def places(part):
        return [int(value) for value in re.findall(r'class="view" name="view-1" value="(\d+)"', part)]

    assert places(first) == list(range(1, 21))
    assert places(more) == list(range(21, 41))
    assert "20 less probable findings" in more
    assert re.findall(r"finding (\d\d)</span>", first) == [f"{k:02}" for k in range(39, 19, -1)]
    assert response.text.count("<li>finding ") <= 2 * 14  # named above the table, by either rule
    assert "The 14 most probable of them; the table has the others." in response.text
    (answer,) = answers_of(response)
    assert len(answer["findings"]) == NUM_FINDINGS
