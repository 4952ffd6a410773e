"""A teacher's file: what was saved comes back in half precision, and a damaged or foreign file is refused."""

import json

import h5py
import keras
import numpy as np
import pytest
from model_files import FINDINGS as MODEL_FINDINGS
from model_files import SIZE, make_info
from numpy.testing import assert_allclose, assert_array_equal
from small_network import build_small_network
from small_teacher import TEACHER_SIZE, use_small_teachers, write_small_teacher

from cxr.distillation.teacher_file import (
    TeacherInfo,
    load_teacher,
    read_teacher_info,
    save_teacher,
)
from cxr.network.densenet import build_network
from cxr.network.model_file import TEACHER_ATTRIBUTE, content_digest, load_model, save_model
from cxr.network.model_info import ModelFileError

FINDINGS = ("Mass", "Pleural_Thickening", "Edema")


@pytest.fixture(autouse=True)
def small_teachers(monkeypatch):
    use_small_teachers(monkeypatch)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "teacher.h5"


def test_a_saved_teacher_answers_as_it_did_and_says_what_it_is(path):
    network = write_small_teacher(path, FINDINGS, sources=("nih", "phantom"), origin="ImageNet, then films")
    loaded, info = load_teacher(path)
    pictures = np.random.default_rng(0).integers(0, 256, (3, TEACHER_SIZE, TEACHER_SIZE, 1), np.uint8)
    assert_allclose(loaded.predict_on_batch(pictures)[1], network.predict_on_batch(pictures), rtol=0.01, atol=0.01)
    for saved, read in zip(network.get_weights(), loaded.get_weights(), strict=True):
        assert_array_equal(read, saved.astype(np.float16))
    assert loaded.trainable_weights == []
    assert read_teacher_info(path) == info
    assert (info.findings, info.image_size, info.sources, info.origin) == (
        FINDINGS,
        TEACHER_SIZE,
        ("nih", "phantom"),
        "ImageNet, then films",
    )
    assert "Not intended for clinical use" in info.disclaimer


def test_a_model_file_is_a_teacher_too(path):
    network = build_small_network(MODEL_FINDINGS, SIZE)
    save_model(network, make_info(), path)
    loaded, info = load_teacher(path)
    pictures = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 1), np.uint8)
    probabilities = 1 / (1 + np.exp(-loaded.predict_on_batch(pictures)[1]))
    assert_allclose(probabilities, network.predict_on_batch(pictures), rtol=1e-5)
    assert (info.findings, info.image_size, info.sources) == (MODEL_FINDINGS, SIZE, ("nih", "phantom", ""))
    assert read_teacher_info(path) == info


def test_a_model_file_computes_in_the_precision_that_is_asked_for(path, monkeypatch):
    monkeypatch.undo()  # a network as model files hold it
    network = build_network(MODEL_FINDINGS, SIZE)
    save_model(network, make_info(), path)
    pictures = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 1), np.uint8)
    exact, rounded = (load_teacher(path, precision)[0] for precision in ("float32", "mixed_bfloat16"))
    assert (exact.get_layer("relu").compute_dtype, rounded.get_layer("relu").compute_dtype) == ("float32", "bfloat16")
    expected, found = (one.predict_on_batch(pictures) for one in (exact, rounded))
    assert_allclose(
        expected[1],
        keras.Model(network.input, network.get_layer("logits").output).predict_on_batch(pictures),
        rtol=1e-4,
        atol=1e-5,
    )
    assert_allclose(found[0], expected[0], rtol=0.1, atol=0.02 * np.abs(expected[0]).max())
    assert found[0].dtype == np.float32


@pytest.mark.parametrize("kind", ["teacher's file", "model file"])
def test_the_pooled_features_are_what_the_head_makes_logits_of(path, kind):
    """The oracle takes the means of the last feature map, and the head's product with them, in float64."""
    if kind == "model file":
        network, size, findings = build_small_network(MODEL_FINDINGS, SIZE), SIZE, MODEL_FINDINGS
        network.get_layer("logits").bias.assign(np.linspace(-1, 1, len(findings)))
        save_model(network, make_info(), path)
        head = network.get_layer("logits").get_weights()
    else:
        size, findings = TEACHER_SIZE, FINDINGS
        network = write_small_teacher(path, findings)
        head = [weight.astype(np.float16) for weight in network.get_layer("logits").get_weights()]
        network.set_weights([weight.astype(np.float16) for weight in network.get_weights()])
    pictures = np.random.default_rng(0).integers(0, 256, (3, size, size, 1), np.uint8)
    pooled, logits = load_teacher(path)[0].predict_on_batch(pictures)
    kernel, bias = (weight.astype(np.float64) for weight in head)
    assert (pooled.dtype, logits.dtype, logits.shape) == (np.float32, np.float32, (3, len(findings)))
    assert_allclose(logits, pooled.astype(np.float64) @ kernel + bias, rtol=1e-4, atol=1e-5)
    last_map = keras.Model(network.input, network.get_layer("relu").output).predict_on_batch(pictures)
    assert_allclose(pooled, last_map.mean(axis=(1, 2), dtype=np.float64), rtol=1e-4, atol=1e-6)
    assert np.ptp(pooled) > 1e-3


def test_a_teacher_is_no_model_to_serve(path):
    write_small_teacher(path, FINDINGS)
    with pytest.raises(ModelFileError, match=r"a teacher of tools\.train_teacher, for main_train\.py --teacher alone"):
        load_model(path)


def test_a_weight_too_large_for_half_precision_leaves_the_older_file(path):
    write_small_teacher(path, FINDINGS)
    before = path.read_bytes()
    network = build_small_network(FINDINGS, TEACHER_SIZE)
    network.get_layer("bn").set_weights([np.full(8, 70000.0)] * 4)
    with pytest.raises(ModelFileError, match="layer bn is not finite in half precision"):
        save_teacher(network, TeacherInfo(FINDINGS, TEACHER_SIZE), path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def cut(path):
    path.write_bytes(path.read_bytes()[:5000])


def change_weight(path):
    with h5py.File(path, "r+") as file:
        file["weights/bn/1"][3] = 0.5


def no_record(path):
    with h5py.File(path, "r+") as file:
        del file.attrs[TEACHER_ATTRIBUTE]


def with_record(**changes):
    """Change fields of the record and seal the file anew, as somebody with bad intent would."""

    def change(path):
        with h5py.File(path, "r+") as file:
            plain = json.loads(file.attrs[TEACHER_ATTRIBUTE]) | changes
            for number in (1, 2):
                file.attrs[TEACHER_ATTRIBUTE] = json.dumps(plain)
                plain["digest"] = content_digest(file, 2**62, TEACHER_ATTRIBUTE) if number == 1 else plain["digest"]
            file.attrs[TEACHER_ATTRIBUTE] = json.dumps(plain)

    return change


@pytest.mark.fault("M69")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "teacher.h5: no such teacher's file"),
        (lambda path: path.write_bytes(b""), "expected an HDF5 teacher's file, found an empty file"),
        (cut, "not readable as a teacher's file"),
        (change_weight, "damaged or changed after it was saved"),
        (no_record, "neither a teacher of tools.train_teacher nor a model file of main_train.py"),
        (with_record(findings=[]), "the record's findings not as expected of a teacher"),
        (with_record(findings=["Mass", "mass", "Edema"]), "the record's findings not as expected"),
        (with_record(image_size=74), "the record's image_size not as expected"),
        (with_record(image_size=80.0), "the record's image_size not as expected"),
        (with_record(backbone="ResNet"), "the record's backbone not as expected"),
        (with_record(sources="nih"), "the record's sources not as expected"),
        (with_record(origin=3, schema_version=2), "the record's schema_version, origin not as expected"),
        (with_record(more=1), "has not the fields of a teacher"),
        (with_record(findings=["Mass"]), "its weights are not those of InceptionV3 for its findings"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_sentence(path, damage, message):
    write_small_teacher(path, FINDINGS)
    damage(path)
    with pytest.raises(ModelFileError, match=message) as caught:
        load_teacher(path)
    assert "\n" not in str(caught.value)
    if "weights are not those" not in message:  # which is known only when the network is built
        with pytest.raises(ModelFileError, match=message):
            read_teacher_info(path)
