"""What main_train.py refuses or breaks off, with which exit code, and what it leaves."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_run import (
    run,
)

import main_train
from cxr.system.atomic_files import training_lock

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["model.keras", "model", "a_folder.h5"])
def test_model_path_must_be_an_h5_file(project, name, capsys):
    (project / "a_folder.h5").mkdir()
    with pytest.raises(SystemExit) as stopped:
        run("--model-path", str(project / name))
    assert stopped.value.code == 2
    assert "expected the name of a file that ends in .h5" in capsys.readouterr().err


@pytest.mark.fault("T12")
def test_out_of_memory_names_a_smaller_batch(project, monkeypatch, capsys):
    class ResourceExhaustedError(Exception):  # as TensorFlow's is called
        pass

    def exhaust(*args):
        raise ResourceExhaustedError("OOM when allocating tensor")

    monkeypatch.setattr("cxr.training.loop._train_epoch", exhaust)
    assert run() == 3
    assert "Out of memory. Try --batch-size 2." in capsys.readouterr().err


def test_unknown_errors_keep_their_traceback(project, monkeypatch):
    def break_down(*args):
        raise ZeroDivisionError

    monkeypatch.setattr("cxr.training.loop._train_epoch", break_down)
    with pytest.raises(ZeroDivisionError):
        run()


@pytest.mark.parametrize(
    ("flag", "exit_code", "message"), [("--weights", 2, "no such weights file"), ("--soft-labels", 3, "No such file")]
)
def test_files_for_later_are_looked_for_before_any_image_is_decoded(
    project, monkeypatch, capsys, flag, exit_code, message
):
    monkeypatch.setattr(main_train, "cache_split", None)
    path = project / "missing.h5"
    assert run(flag, str(path)) == exit_code
    error = capsys.readouterr().err
    assert message in error
    assert str(path) in error


@pytest.mark.fault("T72")
@pytest.mark.parametrize("check", [(), ("--check",)])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--boxes", "bad.csv"), "bad.csv line 1: expected the header"),
        (("--soft-labels", "bad.csv"), "bad.csv line 1: missing column Mass"),
        (("--box-weight", "0.1"), "--box-weight needs boxes of training pictures"),
    ],
)
def test_useless_boxes_and_soft_labels_are_refused_before_any_image_is_decoded(
    project, monkeypatch, capsys, arguments, message, check
):
    monkeypatch.setattr(main_train, "cache_split", None)
    monkeypatch.chdir(project)
    (project / "bad.csv").write_text("Image\na.png\n")
    assert run(*arguments, *check) == 2
    assert message in capsys.readouterr().err


def damage_image(project):
    (project / "images" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n")


def fill_model_folder_path(project):
    (project / "model").write_text("a file where the folder should be")


def write_bad_boxes(project):
    (project / "sample_boxes.csv").write_text("no boxes\n")


def damage_checkpoints(project):
    (project / "model" / "checkpoints").mkdir(parents=True)
    for name in ("checkpoint-a.npz", "checkpoint-b.npz"):
        (project / "model" / "checkpoints" / name).write_bytes(b"")


@pytest.mark.fault("T03", "T07", "T09")
@pytest.mark.parametrize(
    ("damage", "arguments", "exit_code", "message"),
    [
        (damage_image, (), 2, "train: 1 of 24 radiographs cannot be used.\n'3.png': "),
        (write_bad_boxes, (), 2, "sample_boxes.csv line 1: expected the header"),
        (lambda project: None, ("--boxes", "missing.csv"), 3, "missing.csv"),
        (lambda project: None, ("--weights", "missing.h5"), 2, "missing.h5: no such weights file"),
        (fill_model_folder_path, (), 3, "cannot be written"),
        (damage_checkpoints, (), 3, "no checkpoint can be read: .* --fresh"),
    ],
)
def test_faults_before_the_first_epoch_end_with_their_exit_code(project, capsys, damage, arguments, exit_code, message):
    damage(project)
    assert run(*arguments) == exit_code
    error = capsys.readouterr().err
    assert message.split(".*")[0] in error
    assert message.split(".*")[-1] in error
    assert "Traceback" not in error


@pytest.mark.fault("T13")
def test_second_run_ends_at_once_naming_the_first(project, capsys):
    (project / "model").mkdir()
    with training_lock(project / "model"):
        start = time.monotonic()
        assert run() == 5
    assert time.monotonic() - start < 5
    assert f"process {os.getpid()}" in capsys.readouterr().err


@pytest.mark.fault("T20")
def test_closed_stdout_does_not_stop_the_run(tmp_path):
    code = "from cxr.system.terminal import say\nfor line in range(100_000): say(line)\nopen('done', 'w').close()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:  # fmt: skip
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
    assert (tmp_path / "done").exists()


@pytest.mark.fault("T67")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--epochs", "-1"), "expected a whole number of at least 0; received '-1'"),
        (("--image-size", "31"), "expected a whole number from 32 to 1024; received '31'"),
        (("--batch-size", "x"), "expected a whole number of at least 1; received 'x'"),
        (("--learning-rate", "2"), "expected a number from 1e-08 to 1; received '2'"),
        (("--learning-rate", "nan"), "received 'nan'"),
        (("--seed", "-1"), "expected a whole number from 0 to 4294967295; received '-1'"),
        (("--seed", "4294967296"), "expected a whole number from 0 to 4294967295; received '4294967296'"),
        (("--loss", "focal"), "invalid choice: 'focal'"),
    ],
)
def test_bad_arguments_are_refused_with_exit_code_2(capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        main_train.main(list(arguments))
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
