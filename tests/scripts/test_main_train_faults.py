"""Faults of a training run as a whole: kills, odd surroundings, breaking parts, too little data."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
import radiographs as files
from cached_splits import make_cached, make_split
from forked import Forker, runs
from small_network import build_small_network
from small_run import COUNTS, FINDINGS, fail_to_save, keep_old_model, make_data, run
from small_training import run_fit

import main_train
from cxr.data.batches import NUM_PREPARED, RadiographBatches, prepare_ahead
from cxr.data.cache import cache_split
from cxr.inference.predictor import Predictor
from cxr.metrics.per_finding import Predictions, evaluate
from cxr.network.model_file import load_model, read_model_info, save_model
from cxr.network.model_info import ModelInfo, SelfCheckPicture
from cxr.training.checkpoint import read_checkpoint

ROOT = Path(__file__).parents[2]
MODEL = "model/chest_xray_densenet_model.h5"

# The real script with a small network, a checkpoint after every batch, and batches that take a moment.
SCRIPT = """
    import time
    from pathlib import Path
    import keras
    import cxr.network.densenet, cxr.training.loop, cxr.training.validation_fit, gradcam
    import cxr.report.gallery, cxr.report.report_files, cxr.report.summary, cxr.report.test_evaluation
    import main_train
    from small_network import build_small_network

    def job(folder, *arguments):
        folder = Path(folder)
        for name in ("MODEL_PATH", "START_WEIGHTS_PATH"):
            setattr(main_train, name, folder / getattr(main_train, name).relative_to(main_train.PROJECT_DIR))
        main_train.PROJECT_DIR = folder
        cxr.network.densenet.build_network = lambda findings, size, *_: build_small_network(findings, size)
        cxr.report.report_files.write_report = lambda folder, *_: folder / "report.html"
        cxr.training.loop.CHECKPOINT_SECONDS = 0.0
        pause = cxr.training.loop._pause
        cxr.training.loop._pause = lambda *arguments: (pause(*arguments), time.sleep(0.01))
        return main_train.main(list(arguments))
"""
ARGUMENTS = ("--weights", "none", "--image-size", "32", "--batch-size", "4", "--learning-rate", "0.01")


def newest(folder):
    """Return when the newest checkpoint was written."""
    return max((path.stat().st_mtime_ns for path in folder.glob("checkpoint-*")), default=0)


def kill_and_resume(tmp_path, num_kills, num_epochs):
    """Kill a run again and again at random moments, let the last one end, and compare it with a run left alone."""
    chance, arguments = random.Random(1), (*ARGUMENTS, "--epochs", str(num_epochs))  # noqa: S311 - moments, no secrets
    places, folder = [], tmp_path / "killed" / "model" / "checkpoints"
    with Forker(SCRIPT, tmp_path / "log.txt") as forker:
        for name in ("whole", "killed"):
            (tmp_path / name).mkdir()
            make_data(tmp_path / name)
        for _ in range(num_kills):
            before = newest(folder)
            process = forker.start(tmp_path / "killed", *arguments)
            while newest(folder) == before and runs(process):  # compiling takes as long as it takes
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.3))
            os.kill(process, signal.SIGKILL)
            assert forker.wait() == -signal.SIGKILL
            checkpoint = read_checkpoint(folder)
            places.append((checkpoint.record["state"]["epoch"], checkpoint.record["state"]["next_batch"]))
        for name in ("whole", "killed"):
            forker.start(tmp_path / name, *arguments)
            assert forker.wait() == 0
    print(f"{num_kills} kills survived; gone on from (epoch, batch) {places}")
    (whole, whole_info), (killed, killed_info) = (load_model(tmp_path / name / MODEL) for name in ("whole", "killed"))
    for one, other in zip(whole.get_weights(), killed.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert whole_info.test_metrics == killed_info.test_metrics
    tables = [
        list(csv.DictReader((tmp_path / name / "logs" / "history.csv").read_text().splitlines()))
        for name in ("whole", "killed")
    ]
    assert [row["epoch"] for row in tables[1]] == [str(epoch) for epoch in range(1, num_epochs + 1)]
    assert [row["loss"] for row in tables[0]] == [row["loss"] for row in tables[1]]
    assert places == sorted(places)
    return places


@pytest.mark.fault("T01")
def test_a_killed_run_goes_on_to_the_same_model(tmp_path):
    kill_and_resume(tmp_path, 1, 3)


@pytest.mark.fault("T01")
@pytest.mark.slow
def test_twenty_kills_in_one_run_change_nothing(tmp_path):
    places = kill_and_resume(tmp_path, 20, 30)
    assert len(set(places)) > 10


@pytest.mark.fault("T06")
def test_a_full_disk_at_the_report_ends_with_exit_code_3(project, monkeypatch, capsys):
    keep_old_model(project)
    monkeypatch.setattr("cxr.report.report_files.write_report", fail_to_save)
    assert run() == 3
    assert "No space left on device" in capsys.readouterr().err
    assert read_model_info(project / MODEL).test_metrics["num_images"] == COUNTS["test_data.csv"]


@pytest.mark.fault("T61")
def test_a_full_folder_of_logs_does_not_end_the_training(project, without_report, monkeypatch, capsys):
    monkeypatch.setattr("cxr.report.history.replacing", fail_to_save)
    assert run() == 0
    said = capsys.readouterr().out
    assert said.count("The training goes on without it.") == 1
    assert (project / MODEL).is_file()


@pytest.mark.fault("T09")
def test_images_that_break_during_training_do_not_matter_until_the_next_start(
    project, without_report, monkeypatch, capsys
):
    real = main_train.train

    def break_images(*arguments):
        for image in (project / "images").iterdir():
            image.write_bytes(b"gone")
        return real(*arguments)

    monkeypatch.setattr(main_train, "train", break_images)
    monkeypatch.setattr("cxr.report.gallery.make_gallery", lambda *_: [])
    assert run() == 0
    capsys.readouterr()
    assert run() == 2
    assert "train: 24 of 24 radiographs cannot be used.\n'1.png': This is not a PNG" in capsys.readouterr().err


@pytest.mark.fault("T11")
def test_sigterm_ends_with_a_checkpoint_and_exit_code_143(project, without_report, monkeypatch):
    calls, get_batch = [], RadiographBatches.__getitem__

    def terminate_at_9th(self, index):
        calls.append(index)
        if len(calls) == 9:
            signal.raise_signal(signal.SIGTERM)
        return get_batch(self, index)

    monkeypatch.setattr(RadiographBatches, "__getitem__", terminate_at_9th)
    assert run() == 143
    assert read_checkpoint(project / "model" / "checkpoints").record["state"]["history"] != []


def save_with_seed(path, seed):
    """Save a small model that answers otherwise than one of another seed."""
    keras.utils.set_random_seed(seed)
    network = build_small_network(FINDINGS, 32)
    radiograph = np.random.default_rng(0).integers(0, 256, (32, 32, 1), np.uint8)
    answer = np.asarray(network(radiograph[np.newaxis].astype(np.float32)))[0]
    save_model(network, ModelInfo(FINDINGS, 32, self_check=SelfCheckPicture(radiograph, answer)), path)
    return radiograph[np.newaxis], answer


@pytest.mark.fault("M09", "T14")
def test_a_loaded_model_does_not_change_with_its_file(tmp_path):
    inputs, first = save_with_seed(tmp_path / "model.h5", 1)
    predictor = Predictor(tmp_path / "model.h5")
    _, second = save_with_seed(tmp_path / "model.h5", 2)
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_allclose(predictor.predict(inputs)[0][0], first, atol=1e-5)
    np.testing.assert_allclose(Predictor(tmp_path / "model.h5").predict(inputs)[0][0], second, atol=1e-5)
    (tmp_path / "model.h5").unlink()
    np.testing.assert_allclose(predictor.predict(inputs)[0][0], first, atol=1e-5)


@pytest.mark.fault("T17")
def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch):
    _, history = run_fit(tmp_path / "plain")
    now = [2e9]

    def jump():
        now[0] -= 86_400
        return now[0]

    monkeypatch.setattr(time, "time", jump)
    assert run_fit(tmp_path / "jumping")[1] == history


def check_command(folder, **environment):
    command = [sys.executable, str(ROOT / "main_train.py"), "--check", "deep", "--image-dir", str(folder / "images")]
    for name, file in zip(("train", "val", "test"), COUNTS, strict=True):
        command += [f"--{name}-csv", str(folder / file)]
    return command, os.environ | environment


@pytest.mark.fault("T17")
def test_locale_time_zone_and_odd_folder_names_change_nothing(tmp_path):
    plain, odd = tmp_path / "plain", tmp_path / "Räume & \N{SKULL}  %20 'x'"
    plain.mkdir()
    make_data(plain)
    shutil.copytree(plain, odd)
    outputs = set()
    for folder, cwd, environment in (
        (plain, plain, {"LC_ALL": "C.UTF-8", "TZ": "UTC"}),
        (odd, "/", {"LC_ALL": "C", "TZ": "Pacific/Kiritimati", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
        (odd, odd, {"LC_ALL": "de_DE.UTF-8", "LANGUAGE": "de"}),
    ):
        command, variables = check_command(folder, **environment)
        done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, timeout=120, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        outputs.add(done.stdout)
    assert len(outputs) == 1


@pytest.mark.fault("T20")
def test_a_pipe_that_is_closed_early_gives_no_traceback(tmp_path):
    make_data(tmp_path)
    command, variables = check_command(tmp_path)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=variables) as process:
        process.stdout.close()  # as `| head -1` does sooner or later
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.fault("T18")
def test_no_more_batches_are_made_than_are_to_be_kept(monkeypatch):
    made, get_batch = [], RadiographBatches.__getitem__
    monkeypatch.setattr(
        RadiographBatches, "__getitem__", lambda self, index: made.append(index) or get_batch(self, index)
    )
    batches = prepare_ahead(RadiographBatches(make_cached(100), 1), 0)
    for consumed in range(1, 20):
        next(batches)
        time.sleep(0.01)  # time in which more could be made
        assert len(made) <= consumed + NUM_PREPARED
    batches.close()
    assert len(made) < 30


@pytest.mark.fault("T18")
def test_one_huge_image_among_small_ones_is_held_alone(tmp_path):
    (tmp_path / "images").mkdir()
    for name, side in (("huge", 6_000), *((f"small{k}", 64) for k in range(20))):
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), np.resize(files.radiograph(64, 64), (side, side)))
    names = [path.name for path in sorted((tmp_path / "images").iterdir())]
    tracemalloc.start()
    cached = cache_split(make_split(names), tmp_path / "images", 32, tmp_path / "cache")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(cached) == 21
    assert peak < 4 * 36_000_000  # bytes: the picture, its file and the way between


@pytest.mark.fault("T19")
def test_the_order_of_sets_does_not_reach_the_data(tmp_path):
    make_data(tmp_path)
    code = """
        import sys
        from pathlib import Path
        from cxr.data.cache import cache_split
        from cxr.data.checks import check_splits
        folder = Path(sys.argv[1])
        names = ("train-small.csv", "val_data.csv", "test_data.csv")
        check = check_splits(*(folder / name for name in names), folder / "images")
        print(check.fingerprint, *(cache_split(s, folder / "images", 32, folder / "cache").fingerprint
                                   for s in check.splits.values()))
    """
    outputs = {
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(outputs.pop().split()) == 4


@pytest.mark.fault("T19")
@pytest.mark.slow
def test_three_runs_with_other_hash_seeds_have_the_same_metrics(tmp_path, monkeypatch):
    results = []
    for seed in ("0", "1", "12345"):
        (tmp_path / seed).mkdir()
        make_data(tmp_path / seed)
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        with Forker(SCRIPT, tmp_path / "log.txt") as forker:
            forker.start(tmp_path / seed, *ARGUMENTS, "--epochs", "3")
            assert forker.wait() == 0, (tmp_path / "log.txt").read_text()
        info = read_model_info(tmp_path / seed / MODEL)
        results.append(json.dumps([info.test_metrics, info.thresholds, info.calibration]))
    assert len(set(results)) == 1


def evaluation_peak(num_rows):
    """Return the peak of the memory, in bytes, that evaluating so many rows takes beside the inputs."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (num_rows, 14)).astype(np.float32)
    logits = (rng.normal(size=labels.shape) + labels).astype(np.float32)
    names = [str(row) for row in range(num_rows)]
    predictions = Predictions(names, [name[:-1] for name in names], [f"F{k}" for k in range(14)], labels, logits)
    tracemalloc.start()
    evaluate(predictions, [0.5] * 14, None, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.fault("T21")
def test_evaluating_takes_bounded_memory():
    assert evaluation_peak(1_000) < 150_000_000


@pytest.mark.fault("T21")
@pytest.mark.slow
def test_evaluating_25_000_rows_takes_bounded_memory():
    peak = evaluation_peak(25_000)
    print(f"25,000 rows of 14 findings: {peak / 1e6:.0f} MB")
    assert peak < 500_000_000


@pytest.mark.fault("C23")
@pytest.mark.parametrize("num_rows", [1, 2])
def test_almost_no_data_and_a_larger_batch_train_without_nan(project, without_report, capsys, num_rows):
    for name in COUNTS:
        lines = (project / name).read_text().splitlines()
        (project / name).write_text("\n".join(lines[: 1 + num_rows]))
    with np.errstate(divide="raise", invalid="raise"):
        assert run("--batch-size", "64", "--loss", "weighted") == 0, capsys.readouterr().err
    model, info = load_model(project / MODEL)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert info.test_metrics["auroc"]["Hernia"] is None
