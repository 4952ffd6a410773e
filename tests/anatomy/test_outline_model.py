"""The outline network's file and its answers: a tiny network, saved, loaded, damaged, and held against Keras."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import h5py
import keras
import numpy as np
import pytest

from cxr.anatomy.outline_file import (
    RECORD_ATTRIBUTE,
    OutlineInfo,
    load_outline_network,
    read_outline_info,
    save_outline_network,
)
from cxr.anatomy.outline_model import OutlineModel, self_check
from cxr.anatomy.outline_network import build_outline_network
from cxr.imaging.radiograph import to_model_input
from cxr.network.model_file import content_digest, save_warnings_silenced
from cxr.network.model_info import ModelFileError

ROOT = Path(__file__).resolve().parents[2]
SIZE = 32


@pytest.fixture(scope="module")
def network():
    network = build_outline_network(SIZE, widths=(4, 6, 8))
    rng = np.random.default_rng(1)
    network.set_weights(
        [
            rng.uniform(-0.2, 0.3, one.shape) ** 2
            if one.ndim == 1
            else rng.normal(0, 0.3, one.shape).astype(np.float32)
            for one in network.get_weights()
        ]
    )
    return network


@pytest.fixture(scope="module")
def saved(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("outlines") / "anatomy.h5"
    run = lambda model_input: np.asarray(network.predict_on_batch(model_input))  # noqa: E731
    info = OutlineInfo(
        input_size=SIZE, data="drawn", settings={"steps": 1},
        self_check=tuple(self_check(run, SIZE).tolist()),
    )  # fmt: skip
    return path, save_outline_network(network, info, path)


@pytest.fixture
def copy(saved, tmp_path):
    path = tmp_path / "copy.h5"
    path.write_bytes(saved[0].read_bytes())
    return path


def reseal(path, change):
    """Change a file and its record, and give it the digest that fits, as somebody with bad intent would."""
    with h5py.File(path, "r+") as file:
        record = json.loads(file.attrs[RECORD_ATTRIBUTE])
        change(file, record)
        file.attrs[RECORD_ATTRIBUTE] = json.dumps(record)
        record["digest"] = content_digest(file, 2**62, record=RECORD_ATTRIBUTE)
        file.attrs[RECORD_ATTRIBUTE] = json.dumps(record)


def test_record_and_weights_come_back(network, saved):
    loaded, info = load_outline_network(saved[0])
    assert info == saved[1] == read_outline_info(saved[0])
    for written, read in zip(network.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(read, written)


def test_probabilities_are_those_of_keras_between_the_coarse_grid(network, saved):
    radiograph = np.random.default_rng(2).integers(0, 256, (50, 41), np.uint8)
    logits = keras.ops.convert_to_numpy(network(to_model_input(radiograph, SIZE)[np.newaxis].astype(np.float32)))[0]
    expected = 1 / (1 + np.exp(-cv2.resize(logits, (SIZE, SIZE))))
    found = OutlineModel(saved[0]).probabilities(radiograph)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.std() > 0.001


def test_grid_of_the_outlines_is_the_input_and_threads_do_not_mix(saved):
    model = OutlineModel(saved[0])
    pictures = np.random.default_rng(3).integers(0, 256, (8, 40, 60), np.uint8)
    expected = [model.probabilities(one) for one in pictures]
    found = [None] * len(pictures)

    def work(k):
        for _ in range(5):
            found[k] = model.probabilities(pictures[k])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(pictures))]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    np.testing.assert_array_equal(found, expected)
    assert model.outline(pictures[0]).labels.shape == (SIZE, SIZE)


def test_flipped_bits_are_refused_or_change_nothing(network, saved, tmp_path):
    content, rng, refused = bytearray(saved[0].read_bytes()), np.random.default_rng(4), 0
    path = tmp_path / "flipped.h5"
    for position in rng.integers(0, 8 * len(content), 40):
        content[position // 8] ^= 1 << (position % 8)
        path.write_bytes(content)
        content[position // 8] ^= 1 << (position % 8)
        try:
            assert read_outline_info(path) == saved[1]
        except ModelFileError:
            refused += 1
    assert 0 < refused < 40


@pytest.mark.parametrize("content", [b"", b"no HDF5", b"\x89HDF\r\n\x1a\n" + bytes(500)])
def test_files_that_are_no_hdf5_are_refused(tmp_path, content):
    (tmp_path / "anatomy.h5").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"outline network|Restore the file"):
        OutlineModel(tmp_path / "anatomy.h5")


def test_missing_file_and_folder_are_named(tmp_path):
    for path, words in ((tmp_path / "none.h5", "no such file"), (tmp_path, "a folder")):
        with pytest.raises(ModelFileError, match=words):
            OutlineModel(path)


def change_layer(name, **changes):
    def change(file, record):
        config = json.loads(file.attrs["model_config"])
        layer = next(one for one in config["config"]["layers"] if one["config"]["name"] == name)
        layer["class_name"] = changes.pop("class_name", layer["class_name"])
        layer["config"].update(changes)
        file.attrs["model_config"] = json.dumps(config)

    return change


def set_record(**changes):
    return lambda file, record: record.update(changes)


def spoil_weight(file, record):
    file[weight_name(file)][...] = np.nan


def weight_name(file):
    group = file["model_weights/logits"]
    return f"model_weights/logits/{group.attrs['weight_names'][-1]}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_layer("logits", class_name="Lambda"), "found Lambda"),
        (change_layer("stem_conv", filters=5000), "asks for width"),
        (change_layer("stem_conv", kernel_size=[900, 900]), "expected at most 16"),
        (change_layer("up0_size", size=[5000, 5000]), "expected at most 16"),
        (change_layer("up0_size", size=[4, 4]), "could not be loaded|expected input"),
        (set_record(input_size=10**9), "input_size"),
        (set_record(input_size=64), "expected input"),
        (set_record(structures=["liver"]), "structures"),
        (set_record(self_check=[0.0]), "self_check"),
        (set_record(surprise=1), "names"),
        (set_record(schema_version=9), "schema_version"),
        (spoil_weight, "NaN or Inf"),
    ],
)
def test_hostile_files_are_refused(copy, change, words):
    if words != "NaN or Inf":
        reseal(copy, change)
    else:
        with h5py.File(copy, "r+") as file:
            change(file, {})
    with pytest.raises(ModelFileError, match=words):
        load_outline_network(copy)


def test_file_of_another_kind_is_refused(network, tmp_path):
    with save_warnings_silenced():
        network.save(str(tmp_path / "plain.h5"), include_optimizer=False)
    with pytest.raises(ModelFileError, match="holds no record"):
        load_outline_network(tmp_path / "plain.h5")


@pytest.mark.fault("M65")
def test_weights_of_another_file_than_was_checked_are_never_used(copy, saved, monkeypatch):
    original = keras.Model.from_config

    def replaced(*args, **kwargs):
        shutil.copy(saved[0], copy)
        return original(*args, **kwargs)

    monkeypatch.setattr(keras.Model, "from_config", replaced)
    with pytest.raises(ModelFileError, match="was replaced while it was being read"):
        load_outline_network(copy)


def test_a_keras_without_the_guards_is_refused(saved, monkeypatch):
    monkeypatch.setattr(keras, "__version__", "3.14.0")
    with pytest.raises(ModelFileError, match=r"Keras 3\.14\.0 does not load \.h5 files safely"):
        read_outline_info(saved[0])


def test_a_record_of_an_older_file_is_read(copy, saved):
    reseal(copy, set_record(scores={"x": {"dice": 0.5}}))
    assert dataclasses.replace(read_outline_info(copy), digest=saved[1].digest) == saved[1]


def test_other_answers_than_where_it_was_made_are_refused(copy, saved):
    numbers = [one + 50 for one in saved[1].self_check]
    reseal(copy, set_record(self_check=numbers))
    with pytest.raises(ModelFileError, match="self-check failed"):
        OutlineModel(copy)


def test_old_file_survives_a_failed_save(network, copy, saved, monkeypatch):
    before = copy.read_bytes()
    with pytest.raises(ModelFileError, match="self_check"):
        save_outline_network(network, OutlineInfo(input_size=SIZE, self_check=(1.0,)), copy)
    assert copy.read_bytes() == before
    assert sorted(one.name for one in copy.parent.iterdir()) == ["copy.h5"]


def test_size_that_the_levels_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiple of 8"):
        build_outline_network(36, widths=(4, 6, 8))


OPENVINO = """
import sys
import numpy as np
from cxr.inference.backend import choose_inference_backend, load_keras
choose_inference_backend()
load_keras()
from cxr.anatomy.outline_model import OutlineModel
from cxr.network.model_info import ModelFileError
path, answers = sys.argv[1:]
np.save(answers, OutlineModel(path).probabilities(np.load(answers)))
import tempfile
tempfile.tempdir = "/nonexistent"
try:
    OutlineModel(path)
except ModelFileError as error:
    print(error)
"""


def test_openvino_answers_as_keras_does_and_says_where_it_has_no_room(saved, tmp_path):
    pytest.importorskip("openvino")
    radiograph = np.random.default_rng(5).integers(0, 256, (40, 50), np.uint8)
    np.save(tmp_path / "x.npy", radiograph)
    expected = OutlineModel(saved[0]).probabilities(radiograph)
    command = [sys.executable, "-c", OPENVINO, str(saved[0]), str(tmp_path / "x.npy")]
    environment = os.environ | {"KERAS_BACKEND": "openvino"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), expected, atol=1e-4)
    assert "TMPDIR" in done.stdout
