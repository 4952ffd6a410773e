"""The script as a whole: from three CSVs to a model file and a report, and every way in which it may end early.

DenseNet121 takes most of a minute to compile for training, so a small network with its names stands in for it; the
slow test at the end runs the real thing.
"""

import contextlib
import csv
import json
import logging
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from small_run import (
    FINDINGS,
    diverge,
    fail_to_save,
    keep_old_model,
    make_data,
    old_model_is_kept,
    run,
    stop_here,
)

import main_train
from cxr.data.batches import RadiographBatches
from cxr.network.model_file import load_model, read_model_info
from cxr.network.model_info import draw_self_check_picture
from cxr.training.arguments import parse_args

ROOT = Path(__file__).parents[2]


def test_default_run_makes_model_report_and_history(project, capsys):
    assert run("--learning-rate", "0.02") == 0
    output = capsys.readouterr().out
    assert "epoch   3/3 (all)  loss " in output
    assert f"Saved {project}/model/chest_xray_densenet_model.h5" in output
    assert "25.png" not in output
    for module, is_shown in (("matplotlib.font_manager", False), ("cxr.training.loop", True)):
        logging.getLogger(module).info("a report of %s", module)
        assert (f"a report of {module}" in capsys.readouterr().out) is is_shown
    assert "35.png  [" in output  # the first test image, with the findings as the README shows them

    model, info = load_model(project / "model" / "chest_xray_densenet_model.h5")
    assert (info.findings, info.image_size, len(info.thresholds)) == (FINDINGS, 32, 3)
    assert info.split_sizes["test"] == {"images": 12, "patients": 12}
    assert info.settings["learning_rate"] == 0.02
    assert info.settings["versions"]["keras"] == keras.__version__
    assert info.weights_origin == "none (random)"
    assert info.data == ""  # nobody said
    assert info.leakage is False
    np.testing.assert_allclose(
        model.predict(info.self_check.model_input[np.newaxis], verbose=0)[0], info.self_check.probabilities, atol=1e-6
    )
    (source,) = info.sources
    assert (source.name, source.num_images, source.num_patients) == ("", 24, 24)
    assert (source.features.mean.shape, source.layout.mean.shape) == ((8,), (64,))
    np.testing.assert_array_equal(info.self_check.model_input, draw_self_check_picture(32))

    (report,) = (project / "reports").iterdir()
    metrics = json.loads((report / "metrics.json").read_text())
    assert info.test_metrics["mean_auroc"] == pytest.approx(metrics["evaluation"]["mean_auroc"]["value"])
    assert info.test_metrics["auroc"]["Hernia"] is None  # no positive case: undefined, and out of the mean
    for row in metrics["evaluation"]["findings"]:
        kept = {name: values[row["finding"]] for name, values in info.test_metrics.items() if isinstance(values, dict)}
        assert kept == {
            "auroc": row["auroc"]["value"],
            "auroc_intervals": [row["auroc"]["low"], row["auroc"]["high"]],
            "positives": row["support"],
            "average_precision": row["average_precision"]["value"],
            "sensitivity": row["at_default"]["sensitivity"],
            "specificity": row["at_default"]["specificity"],
            "sensitivity_chosen": row["at_chosen"]["sensitivity"],
            "specificity_chosen": row["at_chosen"]["specificity"],
        }
    assert metrics["localisation"]["overall"]["num_cases"] > 0
    assert metrics["localisation"]["boxes"]["overall"]["num_cases"] == metrics["localisation"]["overall"]["num_cases"]
    assert (report / "report.html").stat().st_size > 10_000
    for history in (report / "history.csv", project / "logs" / "history.csv"):
        rows = list(csv.DictReader(history.read_text().splitlines()))
        assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert not list((project / "model" / "checkpoints").iterdir())  # the run is over
    assert sorted(path.name for path in (project / "model").iterdir()) == [
        ".train.lock",
        "checkpoints",
        "chest_xray_densenet_model.h5",
    ]


def test_report_of_the_sample_says_that_it_is_synthetic(project, monkeypatch):
    monkeypatch.setattr(main_train, "is_sample", lambda split, image_dir: True)
    assert run("--epochs", "1") == 0
    (report,) = (project / "reports").iterdir()
    page = (report / "report.html").read_text(encoding="utf-8")
    assert "The data are synthetic radiographs of a digital phantom, no patients." in page.partition("<main")[0]


@pytest.mark.fault("T19")
def test_same_seed_gives_the_same_metrics_and_the_cache_is_used_again(project, without_report, monkeypatch):
    infos = []
    for seed in ("1", "1", "2"):
        assert run("--seed", seed) == 0
        infos.append(read_model_info(project / "model" / "chest_xray_densenet_model.h5"))
        # It would fail if a radiograph were decoded again.
        monkeypatch.setattr("cxr.decoding.file_decoder.decode_with_notices", None)
    assert infos[0].test_metrics == infos[1].test_metrics != infos[2].test_metrics
    assert infos[0].thresholds == infos[1].thresholds


def test_no_epochs_take_the_start_weights_as_they_are(project, capsys):
    assert run("--epochs", "0") == 2  # random weights have no head worth a report
    assert "--epochs 0 trains nothing, and --weights none gives no head" in capsys.readouterr().err
    assert run() == 0
    path = project / "model" / "chest_xray_densenet_model.h5"
    trained, before = load_model(path)
    assert run("--weights", str(path), "--epochs", "0", "--model-path", str(project / "again.h5")) == 0
    network, info = load_model(project / "again.h5")
    for found, expected in zip(network.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert (info.test_metrics, info.thresholds) == (before.test_metrics, before.thresholds)
    report = max((project / "reports").iterdir(), key=lambda folder: folder.stat().st_mtime_ns)
    assert (report / "report.html").is_file()
    assert not (report / "history.csv").exists()


@pytest.mark.fault("T10")
def test_stopped_run_resumes_to_the_same_model(project, without_report, monkeypatch, capsys):
    assert run() == 0
    whole = read_model_info(project / "model" / "chest_xray_densenet_model.h5")
    (project / "model" / "chest_xray_densenet_model.h5").unlink()
    calls, get_batch = [], RadiographBatches.__getitem__

    def interrupt_at_12th(self, index):
        calls.append(index)
        if len(calls) == 12:
            signal.raise_signal(signal.SIGINT)  # in a thread that makes batches; the main thread runs the handler
        return get_batch(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(RadiographBatches, "__getitem__", interrupt_at_12th)
        assert run() == 130
    assert not (project / "model" / "chest_xray_densenet_model.h5").exists()
    assert "the same command goes on from here" in capsys.readouterr().err
    assert run() == 0
    assert "Resuming an unfinished run at epoch" in capsys.readouterr().out
    resumed = read_model_info(project / "model" / "chest_xray_densenet_model.h5")
    assert resumed.test_metrics == whole.test_metrics
    assert resumed.digest != ""


@pytest.mark.fault("T04")
def test_unfinished_run_with_other_settings_is_refused_until_thrown_away(project, without_report, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr("cxr.training.validation_fit.describe_model", stop_here)
        assert run() == 130
    assert run("--batch-size", "6") == 2
    assert "batch_size: was 4, now 6" in capsys.readouterr().err
    assert run("--batch-size", "6", "--fresh") == 0


@pytest.mark.fault("T06", "T08", "T10")
@pytest.mark.parametrize(
    ("target", "fault", "exit_code", "message"),
    [
        ("cxr.training.loop.make_loss", diverge, 4, "Epoch 1, batch 1 of 6: the loss is nan"),
        ("keras.Model.save", fail_to_save, 3, "No space left on device"),
        ("cxr.training.checkpoint.replacing", fail_to_save, 3, "No space left on device"),
        ("cxr.training.validation_fit.describe_model", stop_here, 130, "Stopped."),
    ],
)
def test_old_model_survives_every_failure(project, monkeypatch, capsys, target, fault, exit_code, message):
    keep_old_model(project)
    monkeypatch.setattr(target, fault)
    assert run() == exit_code
    assert message in capsys.readouterr().err
    assert old_model_is_kept(project)


def test_script_states_every_default(capsys):
    with contextlib.suppress(SystemExit):
        main_train.main(["--help"])
    text = capsys.readouterr().out
    flags = {word.rstrip(",") for word in text.split() if word.startswith("--")} - {"--help"}
    assert {"--weights", "--boxes", "--check"} <= flags


@pytest.mark.fault("T01")
@pytest.mark.slow
def test_killed_densenet_run_resumes_to_the_same_model(tmp_path):
    """The real script and network, killed with SIGKILL and SIGTERM when it has said that much, against a whole run."""
    infos = {}
    for name, ends in {
        "whole": (),
        "killed": (("Training on", signal.SIGKILL), ("epoch   1/3", signal.SIGTERM), ("epoch   2/3", signal.SIGKILL)),
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        make_data(folder)
        for script in ("main_train.py", "gradcam.py"):
            shutil.copy(ROOT / script, folder)
        for package in ("cxr", "templates"):
            shutil.copytree(ROOT / package, folder / package)
        command = [sys.executable, "-u", "main_train.py", "--weights", "none", "--image-size", "32"]
        command += ["--epochs", "3", "--batch-size", "4"]
        for said, signal_number in ends:
            output = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
            with subprocess.Popen(command, cwd=folder, **output) as process:
                assert any(line.startswith(said) for line in process.stdout)
                process.send_signal(signal_number)
                assert process.wait(60) in (-signal_number, 128 + signal_number)
        subprocess.run(command, cwd=folder, check=True)
        infos[name] = read_model_info(folder / "model" / "chest_xray_densenet_model.h5")
        history = list(csv.DictReader((folder / "logs" / "history.csv").read_text().splitlines()))
        assert [row["epoch"] for row in history] == ["1", "2", "3"]
    for key in ("mean_auroc", "loss"):
        assert infos["killed"].test_metrics[key] == pytest.approx(infos["whole"].test_metrics[key], abs=1e-5)


DENSENET_SCRIPT = """
import hashlib
import main_train
main_train.start_keras()
import keras, numpy as np
from cxr.network.densenet import build_network
keras.utils.set_random_seed(0)
network = build_network(("Mass", "Nodule"), 128)
network.compile(optimizer="adam", loss="binary_crossentropy")
rng = np.random.default_rng(0)
radiographs, labels = rng.integers(0, 256, (16, 128, 128, 1)), rng.integers(0, 2, (16, 2))
losses = [float(network.train_on_batch(radiographs, labels)) for _ in range(6)]
print(losses, hashlib.sha256(b"".join(weight.tobytes() for weight in network.get_weights())).hexdigest())
"""


@pytest.mark.fault("T19")
@pytest.mark.slow
def test_densenet_learns_the_same_weights_to_the_bit():
    """Sums over several threads may come in another order each time, which small networks do not show."""
    command = [sys.executable, "-c", DENSENET_SCRIPT]
    runs = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout for _ in range(3)]
    assert len(set(runs)) == 1


def test_shipped_sample_is_known_to_be_synthetic_and_the_shipped_model_says_so():
    args = parse_args([], description="", data_dir=ROOT, model_path=ROOT / "model.h5")
    said = main_train.describe_data(main_train.check_data(args).splits.values(), args.image_dir)
    assert "synthetic" in said
    info = read_model_info(ROOT / "model" / "chest_xray_densenet_model.h5")
    assert "synthetic" in " ".join(source.description for source in info.sources)
