"""Model files that are cut, changed, resealed or hostile: refused, or served unchanged."""

import json

import h5py
import numpy as np
import pytest
from model_files import FINDINGS, SIZE, change_layer, reseal
from small_network import build_small_network

from cxr.network import model_file
from cxr.network.model_file import INFO_ATTRIBUTE, load_model, read_model_info
from cxr.network.model_info import (
    ModelFileError,
)


@pytest.fixture(scope="module")
def network():
    model = build_small_network(FINDINGS, SIZE)
    rng = np.random.default_rng(2)  # moving statistics that are not their defaults
    model.set_weights([rng.uniform(0.2, 0.9, weight.shape).astype(np.float32) for weight in model.get_weights()])
    return model


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


@pytest.mark.fault("M04")
def test_flipped_bits_are_refused_or_change_nothing(network, saved, tmp_path):
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


@pytest.mark.fault("M80")
def test_sizes_that_would_keep_hdf5_busy_for_ever_are_refused(saved, tmp_path):
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


@pytest.mark.fault("M04")
def test_mutation_without_the_digest_changed_files_are_served(network, saved, tmp_path, monkeypatch):
    stored = read_model_info(saved).digest
    monkeypatch.setattr(model_file, "content_digest", lambda *args, **options: stored)
    with pytest.raises(AssertionError):
        test_flipped_bits_are_refused_or_change_nothing(network, saved, tmp_path)


@pytest.mark.fault("M03")
def test_truncated_files_are_refused(saved, tmp_path):
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


def link_outside(file):
    del file["model_weights/bn/bn/gamma"]
    file["model_weights/bn/bn"].create_dataset("gamma", (8,), "f4", external=[("/etc/passwd", 0, 4096)])


def link_softly(file):
    del file["model_weights/bn/bn/gamma"]
    file["model_weights/bn/bn/gamma"] = h5py.ExternalLink("/tmp/other.h5", "/x")  # noqa: S108 - never opened


def claim_terabytes(file):
    del file["model_weights/bn/bn/gamma"]
    file["model_weights/bn/bn"].create_dataset("gamma", (2**38,), "f4", chunks=(1024,))


@pytest.mark.fault("M05", "M06", "M07")
@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (set_nan, "conv1_conv/kernel holds NaN or Inf"),
        (shrink_findings, "field thresholds of ModelInfo: expected no entry, or one for each of the 1 findings"),
        (change_image_size, r"field self_check of ModelInfo: expected a model input uint8 \(64, 64, 1\)"),
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
def test_damaged_and_hostile_files_are_refused(copy, damage, message, sealed):
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


@pytest.mark.fault("M01", "M02", "M08")
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
def test_what_is_no_model_file_is_refused(tmp_path, make, message):
    make(tmp_path / "model.h5")
    with pytest.raises(ModelFileError, match=message):
        load_model(tmp_path / "model.h5")
