"""What the environment tells Keras: it works, or it is one line and exit code 2."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import app as site
from cxr.inference import backend
from cxr.inference.backend import BackendError
from cxr.network.model_info import ModelFileError
from cxr.site.model_slot import ModelSlot
from cxr.system.hdf5_guard import MemoryShortError

ROOT = Path(site.__file__).parent
SCRIPTS = {"main_train.py": [], "gradcam.py": ["images/00000011_001.png"], "app.py": ["--port", "0"]}


@pytest.mark.fault("H70")
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_backend_that_cannot_be_used_is_one_line_and_code_2(script):
    environment = os.environ | {"KERAS_BACKEND": "Tensorflow"}
    command = [sys.executable, script, *SCRIPTS[script]]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("KERAS_BACKEND=Tensorflow is no backend of Keras. Set KERAS_BACKEND to ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.fault("H70")
@pytest.mark.parametrize(
    ("name", "purpose", "words"),
    [
        ("openvino", "train", "KERAS_BACKEND=openvino is a backend that cannot train here"),
        ("numpy", "train", "KERAS_BACKEND=numpy is a backend that cannot train here"),
        ("torch", "train", "KERAS_BACKEND=torch is a backend that cannot train here"),
        ("jax", "train", "KERAS_BACKEND=jax is not installed"),
        ("TensorFlow", "train", "KERAS_BACKEND=TensorFlow is no backend of Keras"),
        ("numpy", "predict", "KERAS_BACKEND=numpy is a backend that cannot predict here"),
        ("torch", "predict", "KERAS_BACKEND=torch is not installed"),
        ("théano", "predict", "KERAS_BACKEND=théano is no backend of Keras"),
        ("tensorflow", "train", None),
        ("tensorflow", "predict", None),
        ("", "train", None),
    ],
)
def test_each_backend_for_each_purpose(monkeypatch, name, purpose, words):
    monkeypatch.setenv("KERAS_BACKEND", name)
    monkeypatch.setattr(backend, "_installed", lambda one: one in ("tensorflow", "openvino"))
    able = backend.TRAINING if purpose == "train" else backend.PREDICTING
    if words is None:
        backend._choose("tensorflow", able, purpose)
        assert os.environ["KERAS_BACKEND"] == "tensorflow"
        return
    with pytest.raises(BackendError) as error:
        backend._choose("tensorflow", able, purpose)
    assert str(error.value).startswith(words)
    assert "tensorflow" in str(error.value).split("Set KERAS_BACKEND to ")[1]


SETTINGS_SCRIPT = """
from cxr.inference.backend import BackendError, choose_training_backend, load_keras
try:
    choose_training_backend()
    load_keras()
except BackendError as error:
    raise SystemExit(str(error))
import keras
from cxr.network.densenet import build_network
network = build_network(("Mass",), 64)
print(keras.config.floatx(), network.get_layer("logits").dtype, network.get_layer("relu").output.shape[-1])
"""


def run_with_keras_json(folder, content):
    (folder / "keras.json").write_text(content)
    environment = os.environ | {"KERAS_HOME": str(folder), "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("KERAS_BACKEND", None)
    command = [sys.executable, "-c", SETTINGS_SCRIPT]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.fault("H71")
def test_a_users_settings_of_keras_change_nothing(tmp_path):
    settings = {"floatx": "float16", "epsilon": 1e-3, "backend": "torch", "image_data_format": "channels_first"}
    done = run_with_keras_json(tmp_path, json.dumps(settings))
    assert done.stdout.split() == ["float32", "float32", "1024"], done.stderr


@pytest.mark.fault("H71")
def test_settings_that_keras_refuses_are_one_line(tmp_path):
    done = run_with_keras_json(tmp_path, '{"floatx": "float8"}')
    assert done.returncode == 1  # of this script; the project's own end with 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "keras.json" in done.stderr
    assert "floatx" in done.stderr


@pytest.mark.fault("H72", "M62")
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BackendError("nothing to compute with"), "model_no_backend"),
        (ModelFileError("damaged"), "model_refused"),
        (MemoryShortError("not enough memory"), "model_no_memory"),
    ],
)
def test_the_site_tells_a_missing_backend_from_a_refused_file(error, code):
    def fail(_path, _precision):
        raise error

    slot = ModelSlot(__file__, load=fail)
    slot.load()
    client = site.create_app(slot, site.Decoder(1, start=False)).test_client()
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json["code"]) == (503, code)
    page = client.get("/").text
    assert ("not at fault" in page) == (code != "model_refused")


FORKED_SCRIPT = """
import os, sys, time
import quick_site, cxr.site.model_slot as slots
slots.ModelSlot.__init__.__kwdefaults__["load"] = lambda path, precision: quick_site.StandIn()
import app
from site_tools import png, upload
application = app.create_app()
def serve():
    client = application.test_client()
    for _ in range(2000):  # of a busy machine
        if client.get("/readyz").status_code == 200:
            break
        time.sleep(0.05)
    return [upload(client, png(seed), path="/api/predict").json["results"][0]["findings"][0] for seed in range(5)]
workers = []
for _ in range(2):
    reader, writer = os.pipe()
    workers.append((reader, os.fork()))
    if not workers[-1][1]:
        os.write(writer, repr(serve()).encode())
        os._exit(0)
found = {os.read(reader, 100_000) for reader, _ in workers}
for _, pid in workers:
    os.waitpid(pid, 0)
sys.exit(0 if len(found) == 1 and found.pop().startswith(b"[{'name'") else 1)
"""


@pytest.mark.fault("H73")
def test_a_server_may_fork_its_workers_from_a_finished_application():
    """gunicorn --preload: each worker loads a model of its own, with decoders of its own."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    command = [sys.executable, "-W", "ignore", "-c", FORKED_SCRIPT]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, check=False, timeout=120)
    assert done.returncode == 0
