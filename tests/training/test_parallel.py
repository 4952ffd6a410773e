"""Several devices and processes: who is who, shares of a batch, and runs that equal those of one process.

The slow tests need JAX: pip install -r requirements-jax.txt
"""

import csv
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from cached_splits import FINDINGS as CACHE_FINDINGS
from cached_splits import count_decodings, make_cached
from small_network import build_small_network
from small_run import make_data

import main_train
from cxr.data.batches import RadiographBatches, prepare_ahead
from cxr.data.cache import cache_split
from cxr.data.labels import Split
from cxr.network.model_file import load_model
from cxr.training import parallel
from cxr.training.run_control import (
    ADDRESSES,
    NUM_PROCESSES,
    PROCESS_ID,
    ParallelError,
    configured_processes,
    is_lost_peer,
)

ROOT = Path(__file__).resolve().parents[2]
needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs JAX (requirements-jax.txt)")


def environment(addresses="10.0.0.1:1234", count="2", number="1"):
    return {ADDRESSES: addresses, NUM_PROCESSES: count, PROCESS_ID: number}


def test_processes_are_read_from_keras_variables():
    assert configured_processes({}) == (1, 0)
    assert configured_processes(environment()) == (2, 1)
    assert configured_processes(environment(count="16", number="0")) == (16, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"addresses": ""},
        {"count": ""},
        {"count": "two"},
        {"count": "0"},
        {"number": ""},
        {"number": "2"},
        {"number": "-1"},
    ],
)
def test_incomplete_or_senseless_processes_are_refused(wrong):
    with pytest.raises(ParallelError, match="Set all three, or none"):
        configured_processes(environment(**wrong))


def test_several_processes_without_jax_are_refused(monkeypatch, capsys):
    for name, value in environment(number="0").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(main_train, "check_folder", lambda *args: None)
    with pytest.raises(ParallelError, match="Several processes need KERAS_BACKEND=jax"):
        parallel.join()
    monkeypatch.setenv(PROCESS_ID, "7")
    assert main_train.main([]) == 2
    assert "Set all three, or none" in capsys.readouterr().err


class TwoByTwo:
    """Stands for Keras' distribution over two processes of two devices each, seen from one of them."""

    num_processes, num_model_replicas = 2, 4

    def __init__(self, process_id):
        self.data_shard_id = process_id


def be_process(monkeypatch, number):
    monkeypatch.setattr(keras.distribution, "distribution", lambda: TwoByTwo(number))


def test_processes_prepare_the_rows_of_a_batch_between_them(monkeypatch):
    cached = make_cached(26)
    whole = RadiographBatches(cached, 8, training=True, seed=3)
    shares = []
    for number in (0, 1):
        be_process(monkeypatch, number)
        assert (parallel.is_several(), parallel.is_first(), parallel.num_devices()) == (True, number == 0, 4)
        shares.append(RadiographBatches(cached, 8, training=True, seed=3, own_rows=parallel.share_of_this_process()))
    for index in range(len(whole)):
        parts = []
        for number, share in enumerate(shares):
            be_process(monkeypatch, number)
            parts.append(share[index])
        for expected, *found in zip(whole[index], *parts, strict=True):
            assert [len(part) for part in found] == [4, 4]
            np.testing.assert_array_equal(np.concatenate(found), expected)


def test_threads_prepare_their_own_processs_share(monkeypatch):
    """Keras' distribution is the main thread's alone; batches are made in others."""

    def seen_from_here():
        return TwoByTwo(1) if threading.current_thread() is threading.main_thread() else None

    monkeypatch.setattr(keras.distribution, "distribution", seen_from_here)
    batches = RadiographBatches(make_cached(16), 8, training=True, seed=3, own_rows=parallel.share_of_this_process())
    prepared = list(prepare_ahead(batches, 0))
    assert [len(model_inputs) for _, (model_inputs, _) in prepared] == [4, 4]
    for index, (model_inputs, _) in prepared:
        np.testing.assert_array_equal(model_inputs, batches[index][0])


def test_batches_that_cannot_be_shared_equally_are_refused(monkeypatch):
    parallel.check_batch_size(7)  # one device takes any
    assert parallel.whole_batch_size(7) == 7
    be_process(monkeypatch, 0)
    parallel.check_batch_size(8)
    with pytest.raises(ParallelError, match=r"7 images cannot be shared equally by 4 devices.*multiple of 4"):
        parallel.check_batch_size(7)
    assert [parallel.whole_batch_size(size) for size in (1, 4, 5)] == [4, 4, 8]


def test_alone_everything_is_as_it_was():
    network = build_small_network(("Mass",), 32)
    batch = np.arange(6)
    assert parallel.gathering(network) is network
    assert parallel.spread(batch) is batch
    assert parallel.share_of_this_process()(6) == slice(0, 6)
    assert (parallel.largest(5), parallel.from_first(b"x"), parallel.from_first(None)) == (5, b"x", None)


def test_lost_peer_is_told_from_other_errors(monkeypatch):
    lost = RuntimeError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer [127.0.0.1]:3000")
    assert not is_lost_peer(lost)  # of one process, nobody is lost
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    assert is_lost_peer(lost)
    assert not is_lost_peer(ValueError("shapes do not fit"))


def test_cache_in_a_shared_folder_is_built_once(image_dir, tmp_path, monkeypatch):
    names = tuple(f"{k}.png" for k in range(5))
    split = Split("train", names, names, np.zeros((5, 2), np.float32), CACHE_FINDINGS)
    decoded, found = count_decodings(monkeypatch, image_dir), []

    def build():
        found.append(cache_split(split, image_dir, 32, tmp_path / "cache"))

    threads = [threading.Thread(target=build) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(decoded) == sorted(names)
    assert len({one.fingerprint for one in found}) == 1


SLURM_TOOLS = {
    # In two steps: one that nobody reads any more when the second comes is ended by SIGPIPE.
    "scontrol": 'test "$*" = "show hostnames node[1-2]" && echo node1 && sleep 0.3 && echo node2',
    "srun": 'for number in 0 1; do SLURM_PROCID=$number "$@"; done',
    "python": 'echo "$KERAS_BACKEND $KERAS_DISTRIBUTION_JOB_ADDRESSES $KERAS_DISTRIBUTION_NUM_PROCESSES '
    '$KERAS_DISTRIBUTION_PROCESS_ID|$*"',
}


@pytest.mark.skipif(os.name == "nt" or shutil.which("bash") is None, reason="needs bash")
def test_slurm_script_numbers_the_processes_and_passes_the_flags_on(tmp_path):
    for name, text in SLURM_TOOLS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NTASKS": "2"}
    command = ["bash", str(ROOT / "docs" / "train.slurm"), "--epochs", "3", "--image-dir", "a b"]
    output = subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout
    flags = "main_train.py --epochs 3 --image-dir a b"
    assert output.splitlines() == [f"jax node1:29500 2 {number}|{flags}" for number in (0, 1)]


# Real processes


def start(folder, number=None, port=0, seconds=0.0, count=2, devices=1, flags=()):
    """Start main_train.py in `folder`, as process `number` of `count` or alone."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("KERAS_")}
    variables |= {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'support'}", "XLA_FLAGS": ""}
    if number is not None:
        variables |= environment(f"127.0.0.1:{port}", str(count), str(number))
    if devices > 1:
        variables["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    command = [
        sys.executable,
        str(ROOT / "tests" / "support" / "parallel_run.py"),
        str(folder),
        str(seconds),
        "--epochs",
        "4",
        *flags,
    ]
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(*processes):
    """Wait for all; return their outputs after checking that none failed."""
    outputs = [process.communicate(timeout=900) for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
    return [output for output, _ in outputs]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def result(folder):
    """The history, and the weights of the model file."""
    with (folder / "logs" / "history.csv").open(newline="") as file:
        rows = [[float(row[key]) for key in ("loss", "val_loss", "val_mean_auroc")] for row in csv.DictReader(file)]
    model, info = load_model(folder / "model" / "chest_xray_densenet_model.h5")
    return np.array(rows), model.get_weights(), info


def assert_same(folder, other, atol):
    (rows, weights, info), (other_rows, other_weights, other_info) = result(folder), result(other)
    np.testing.assert_allclose(rows, other_rows, atol=atol)
    for one, two in zip(weights, other_weights, strict=True):
        np.testing.assert_allclose(one, two, atol=atol)
    assert info.test_metrics["mean_auroc"] == pytest.approx(other_info.test_metrics["mean_auroc"], abs=1e-6)
    assert info.thresholds == pytest.approx(other_info.thresholds, abs=1e-4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run in one process, and a function that makes a copy of the project as it was before."""
    folder = tmp_path_factory.mktemp("parallel")
    (folder / "data").mkdir()
    make_data(folder / "data")
    shutil.copytree(folder / "data", folder / "whole")
    (output,) = finish(start(folder / "whole"))
    assert "Training on jax, 1 device," in output
    return folder / "whole", lambda name: Path(shutil.copytree(folder / "data", folder / name))


@pytest.mark.slow
@needs_jax
def test_two_processes_give_what_one_gives(whole):
    one, copy = whole
    two, port = copy("two"), free_port()
    first, second = finish(*(start(two, number=number, port=port) for number in (0, 1)))
    assert "Training on jax, 2 devices in 2 processes," in first
    said = [line for line in second.splitlines() if not line.startswith("[Gloo]")]  # which is of the library
    assert said == []  # the first process speaks and writes for both
    assert_same(one, two, atol=1e-5)


@pytest.mark.slow
@needs_jax
def test_two_devices_give_what_one_gives_without_a_flag(whole):
    one, copy = whole
    two = copy("devices")
    (output,) = finish(start(two, devices=2))
    assert "Training on jax, 2 devices," in output
    assert_same(one, two, atol=1e-5)


@pytest.mark.slow
@needs_jax
def test_two_processes_learn_from_a_teacher_as_one_does(whole):
    teacher, copy = whole
    flags = ["--teacher", str(teacher / "model" / "chest_xray_densenet_model.h5")]
    one, two, port = copy("taught"), copy("taught-two"), free_port()
    (output,) = finish(start(one, flags=flags))
    assert "Teachers: chest_xray_densenet_model.h5 for 24 of 24 training pictures." in output
    finish(*(start(two, number=number, port=port, flags=flags) for number in (0, 1)))
    assert_same(one, two, atol=1e-5)
    assert not np.allclose(result(one)[0][:, 0], result(teacher)[0][:, 0], atol=1e-3)


@pytest.mark.slow
@needs_jax
@pytest.mark.parametrize("killed", [1, 0])
def test_killed_process_ends_the_other_and_the_run_goes_on(whole, killed):
    one, copy = whole
    two, port = copy(f"killed-{killed}"), free_port()
    processes = [start(two, number=number, port=port, seconds=0.2) for number in (0, 1)]
    for line in processes[0].stdout:
        if line.startswith("epoch   1/4"):
            break
    processes[killed].kill()
    _, errors = processes[1 - killed].communicate(timeout=300)
    processes[killed].communicate()
    # JAX notices the loss of the process that all are in touch with, number 0, sooner than a computation does.
    code = processes[1 - killed].returncode
    assert (code, "Another process of this run has ended" in errors) == (6, True) or (
        (code, "another task died" in errors) == (-signal.SIGABRT, True) and killed == 0
    ), errors
    assert not (two / "model" / "chest_xray_densenet_model.h5").exists()
    port = free_port()
    first, _ = finish(*(start(two, number=number, port=port) for number in (0, 1)))
    assert "Resuming an unfinished run at epoch" in first
    assert_same(one, two, atol=1e-5)
