"""The model file: what goes in comes out, and a damaged or hostile file never becomes a model."""

import dataclasses
import json
import os
import shutil
import stat
import warnings

import h5py
import keras
import numpy as np
import pytest
from small_network import build_small_network

from cxr.network import model_file
from cxr.network.input_check import (
    AspectStatistics,
    Source,
    check_inputs,
    distances,
    fit_source,
    fit_statistics,
    layout_features,
)
from cxr.network.model_file import INFO_ATTRIBUTE, load_model, read_model_info, save_model
from cxr.network.model_info import (
    GoldenRadiograph,
    ModelFileError,
    ModelInfo,
    info_from_json,
    info_to_json,
)

FINDINGS = ("Mass", "Pleural_Thickening")
SIZE = 32
RADIOGRAPHS = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 1), np.uint8)


def make_info(**changes):
    rng = np.random.default_rng(1)
    rows = [(rng.normal(size=(n, 6)), rng.normal(size=(n, 64))) for n in (40, 20, 30, 10)]
    sources = (
        fit_source(*rows[:2], name="nih", description="radiographs", num_images=40, num_patients=31),
        fit_source(*rows[2:], name="phantom", num_images=30, num_patients=30),
        Source(name="", num_images=1, num_patients=1),
    )
    info = ModelInfo(
        findings=FINDINGS,
        image_size=SIZE,
        thresholds=(0.25, None),
        threshold_rule="Youden's J on the validation split",
        calibration={"method": "platt", "slope": [1.0, 0.5], "intercept": [0.0, -0.25]},
        feature_shape=(1, 1, 1024),
        weights_origin="none (random)",
        data_fingerprint="ab" * 32,
        split_sizes={"train": {"images": 4, "patients": 3}},
        test_metrics={"mean_auroc": 0.75, "auroc": {"Mass": 0.75, "Pleural_Thickening": None}},
        settings={"epochs": 3},
        test_sets={"nih": {"mean_auroc": 0.75}, "phantom": {"mean_auroc": None, "views": {}}},
        sources=sources,
        golden=GoldenRadiograph(RADIOGRAPHS[0], np.array([0.25, 0.5], np.float32)),
    )
    return dataclasses.replace(info, **changes)


@pytest.fixture(scope="module")
def network():
    model = build_small_network(FINDINGS, SIZE)
    rng = np.random.default_rng(2)  # moving statistics that are not their defaults
    model.set_weights([rng.uniform(0.2, 0.9, weight.shape).astype(np.float32) for weight in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def saved(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.h5"
    save_model(network, make_info(), path)
    return path


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copy(saved, tmp_path / "copy.h5")


def reseal(path):
    """Store the digest that belongs to the file's present content, as somebody with bad intent would."""
    with h5py.File(path, "r+") as file:
        plain = json.loads(file.attrs[INFO_ATTRIBUTE])
        plain["digest"] = model_file._digest(file, max_bytes=2**62)
        file.attrs[INFO_ATTRIBUTE] = json.dumps(plain, sort_keys=True)


def test_saved_file_reloads_to_equal_predictions_and_info(network, saved):
    model, info = load_model(saved)
    np.testing.assert_array_equal(model.predict(RADIOGRAPHS, verbose=0), network.predict(RADIOGRAPHS, verbose=0))
    expected = make_info()
    for one in dataclasses.fields(ModelInfo):
        if one.name not in ("digest", "created", "keras_version", "sources", "golden"):
            assert getattr(info, one.name) == getattr(expected, one.name), one.name
    assert info.keras_version == keras.__version__
    assert len(info.digest) == 64
    assert [one.name for one in info.sources] == ["nih", "phantom", ""]
    pairs = [(info.golden, expected.golden), *zip(info.sources, expected.sources, strict=True)]
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
    plain = json.loads(info_to_json(make_info(sources=(), golden=None, data="a phantom")))
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


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_M10_save_honours_the_umask(network, tmp_path, umask, mode):
    old = os.umask(umask)
    try:
        save_model(network, make_info(), tmp_path / "model.h5")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "model.h5").stat().st_mode) == mode


def contents(path):
    """Read every data set and attribute of a model file, by h5py alone."""
    found = {}
    with h5py.File(path) as file:
        found.update({("", key): str(value) for key, value in file.attrs.items()})
        file.visititems(lambda name, node: found.update({(name, key): str(v) for key, v in node.attrs.items()}))
        file.visititems(
            lambda name, node: found.update({name: node[()].tobytes()}) if isinstance(node, h5py.Dataset) else None
        )
    return found


def count_served_flips(network, saved, folder, num_flips):
    """Flip one bit at a time; return how many files were refused, and how many of the others are not as saved."""
    content = bytearray(saved.read_bytes())
    expected, rng, refused, changed, loaded = contents(saved), np.random.default_rng(3), 0, 0, 0
    for position in rng.integers(0, 8 * len(content), num_flips):
        content[position // 8] ^= 1 << (position % 8)
        (folder / "flipped.h5").write_bytes(content)
        content[position // 8] ^= 1 << (position % 8)
        try:
            read_model_info(folder / "flipped.h5")
        except ModelFileError:
            refused += 1
            continue
        try:
            same = contents(folder / "flipped.h5") == expected
        except (OSError, RuntimeError, KeyError, ValueError):
            same = False
        changed += not same
        if same and loaded < 3:  # Keras takes a second for each
            loaded += 1
            model, _ = load_model(folder / "flipped.h5")
            for written, read in zip(network.get_weights(), model.get_weights(), strict=True):
                np.testing.assert_array_equal(read, written)
    return refused, changed


def test_M04_flipped_bits_are_refused_or_change_nothing(network, saved, tmp_path):
    refused, changed = count_served_flips(network, saved, tmp_path, 200)
    print(f"200 flipped bits: {refused} files refused, {changed} changed ones served")
    assert 0 < refused < 200
    assert changed == 0


def heap_objects(content):
    """Yield where the size of each object of the file's heaps stands, by a plain walk over an intact file."""
    start = content.find(b"GCOL")
    while start >= 0:
        end, position = start + int.from_bytes(content[start + 8 : start + 16], "little"), start + 16
        while position + 16 <= end:
            yield position + 8
            size = int.from_bytes(content[position + 8 : position + 16], "little")
            position += size if content[position : position + 2] == b"\0\0" else 16 + (size + 7) // 8 * 8
        start = content.find(b"GCOL", start + 4)


def test_M80_sizes_that_would_keep_hdf5_busy_for_ever_are_refused(saved, tmp_path):
    """HDF5 adds these sizes up without a check; a large one turns its walk back to the objects that it has seen."""
    content = saved.read_bytes()
    places = list(heap_objects(content))
    assert len(places) > 4
    for place in places:
        for size in (2**64 - 16, 2**63, 2**40):
            damaged = content[:place] + size.to_bytes(8, "little") + content[place + 8 :]
            (tmp_path / "endless.h5").write_bytes(damaged)
            with pytest.raises(ModelFileError, match="does not add up"):
                read_model_info(tmp_path / "endless.h5")


def test_M04_twin_without_the_digest_changed_files_are_served(network, saved, tmp_path, monkeypatch):
    stored = read_model_info(saved).digest
    monkeypatch.setattr(model_file, "_digest", lambda *args: stored)
    with pytest.raises(AssertionError):
        test_M04_flipped_bits_are_refused_or_change_nothing(network, saved, tmp_path)


def test_M03_truncated_files_are_refused(saved, tmp_path):
    size = saved.stat().st_size
    for end in {0, 1, 8, 2048, size - 1, *np.linspace(0, size - 2, 60, dtype=int)}:
        (tmp_path / "cut.h5").write_bytes(saved.read_bytes()[:end])
        with pytest.raises(ModelFileError):
            load_model(tmp_path / "cut.h5")


def set_nan(file):
    file["model_weights/conv1_conv/conv1_conv/kernel"][0, 0, 0, 0] = np.nan


def shrink_findings(file):
    plain = json.loads(file.attrs[INFO_ATTRIBUTE])
    file.attrs[INFO_ATTRIBUTE] = json.dumps(plain | {"findings": ["Mass"]})


def change_image_size(file):
    plain = json.loads(file.attrs[INFO_ATTRIBUTE])
    file.attrs[INFO_ATTRIBUTE] = json.dumps(plain | {"image_size": 64})


def raise_schema(file):
    plain = json.loads(file.attrs[INFO_ATTRIBUTE])
    file.attrs[INFO_ATTRIBUTE] = json.dumps(plain | {"schema_version": 99})


def drop_info(file):
    del file.attrs[INFO_ATTRIBUTE]


def change_layer(name, class_name=None, **changes):
    def change(file):
        config = json.loads(file.attrs["model_config"])
        layer = next(one for one in config["config"]["layers"] if one["config"]["name"] == name)
        layer["class_name"] = class_name or layer["class_name"]
        layer["config"].update(changes)
        del file.attrs["model_config"]
        file.attrs["model_config"] = json.dumps(config)

    return change


def link_outside(file):
    del file["model_weights/bn/bn/gamma"]
    file["model_weights/bn/bn"].create_dataset("gamma", (8,), "f4", external=[("/etc/passwd", 0, 4096)])


def link_softly(file):
    del file["model_weights/bn/bn/gamma"]
    file["model_weights/bn/bn/gamma"] = h5py.ExternalLink("/tmp/other.h5", "/x")  # noqa: S108 - never opened


def claim_terabytes(file):
    del file["model_weights/bn/bn/gamma"]
    file["model_weights/bn/bn"].create_dataset("gamma", (2**38,), "f4", chunks=(1024,))


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (set_nan, "conv1_conv/kernel holds NaN or Inf"),
        (shrink_findings, r"expected input .* and output \(None, 1\) for 1 findings .* found .* \(None, 2\)"),
        (change_image_size, r"expected input \(None, 64, 64, 1\)"),
        (raise_schema, "expected ModelInfo of schema version 3, found 99"),
        (drop_info, "a Keras file without ModelInfo"),
        (
            change_layer("pooled", class_name="Lambda"),
            "expected only the layers of this project's network, found Lambda",
        ),
        (change_layer("logits", units=100_000_000), "layer logits asks for width 100000000, its kernel is"),
        (link_outside, "lies outside the file"),
        (link_softly, "not readable|could not be loaded"),
        (claim_terabytes, "claims more bytes than the file has"),
    ],
)
def test_M05_M06_M07_damaged_and_hostile_files_are_refused(copy, damage, message, sealed):
    """Unsealed: an accident, caught at the latest by the digest. Sealed: on purpose, with a digest that fits."""
    with h5py.File(copy, "r+") as file:
        damage(file)
    if sealed and damage not in (set_nan, drop_info, link_outside, claim_terabytes):  # these stop the digest as well
        reseal(copy)
    with pytest.raises(ModelFileError, match=message if sealed else f"{message}|damaged or changed"):
        load_model(copy)


def make_nothing(path):
    pass


def make_folder(path):
    path.mkdir()


def make_text(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\n")


def make_weights_only(path):
    with h5py.File(path, "w") as file:
        file["x"] = 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_nothing, "no such model file"),
        (make_folder, "cannot be read"),
        (lambda path: path.write_bytes(b""), "found an empty file"),
        (make_text, "found a file that starts with b'version '"),
        (make_weights_only, "a Keras file without ModelInfo"),
    ],
)
def test_M01_M02_M08_what_is_no_model_file_is_refused(tmp_path, make, message):
    make(tmp_path / "model.h5")
    with pytest.raises(ModelFileError, match=message):
        load_model(tmp_path / "model.h5")


def test_M11_old_keras_is_refused(saved, monkeypatch):
    monkeypatch.setattr(keras, "__version__", "3.15.0")
    with pytest.raises(ModelFileError, match=r"3\.15\.0 .* expected 3\.15\.1 or newer"):
        load_model(saved)


def fail_to_write(*args, **kwargs):
    raise OSError(28, "No space left on device")


def fail_in_hdf5(*args, **kwargs):
    raise RuntimeError("Can't write data (file write failed)")


@pytest.mark.parametrize(
    ("target", "name", "fault"),
    [
        (keras.Model, "save", fail_to_write),
        (keras.Model, "save", fail_in_hdf5),
        (model_file, "_digest", fail_in_hdf5),
        (model_file, "load_model", fail_to_write),
        (model_file.os, "fsync", fail_to_write),
    ],
)
def test_M12_old_file_survives_a_failed_save(network, tmp_path, monkeypatch, target, name, fault):
    (tmp_path / "model.h5").write_bytes(b"the old model")
    monkeypatch.setattr(target, name, fault)
    with pytest.raises(OSError, match=r"No space left|could not write about"):
        save_model(network, make_info(), tmp_path / "model.h5")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"model.h5": b"the old model"}


def test_M05_weights_that_are_not_finite_are_not_saved(network, tmp_path):
    weights = network.get_weights()
    try:
        network.set_weights([np.full_like(weights[0], np.nan), *weights[1:]])
        with pytest.raises(ModelFileError, match="NaN or Inf and were not saved"):
            save_model(network, make_info(), tmp_path / "model.h5")
    finally:
        network.set_weights(weights)
    assert list(tmp_path.iterdir()) == []


def test_M06_save_refuses_info_that_does_not_fit_the_model(network, tmp_path):
    with pytest.raises(ModelFileError, match="for 1 findings"):
        save_model(network, make_info(findings=("Mass",)), tmp_path / "model.h5")
