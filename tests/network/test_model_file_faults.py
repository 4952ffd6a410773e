"""Faults of the model file that need another process, another user or a real limit of the file system."""

import contextlib
import io
import json
import os
import random
import shutil
import signal
import tempfile
import time
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from forked import Forker, runs
from model_files import FINDINGS, RADIOGRAPHS, SIZE, change_layer, make_info, reseal
from small_network import build_small_network

from cxr.network.model_file import INFO_ATTRIBUTE, load_model, read_model_info, save_model
from cxr.network.model_info import ModelFileError

ROOT = Path(__file__).parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="signals, users and limits are POSIX's")


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(3)
    return build_small_network(FINDINGS, SIZE)


# --- foreign and hostile files ---------------------------------------------------------------------------------------


@pytest.mark.fault("M07")
@pytest.mark.parametrize("in_place_of", ["pooled", "probabilities"])
def test_code_in_a_sealed_file_is_not_run(copy, tmp_path, in_place_of):
    """A Lambda layer whose code makes a file: refused by its name before Keras sees it, whatever the digest says."""
    mark = tmp_path / "was-here"
    code = keras.layers.Lambda(eval(f"lambda x: (open({str(mark)!r}, 'w'), x)[1]"))  # noqa: S307 - the attack itself
    with h5py.File(copy, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        layer = next(one for one in config["config"]["layers"] if one["config"]["name"] == in_place_of)
        layer["class_name"], name = "Lambda", layer["config"]["name"]
        layer["config"] = keras.saving.serialize_keras_object(code)["config"] | {"name": name}
        del file.attrs["model_config"]
        file.attrs["model_config"] = json.dumps(config)
    reseal(copy)
    with pytest.raises(ModelFileError, match="expected only the layers of this project's network, found Lambda"):
        load_model(copy)
    assert not mark.exists()


@pytest.mark.fault("M06")
def test_findings_in_another_order_than_the_heads_are_caught_by_the_digest(copy):
    with h5py.File(copy, "r+") as file:
        plain = json.loads(file.attrs[INFO_ATTRIBUTE])
        file.attrs[INFO_ATTRIBUTE] = json.dumps(plain | {"findings": plain["findings"][::-1]}, sort_keys=True)
    with pytest.raises(ModelFileError, match="damaged or changed"):
        load_model(copy)


@pytest.mark.fault("M13")
def test_what_one_run_says_never_goes_with_the_weights_of_another(network, copy, tmp_path):
    other = tmp_path / "other.h5"
    network.set_weights([weight + 1 for weight in network.get_weights()])
    save_model(network, make_info(settings={"epochs": 9}), other)
    with h5py.File(other) as source, h5py.File(copy, "r+") as file:
        file.attrs[INFO_ATTRIBUTE] = source.attrs[INFO_ATTRIBUTE]
    assert read_model_info(other).settings == {"epochs": 9}
    with pytest.raises(ModelFileError, match="damaged or changed"):
        load_model(copy)


def write_weights_file(network, path):
    network.save_weights(path.with_name("model.weights.h5"))
    path.with_name("model.weights.h5").rename(path)


def write_keras_zip(network, path):
    network.save(path.with_name("model.keras"))
    path.with_name("model.keras").rename(path)


def write_foreign_zip(network, path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("config.json", "{}")
    path.write_bytes(buffer.getvalue())


def write_keras_2_file(network, path):
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = b"2.3.1", b"tensorflow"
        file.attrs["model_config"] = json.dumps({"class_name": "Model", "config": {"layers": []}})
        file.create_group("model_weights")


@pytest.mark.fault("M08")
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras' own, of TensorFlow's variables
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_weights_file, "a Keras file without ModelInfo .* Expected a model file that main_train.py saved"),
        (write_keras_zip, "expected an HDF5 model file, found a file that starts with b'PK"),
        (write_foreign_zip, "expected an HDF5 model file, found a file that starts with b'PK"),
        (write_keras_2_file, r"a Keras file without ModelInfo .*, written by Keras 2\.3\.1"),
    ],
)
def test_other_files_of_keras_are_refused_in_one_line(network, tmp_path, write, message):
    write(network, tmp_path / "model.h5")
    with pytest.raises(ModelFileError, match=message) as refused:
        load_model(tmp_path / "model.h5")
    assert "\n" not in str(refused.value)


@pytest.mark.fault("M08")
def test_a_file_of_a_newer_keras_loads_or_names_both_versions(copy):
    for change, loads in (
        (lambda file: None, True),
        (change_layer("conv1_conv", kernel_size="from the future"), False),
    ):
        with h5py.File(copy, "r+") as file:
            plain = json.loads(file.attrs[INFO_ATTRIBUTE])
            file.attrs[INFO_ATTRIBUTE] = json.dumps(plain | {"keras_version": "9.8.7"}, sort_keys=True)
            change(file)
        reseal(copy)
        if loads:
            assert load_model(copy)[1].keras_version == "9.8.7"
        else:
            with pytest.raises(ModelFileError, match=rf"written by Keras 9\.8\.7, .* by Keras {keras.__version__}"):
                load_model(copy)


@pytest.mark.fault("M11")
def test_only_keras_3_is_imported():
    """TF_USE_LEGACY_KERAS turns tensorflow.keras into Keras 2; only `keras` is imported here."""
    for path in [*ROOT.glob("*.py"), *ROOT.glob("cxr/**/*.py"), *ROOT.glob("tools/**/*.py")]:
        text = path.read_text(encoding="utf-8")
        assert "tensorflow.keras" not in text, path
        assert "tf.keras" not in text, path
        assert "tf_keras" not in text, path


@contextlib.contextmanager
def without_privileges():
    """Drop root's right to read everything, for as long as the block runs."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        yield


@pytest.mark.fault("M10")
@posix
def test_a_file_that_may_not_be_read_is_refused_with_the_reason(saved):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders can be entered by their owner alone
        Path(folder).chmod(0o755)
        path = Path(shutil.copy(saved, folder))
        path.chmod(0)
        with without_privileges(), pytest.raises(ModelFileError, match="cannot be read: Permission denied"):
            load_model(path)


# --- saving that fails or is killed ----------------------------------------------------------------------------------


@pytest.mark.fault("M12")
def test_a_full_disk_is_found_before_writing(network, tmp_path, monkeypatch):
    (tmp_path / "model.h5").write_bytes(b"the old model")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1_000_000))
    with pytest.raises(OSError, match=r"the model file needs 5 MB there, 1 MB are free"):
        save_model(network, make_info(), tmp_path / "model.h5")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"model.h5": b"the old model"}


SAVER = """
    import resource
    from pathlib import Path
    import keras
    from small_network import build_small_network
    from model_files import FINDINGS
    from model_files import SIZE
    from model_files import make_info
    from cxr.system.atomic_files import sweep_temp_files
    from cxr.network.model_file import save_model

    def job(path, how):
        path = Path(path)
        sweep_temp_files(path.parent)
        network = build_small_network(FINDINGS, SIZE)
        if isinstance(how, int):  # a limit of the file size: the writes inside of HDF5 fail
            resource.setrlimit(resource.RLIMIT_FSIZE, (how, -1))
            save_model(network, make_info(), path)
        while how == "project":
            save_model(network, make_info(), path)
        while how == "in place":  # what Keras' own examples do
            network.save(path, include_optimizer=False)
"""


def survive_kills(path, num_kills, how="project"):
    """Kill a process that saves without pause, at random moments; return how often the model file was whole after."""
    whole, chance = 0, random.Random(12)  # noqa: S311 - moments, not secrets
    with Forker(SAVER, path.parent / "log.txt") as forker:
        (path.parent / "log.txt").unlink()
        for _ in range(num_kills):
            before = path.stat().st_mtime_ns
            process = forker.start(path, how)
            while path.stat().st_mtime_ns == before and runs(process):  # until the first save has come this far
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.3))
            os.kill(process, signal.SIGKILL)
            assert forker.wait() == -signal.SIGKILL
            with contextlib.suppress(ModelFileError, OSError):
                if how == "in place":
                    keras.models.load_model(path)
                else:
                    model, _ = load_model(path)
                    assert np.isfinite(model.predict(RADIOGRAPHS, verbose=0)).all()
                whole += 1
    return whole


def sweep_strays(path):
    """Return the files beside the model file, and that the next start would delete them."""
    from cxr.system.atomic_files import sweep_temp_files

    strays = {other.name for other in path.parent.iterdir()} - {path.name}
    assert set(sweep_temp_files(path.parent)) == strays
    assert [other.name for other in path.parent.iterdir()] == [path.name]


@pytest.mark.fault("M12")
@posix
@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 20_000])
def test_writes_that_fail_leave_the_old_file_whatever_hdf5_makes_of_it(copy, limit):
    """HDF5 may end the process in its own clean-up, which Python cannot catch; the old file is no part of that."""
    path = Path(copy)
    before = path.read_bytes()
    with Forker(SAVER, path.parent.parent / "log.txt") as forker:
        forker.start(path, limit)
        assert forker.wait() != 0
    assert path.read_bytes() == before
    sweep_strays(path)


@pytest.mark.fault("M12")
@posix
def test_a_kill_during_saving_leaves_a_whole_file(copy):
    path = Path(copy)
    assert survive_kills(path, 1) == 1
    sweep_strays(path)


@pytest.mark.fault("M12")
@posix
@pytest.mark.slow
def test_twenty_kills_during_saving_leave_a_whole_file(copy):
    path = Path(copy)
    assert survive_kills(path, 20) == 20
    print("20 kills during saving survived")
    sweep_strays(path)


@pytest.mark.fault("M12")
@posix
@pytest.mark.slow
def test_mutation_kills_during_saving_in_place_destroy_the_file(copy):
    """The kills do hit: the same ones, on a file that is written where it lies, leave less than whole files."""
    whole = survive_kills(Path(copy), 12, how="in place")
    print(f"saving in place: whole after {whole} of 12 kills")
    assert whole < 12
