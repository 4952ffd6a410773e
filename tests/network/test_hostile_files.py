"""Weights and model files that were made to do harm: pipes, claims, links, and fields of ModelInfo that lie."""

import json
import os
import shutil

import h5py
import keras
import numpy as np
import pytest
from model_files import FINDINGS, SIZE, change_layer, make_info, reseal
from small_network import build_small_network

from cxr.network.model_file import INFO_ATTRIBUTE, load_model, save_model
from cxr.network.model_info import ModelFileError
from cxr.network.start_weights import load_start_weights
from cxr.system import hdf5_guard
from cxr.system.hdf5_guard import MemoryShortError, open_guarded

DATA_SET = "conv1_conv/kernel"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    keras.utils.set_random_seed(3)
    path = tmp_path_factory.mktemp("model") / "model.h5"
    save_model(build_small_network(FINDINGS, SIZE), make_info(), path)
    return path


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copy(saved, tmp_path / "copy.h5")


@pytest.fixture
def weights(tmp_path):
    """A file in the layout of Keras' weights files, of one layer."""
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"conv1_conv"]
        group = file.create_group("conv1_conv")
        group.attrs["weight_names"] = [b"kernel"]
        group["kernel"] = np.zeros((3, 3, 1, 8), np.float32)
    return path


def read_both(path):
    """The two readers of HDF5 files; the guard answers before any network is looked at."""
    return (
        lambda: load_model(path),
        lambda: load_start_weights(build_small_network(FINDINGS, SIZE), FINDINGS, str(path)),
    )


def replace_kernel(make):
    def change(file):
        del file[DATA_SET]
        make(file, DATA_SET)

    return change


def point_outside(file, name):
    file.create_dataset(name, (32,), "f4", external=[("/etc/hostname", 0, 128)])


def compose_of_others(file, name):
    layout = h5py.VirtualLayout((8,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (8,))
    file.create_virtual_dataset(name, layout)


def claim_contiguous(file, name):
    file.create_dataset(name, (3 * 2**30,), "f4")


def claim_one_chunk(file, name):
    file.create_dataset(name, (4,), "f4", chunks=(2**28,), maxshape=(None,), compression="gzip")


def claim_in_many(file, name):
    for number in range(8):
        file.create_dataset(f"{name}{number}", (45_000_000,), "f4")


def link_to_file(file, name):
    file[name] = h5py.ExternalLink("other.h5", "/x")


def link_inside(file, name):
    file[name] = h5py.SoftLink("/")


def store_objects(file, name):
    file.create_dataset(name, (10,), h5py.vlen_dtype(np.float32))


def store_records(file, name):
    file.create_dataset(name, (2,), np.dtype([("a", "f4"), ("b", "f4")]))


def add_attributes(file, name):
    file[name] = np.zeros(4, np.float32)
    for number in range(40):
        file.require_group("more").attrs.create(f"padding{number}", np.zeros(60_000))


def repeat_a_text(file, name):
    file[name] = np.zeros(4, np.float32)
    file.attrs["long"] = "x" * 1_000_000
    file.attrs["names"] = np.array(["y"] * 3_000, dtype=h5py.string_dtype())


HOSTILE = {
    "outside": (point_outside, "lies outside the file"),
    "virtual": (compose_of_others, "lies outside the file"),
    "contiguous": (claim_contiguous, "claims more bytes than the file has"),
    "chunk": (claim_one_chunk, "claims more bytes than the file has"),
    "many": (claim_in_many, "claim more bytes than any such file needs"),
    "external link": (link_to_file, "a link to another place or file"),
    "soft link": (link_inside, "a link to another place or file"),
    "lists": (store_objects, "expected numbers"),
    "records": (store_records, "expected numbers"),
    "attributes": (add_attributes, "bytes of attributes"),
    "texts": (repeat_a_text, "attribute of 3,000 texts"),
}


@pytest.mark.fault("M60")
@pytest.mark.parametrize("name", HOSTILE)
def test_what_reaches_outside_or_claims_too_much_is_refused_by_both_readers(weights, name):
    make, message = HOSTILE[name]
    with h5py.File(weights, "r+", libver="latest") as file:  # attributes of more than 64 kB need that
        replace_kernel(make)(file)
    assert weights.stat().st_size < 40e6
    for read in read_both(weights):
        with pytest.raises(ModelFileError, match=message):
            read()


@pytest.mark.fault("M60")
def test_more_entries_than_any_network_has_are_refused(weights, monkeypatch):
    monkeypatch.setattr(hdf5_guard, "MAX_LINKS", 10)
    with h5py.File(weights, "r+") as file:
        for number in range(10):
            file.create_group(f"group{number}")
    for read in read_both(weights):
        with pytest.raises(ModelFileError, match="more than 10 entries"):
            read()


@pytest.mark.fault("M61")
@pytest.mark.skipif(os.name != "posix", reason="pipes in folders are POSIX's")
def test_a_pipe_or_a_folder_is_refused_and_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "folder.h5").mkdir()
    for name, found in (("pipe.h5", "a pipe, socket or device"), ("folder.h5", "a folder")):
        for read in read_both(tmp_path / name):
            with pytest.raises(ModelFileError, match=f"found {found}"):
                read()


@pytest.mark.fault("M62")
@pytest.mark.parametrize(
    "error", [MemoryError(), OSError("Unable to read (memory allocation failed for chunk)"), RuntimeError("bad_alloc")]
)
def test_short_memory_does_not_blame_the_file(copy, error):
    message = "not enough memory to read this file, which may be whole"
    with pytest.raises(MemoryShortError, match=message), open_guarded(copy, "model file", "Restore it."):
        raise error


def set_field(**changes):
    def change(file):
        plain = json.loads(file.attrs[INFO_ATTRIBUTE]) | changes
        file.attrs[INFO_ATTRIBUTE] = json.dumps(plain, sort_keys=True)

    return change


def set_array(name, array):
    def change(file):
        if name in file["cxr_arrays"]:
            del file["cxr_arrays"][name]
        file["cxr_arrays"][name] = array

    return change


def change_source(**changes):
    def change(file):
        plain = json.loads(file.attrs[INFO_ATTRIBUTE])
        plain["sources"][0] |= changes
        file.attrs[INFO_ATTRIBUTE] = json.dumps(plain, sort_keys=True)

    return change


LIES = [
    ("threshold", set_field(threshold=None)),
    ("threshold", set_field(threshold="0.5")),
    ("threshold", set_field(threshold=True)),
    ("threshold", set_field(threshold=-0.1)),
    ("thresholds", set_field(thresholds=[0.5, "high"])),
    ("thresholds", set_field(thresholds=[0.5])),
    ("findings", set_field(findings=["Mass", "Mass"])),
    ("findings", set_field(findings=["Pleural Thickening", "pleural_thickening"])),
    ("findings", set_field(findings=["Mass", 7])),
    ("findings", set_field(findings=["Mass", " "])),
    ("findings", set_field(findings=["Mass", "x" * 100_000])),
    ("findings", set_field(findings=["Mass", "\x1b]0;title\x07Edema"])),
    ("findings", set_field(findings=["Mass", "Edema\u202e"])),
    ("image_size", set_field(image_size="32")),
    ("calibration", set_field(calibration={"method": "platt", "slopes": [1.0], "biases": [0.0, 0.0]})),
    ("calibration", set_field(calibration={"slopes": ["a", "b"], "biases": [0.0, 0.0]})),
    ("feature_shape", set_field(feature_shape=[1, 1, -4])),
    ("split_sizes", set_field(split_sizes={"train": {"images": "many", "patients": 1}})),
    ("split_sizes", set_field(split_sizes={"train": {"images": 1}})),
    ("test_metrics", set_field(test_metrics={"mean_auroc": 0.5, "mean_auroc_interval": "wide"})),
    ("test_metrics", set_field(test_metrics={"accuracy": 0.5, "baseline_accuracy": "low"})),
    ("test_metrics", set_field(test_metrics={"auroc": ["a"]})),
    ("test_sets", set_field(test_sets={"nih": 3})),
    ("settings", set_field(settings=[1, 2])),
    ("leakage", set_field(leakage="no")),
    ("disclaimer", set_field(disclaimer=None)),
    ("disclaimer", set_field(disclaimer="x" * 1_000_000)),
    ("published", set_field(published={"figure": 3})),
    ("self_check", set_array("golden.model_input", np.zeros((SIZE, SIZE, 1), np.float32))),
    ("self_check", set_array("golden.probabilities", np.zeros(3, np.float32))),
    ("trained_names", set_array("trained_names", np.zeros((2, 2), np.uint64))),
    ("sources", set_array("sources.0.features.variances", np.zeros(7, np.float32))),
    ("sources", change_source(spreads=[0.0, 0.1, 0.1])),
    ("sources", change_source(limit="far")),
]


@pytest.mark.fault("M63")
@pytest.mark.parametrize(("field", "change"), LIES)
def test_a_sealed_file_with_a_field_of_another_type_or_range_is_refused(copy, field, change):
    with h5py.File(copy, "r+") as file:
        change(file)
    reseal(copy)
    with pytest.raises(ModelFileError, match=f"field {field} of ModelInfo: expected") as refused:
        load_model(copy)
    assert len(str(refused.value)) < 500


@pytest.mark.fault("M63")
def test_a_field_that_no_version_has_is_refused(copy):
    with h5py.File(copy, "r+") as file:
        set_field(more=1)(file)
    reseal(copy)
    with pytest.raises(ModelFileError, match="not readable as a model file"):
        load_model(copy)


@pytest.mark.fault("M64")
@pytest.mark.parametrize(
    ("layer", "changes"),
    [
        ("conv1_conv", {"kernel_size": [50_000, 50_000]}),
        ("conv1_conv", {"strides": [0, 2**40]}),
        ("conv1_conv", {"dilation_rate": [9_999, 1]}),
        ("radiograph", {"batch_shape": [None, 100_000, 100_000, 1]}),
    ],
)
def test_a_sealed_file_with_a_geometry_of_no_network_is_refused_before_it_is_built(copy, layer, changes, monkeypatch):
    monkeypatch.setattr(keras.Model, "from_config", lambda *_: pytest.fail("Keras was called"))
    with h5py.File(copy, "r+") as file:
        change_layer(layer, **changes)(file)
    reseal(copy)
    with pytest.raises(ModelFileError, match=f"layer '{layer}' has .*; expected at most"):
        load_model(copy)


@pytest.mark.fault("M64")
def test_a_network_that_widens_the_picture_is_refused_before_it_computes(tmp_path):
    picture = keras.Input((SIZE, SIZE, 1), name="radiograph")
    maps = picture
    for number in range(6):
        maps = keras.layers.ZeroPadding2D(16, name=f"wider{number}")(maps)
    maps = keras.layers.Conv2D(8, 3, name="conv1_conv")(maps)
    maps = keras.layers.Activation("relu", name="relu")(maps)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(maps)
    logits = keras.layers.Dense(len(FINDINGS), name="logits")(pooled)
    wide = keras.Model(picture, keras.layers.Activation("sigmoid", name="probabilities")(logits))
    with pytest.raises(ModelFileError, match="a layer gives 394,272 numbers; expected at most 65,536"):
        save_model(wide, make_info(), tmp_path / "wide.h5")


@pytest.mark.fault("M65")
def test_weights_of_another_file_than_was_checked_are_never_used(copy, saved, monkeypatch):
    """The file is replaced between the check and the load: as a training that ends does under a starting site."""
    original = keras.Model.from_config

    def replaced(*args, **kwargs):
        shutil.copy(saved, copy)
        return original(*args, **kwargs)

    monkeypatch.setattr(keras.Model, "from_config", replaced)
    with pytest.raises(ModelFileError, match="was replaced while it was being read"):
        load_model(copy)
