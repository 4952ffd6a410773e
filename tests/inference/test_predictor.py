"""The predictor against Keras' own predict, with threads, and against files that it must refuse."""

import dataclasses
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from served_model import FINDINGS, IMAGE_SIZE, random_inputs, served_model, served_predictor

from cxr.inference import predictor as predictor_module
from cxr.inference.predictor import Predictor
from cxr.network.model_info import ModelFileError, ModelInfo, SelfCheckPicture

ROOT = Path(__file__).parents[2]
NUM_INPUTS = 16

# Runs in a process of its own, because Keras' backend cannot be changed once it is imported.
OPENVINO_SCRIPT = """
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from cxr.inference.backend import choose_inference_backend
choose_inference_backend()
from cxr.inference import predictor as module
from cxr.network.model_info import ModelFileError
from cxr.inference.predictor import Predictor
path, inputs, answers = sys.argv[1:]
inputs = np.load(inputs)
predictor = Predictor(path)
print(predictor.engine)
together = predictor.predict(inputs)[:3]
for predictor in (predictor, Predictor(path, side_by_side=True)):
    with ThreadPoolExecutor(8) as threads:
        rows = np.tile(np.arange(len(inputs)), 6)
        alone = list(threads.map(lambda row: predictor.predict(inputs[row : row + 1]), rows))
    mixed_up = [row for row, answer in zip(rows, alone)
                if not all(np.array_equal(one[0], all_[row]) for one, all_ in zip(answer, together))]
    print("mixed up:", mixed_up)
run_openvino, made = module._run_openvino, []
def all_but_the_first_are_wrong(request):
    run_one, first = run_openvino(request), not made
    made.append(request)
    return run_one if first else lambda one: (*run_one(one)[:2], run_one(one)[2] + 0.01)
module._run_openvino = all_but_the_first_are_wrong
try:
    Predictor(path, side_by_side=True)
except ModelFileError as error:
    print("self-check failed" in str(error))
print("imported:", {"tensorflow", "matplotlib", "pandas", "sklearn", "openvino_telemetry"} & set(sys.modules))
import matplotlib  # hidden from Keras only
np.savez(answers, *together)
"""

# A service's user without a home: OpenVINO's telemetry would end the import of Keras.
HOMELESS_SCRIPT = """
import os, pwd, sys
def getpwuid(uid):
    raise KeyError(uid)
os.environ.pop("HOME", None)
pwd.getpwuid = getpwuid
from cxr.inference.backend import choose_inference_backend
choose_inference_backend()
import keras
print(keras.backend.backend())
"""


@pytest.fixture(scope="module")
def inputs():
    return random_inputs(NUM_INPUTS, seed=5)


@pytest.fixture(scope="module")
def expected(inputs):
    """Probabilities, logits and features of the model in memory, by keras.Model.predict."""
    network = served_model().network
    outputs = [network.get_layer(name).output for name in ("probabilities", "logits", "relu")]
    answers = keras.Model(network.input, outputs).predict(inputs.astype(np.float32), verbose=0)
    distances = np.abs(answers[0][:, np.newaxis] - answers[0][np.newaxis]).max(axis=2)
    assert distances[~np.eye(NUM_INPUTS, dtype=bool)].min() > 1e-3, (
        "inputs must differ for the thread test to mean much"
    )
    return answers


def test_predictor_on_openvino_equals_keras_and_threads_do_not_mix(inputs, expected, tmp_path):
    pytest.importorskip("openvino")
    np.save(tmp_path / "inputs.npy", inputs)
    files = [served_model().path, tmp_path / "inputs.npy", tmp_path / "answers.npz"]
    done = subprocess.run(
        [sys.executable, "-c", OPENVINO_SCRIPT, *files],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": "openvino"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["OpenVINO f32", *["mixed up: []"] * 2, "True", "imported: set()"]
    answers = list(np.load(tmp_path / "answers.npz").values())
    for answer, known in zip(answers, expected, strict=True):
        assert answer.dtype == np.float32
        assert_allclose(answer, known, atol=1e-4 * max(1, np.abs(known).max()))


@pytest.mark.skipif(os.name != "posix", reason="users without a home are POSIX's")
def test_a_user_without_a_home_can_predict_and_nothing_is_reported_to_anyone():
    pytest.importorskip("openvino")
    environment = os.environ | {"KERAS_BACKEND": "openvino"}
    command = [sys.executable, "-c", HOMELESS_SCRIPT]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "openvino\n"


def test_predictor_on_the_current_backend_equals_keras(inputs, expected):
    predictor = served_predictor()
    assert predictor.engine == f"Keras {keras.backend.backend()} f32"
    assert predictor.info.findings == FINDINGS
    for answer, known in zip(predictor.predict(inputs)[:3], expected, strict=True):
        assert answer.dtype == np.float32
        assert_allclose(answer, known, atol=1e-4 * max(1, np.abs(known).max()))


def test_predictor_in_eight_threads_does_not_mix_results(inputs, expected):
    predictor = served_predictor()
    rows = np.tile(np.arange(NUM_INPUTS), 4)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda row: predictor.predict(inputs[row : row + 1])[0][0], rows))
    assert_allclose(answers, expected[0][rows], atol=1e-4)


@pytest.mark.parametrize("ways", [["all cores"], ["all cores", "left", "right"]], ids=["one way", "three ways"])
def test_each_way_to_run_serves_one_caller_at_a_time(ways):
    pool, in_use = predictor_module._RequestPool(ways), {way: threading.Lock() for way in ways}

    def call(_number):
        with pool.request() as way:
            assert in_use[way].acquire(blocking=False)
            time.sleep(0.002)
            in_use[way].release()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(call, range(80)))


def test_a_lone_caller_has_all_cores_and_callers_that_overlap_share_the_other_ways():
    pool, all_inside = predictor_module._RequestPool(["all cores", "left", "right"]), threading.Barrier(3)

    def call(_number):
        with pool.request() as way:
            all_inside.wait(10)
            return way

    for _ in range(3):
        with pool.request() as way:
            assert way == "all cores"
        with ThreadPoolExecutor(3) as threads:
            assert sorted(threads.map(call, range(3))) == ["all cores", "left", "right"]


def test_a_way_that_failed_serves_the_next_caller():
    pool = predictor_module._RequestPool(["all cores"])
    with pytest.raises(ZeroDivisionError), pool.request():
        raise ZeroDivisionError
    with pool.request() as way:
        assert way == "all cores"


def test_predict_leaves_its_input_alone(inputs):
    before = inputs.copy()
    served_predictor().predict(inputs[:2])
    assert_array_equal(inputs, before)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 1), np.float32), "received float32"),
        (np.zeros((IMAGE_SIZE, IMAGE_SIZE, 1), np.uint8), "received uint8"),
        (np.zeros((1, 32, 32, 1), np.uint8), r"\(1, 32, 32, 1\)"),
        (np.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8), r"expected model inputs uint8 \(n, 96, 96, 1\)"),
        (np.zeros((0, IMAGE_SIZE, IMAGE_SIZE, 1), np.uint8), "at least one"),
    ],
)
def test_predict_refuses(inputs, message):
    with pytest.raises(ValueError, match=f"(?i){message}"):
        served_predictor().predict(inputs)


def tiny_network(head: str) -> keras.Model:
    """A network with the layer names that the file check wants and the kind of head that is asked for."""
    radiograph = keras.Input((32, 32, 1))
    features = keras.layers.Conv2D(6, 3, strides=8, activation="relu", name="relu")(radiograph)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(features)
    if head == "max pooling":
        pooled = keras.layers.GlobalMaxPooling2D(name="pooled")(features)
    if head == "hidden layer":
        pooled = keras.layers.Dense(6, activation="relu", name="hidden")(pooled)
    if head == "flattened":
        pooled = keras.layers.Flatten()(features)
    if head == "wider hidden layer":
        pooled = keras.layers.Dense(9, name="hidden")(pooled)
    logits = keras.layers.Dense(2, name="logits", use_bias=head != "no bias")(pooled)
    probabilities = keras.layers.Activation("sigmoid", name="probabilities")(logits)
    network = keras.Model(radiograph, probabilities)
    network.set_weights([np.random.default_rng(0).normal(0, 0.02, one.shape) for one in network.get_weights()])
    return network


SELF_CHECK_INPUT = np.random.default_rng(1).integers(0, 256, (32, 32, 1), dtype=np.uint8)


def tiny_predictor(monkeypatch, head="one dense layer", **changes):
    """Load the tiny network as if its file had been verified; `changes` are changes of ModelInfo."""
    network = tiny_network(head)
    probabilities = network.predict(SELF_CHECK_INPUT[np.newaxis], verbose=0)[0]
    info = ModelInfo(("Mass", "Nodule"), 32, self_check=SelfCheckPicture(SELF_CHECK_INPUT, probabilities))
    info = dataclasses.replace(info, **changes)
    monkeypatch.setattr(predictor_module, "load_model", lambda path: (network, info))
    return Predictor("model.h5")


def test_predictor_accepts_pooling_and_one_dense_layer(monkeypatch):
    assert tiny_predictor(monkeypatch).head_kernel.shape == (6, 2)


@pytest.mark.parametrize("head", ["max pooling", "hidden layer", "flattened", "wider hidden layer", "no bias"])
def test_predictor_refuses_another_head(monkeypatch, head):
    with pytest.raises(
        ModelFileError, match=r"model\.h5: expected a head of global average pooling and one dense layer"
    ):
        tiny_predictor(monkeypatch, head)


@pytest.mark.parametrize(
    ("self_check", "message"),
    [
        (None, "holds no self-check picture"),
        (SelfCheckPicture(SELF_CHECK_INPUT, np.array([0.9, 0.1], np.float32)), "self-check failed with Keras"),
        (SelfCheckPicture(SELF_CHECK_INPUT, np.array([np.nan, 0.5], np.float32)), "self-check failed with Keras"),
        (SelfCheckPicture(SELF_CHECK_INPUT[:16], np.array([0.5, 0.5], np.float32)), "self-check picture does not fit"),
    ],
    ids=["none", "other probabilities", "NaN", "other size"],
)
def test_predictor_refuses_where_the_self_check_picture_fails(monkeypatch, self_check, message):
    with pytest.raises(ModelFileError, match=message):
        tiny_predictor(monkeypatch, self_check=self_check)


def test_self_check_allows_rounding_but_not_a_thousandth(monkeypatch):
    probabilities = tiny_network("one dense layer").predict(SELF_CHECK_INPUT[np.newaxis], verbose=0)[0]
    tiny_predictor(monkeypatch, self_check=SelfCheckPicture(SELF_CHECK_INPUT, probabilities + 0.0008))
    with pytest.raises(ModelFileError, match=r"by 0\.0012"):
        tiny_predictor(monkeypatch, self_check=SelfCheckPicture(SELF_CHECK_INPUT, probabilities + 0.0012))


def test_predictor_refuses_a_missing_file(tmp_path):
    with pytest.raises(ModelFileError, match=r"no such model file.*main_train\.py"):
        Predictor(tmp_path / "none.h5")


def test_predictor_without_openvino_says_so_once(monkeypatch, caplog):
    monkeypatch.setattr(predictor_module.importlib.util, "find_spec", lambda name: None)
    tiny_predictor(monkeypatch)
    assert [record.message for record in caplog.records] == [
        "OpenVINO is not installed; predicting with Keras, about twice as slow."
    ]
