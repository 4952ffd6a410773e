"""The model file: what goes in comes out, and a damaged or hostile file never becomes a model."""

import dataclasses
import json
import os
import stat
import warnings

import h5py
import keras
import numpy as np
import pytest
from model_files import FINDINGS, RADIOGRAPHS, SIZE, make_info
from small_network import build_small_network

from cxr.network import model_file
from cxr.network.input_check import (
    AspectStatistics,
    check_inputs,
    distances,
    fit_statistics,
    layout_features,
)
from cxr.network.model_file import INFO_ATTRIBUTE, load_model, read_model_info, save_model
from cxr.network.model_info import (
    ModelFileError,
    ModelInfo,
    info_from_json,
    info_to_json,
)


@pytest.fixture(scope="module")
def network():
    model = build_small_network(FINDINGS, SIZE)
    rng = np.random.default_rng(2)  # moving statistics that are not their defaults
    model.set_weights([rng.uniform(0.2, 0.9, weight.shape).astype(np.float32) for weight in model.get_weights()])
    return model


def test_saved_file_reloads_to_equal_predictions_and_info(network, saved):
    model, info = load_model(saved)
    np.testing.assert_array_equal(model.predict(RADIOGRAPHS, verbose=0), network.predict(RADIOGRAPHS, verbose=0))
    expected = make_info()
    for one in dataclasses.fields(ModelInfo):
        if one.name not in ("digest", "created", "keras_version", "sources", "self_check"):
            assert getattr(info, one.name) == getattr(expected, one.name), one.name
    assert info.keras_version == keras.__version__
    assert len(info.digest) == 64
    assert [one.name for one in info.sources] == ["nih", "phantom", ""]
    pairs = [(info.self_check, expected.self_check), *zip(info.sources, expected.sources, strict=True)]
    for found, stored in pairs:
        assert_equal_records(found, stored)


def assert_equal_records(found, stored):
    """Compare values and types, and the records within records."""
    for one in dataclasses.fields(stored):
        value, expected = getattr(found, one.name), getattr(stored, one.name)
        if isinstance(expected, AspectStatistics):
            assert_equal_records(value, expected)
        else:
            np.testing.assert_array_equal(value, expected)
            assert np.asarray(value).dtype == np.asarray(expected).dtype


def test_saved_file_has_one_json_attribute_and_no_optimiser(saved):
    with h5py.File(saved) as file:
        assert set(file.attrs) == {INFO_ATTRIBUTE, "model_config", "keras_version", "backend"}
        assert set(file) == {"model_weights", "cxr_arrays"}
        json.loads(file.attrs[INFO_ATTRIBUTE], parse_constant=pytest.fail)  # no NaN or Infinity: plain JSON


def test_undefined_numbers_are_stored_as_null(network, tmp_path):
    info = make_info(thresholds=(float("nan"), np.float32(0.5)), test_metrics={"auroc": np.array([np.nan, 1.0])})
    save_model(network, info, tmp_path / "model.h5")
    found = read_model_info(tmp_path / "model.h5")
    assert found.thresholds == (None, 0.5)
    assert found.test_metrics == {"auroc": [None, 1.0]}


def old_form(version):
    """ModelInfo's JSON and arrays as files of schema version 1 and 2 hold them: one source, a limit for each aspect."""
    rng = np.random.default_rng(6)
    statistics = {"feature_statistics": fit_statistics(rng.normal(size=(40, 6)))}
    if version == 2:
        statistics["layout_statistics"] = fit_statistics(rng.normal(size=(40, 64)))
    arrays = {
        f"{group}.{one.name}": np.asarray(getattr(record, one.name))
        for group, record in statistics.items()
        for one in dataclasses.fields(record)
    }
    if version == 1:
        arrays["feature_statistics.reference_distances"] = np.linspace(0.5, 2.5, 101)  # the 99th percentile is 2.48
    else:
        arrays |= {"feature_statistics.limit": np.asarray(2.48), "layout_statistics.limit": np.asarray(1.5)}
    plain = json.loads(info_to_json(make_info(sources=(), self_check=None, data="a phantom")))
    for name in ("sources", "test_sets"):
        del plain[name]
    return json.dumps(plain | {"schema_version": version}), arrays, statistics


@pytest.mark.parametrize("version", [1, 2])
def test_info_of_older_versions_still_loads_with_its_own_limits(version):
    text, arrays, statistics = old_form(version)
    (source,) = info_from_json(text, arrays).sources
    assert (source.name, source.description, source.num_images, source.num_patients) == ("", "a phantom", 4, 3)
    usual = np.zeros((1, 32, 32, 1), np.uint8)
    direction = statistics["feature_statistics"].components[:, 0]
    step = direction * np.sqrt(6 * statistics["feature_statistics"].variances[0])  # distance 1
    for distance in (2.3, 2.47, 2.49, 2.6):
        pooled = (statistics["feature_statistics"].mean + distance * step)[np.newaxis]
        layout_is_odd = version == 2 and distances(statistics["layout_statistics"], layout_features(usual))[0] > 1.3
        assert not layout_is_odd
        assert (check_inputs([source], usual, pooled)[0][0] > 1) == (distance > 2.48)


def test_save_prints_and_warns_nothing(network, tmp_path, capfd, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_model(network, make_info(), tmp_path / "model.h5")
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


@pytest.mark.fault("M10")
@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_save_honours_the_umask(network, tmp_path, umask, mode):
    old = os.umask(umask)
    try:
        save_model(network, make_info(), tmp_path / "model.h5")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "model.h5").stat().st_mode) == mode


@pytest.mark.fault("M11")
def test_old_keras_is_refused(saved, monkeypatch):
    monkeypatch.setattr(keras, "__version__", "3.15.0")
    with pytest.raises(ModelFileError, match=r"3\.15\.0 .* expected 3\.15\.1 or newer"):
        load_model(saved)


def fail_to_write(*args, **kwargs):
    raise OSError(28, "No space left on device")


def fail_in_hdf5(*args, **kwargs):
    raise RuntimeError("Can't write data (file write failed)")


@pytest.mark.fault("M12")
@pytest.mark.parametrize(
    ("target", "name", "fault"),
    [
        (keras.Model, "save", fail_to_write),
        (keras.Model, "save", fail_in_hdf5),
        (model_file, "content_digest", fail_in_hdf5),
        (model_file, "load_model", fail_to_write),
        (model_file.os, "fsync", fail_to_write),
    ],
)
def test_old_file_survives_a_failed_save(network, tmp_path, monkeypatch, target, name, fault):
    (tmp_path / "model.h5").write_bytes(b"the old model")
    monkeypatch.setattr(target, name, fault)
    with pytest.raises(OSError, match=r"No space left|could not write about"):
        save_model(network, make_info(), tmp_path / "model.h5")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"model.h5": b"the old model"}


@pytest.mark.fault("M05")
def test_weights_that_are_not_finite_are_not_saved(network, tmp_path):
    weights = network.get_weights()
    try:
        network.set_weights([np.full_like(weights[0], np.nan), *weights[1:]])
        with pytest.raises(ModelFileError, match="NaN or Inf and were not saved"):
            save_model(network, make_info(), tmp_path / "model.h5")
    finally:
        network.set_weights(weights)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("M06")
def test_save_refuses_info_that_does_not_fit_the_model(network, tmp_path):
    with pytest.raises(ModelFileError, match="for 1 findings"):
        save_model(network, make_info(findings=("Mass",)), tmp_path / "model.h5")
