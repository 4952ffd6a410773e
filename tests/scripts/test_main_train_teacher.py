"""main_train.py --teacher: who teaches is said and checked before anything is decoded, and belongs to the run."""

import hashlib

import h5py
import numpy as np
import pytest
from small_run import FINDINGS, run
from small_teacher import use_small_teachers, write_small_teacher

import main_train
from cxr.distillation.teacher_file import TeacherInfo, save_teacher
from cxr.network.model_file import read_model_info
from cxr.training import loop


@pytest.fixture
def teacher(project, monkeypatch):
    """A teacher's file that knows the three findings, in another order and spelling, and one more."""
    use_small_teachers(monkeypatch)
    path = project / "teacher.h5"
    write_small_teacher(path, ("Hernia", "Pleural thickening", "Edema", "mass"))
    return path


def label(path):
    return f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


def test_a_taught_run_says_who_teaches_and_its_model_remembers(project, teacher, without_report, capsys):
    other = project / "other.h5"
    write_small_teacher(other, ("Hernia", "Edema", "Mass"), seed=3)
    boxes = ["--boxes", str(project / "boxes.csv"), "--box-weight", "0.1"]
    (project / "boxes.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
        + "".join(f"{k}.png,Mass,0,0,512,1024,,,\n" for k in range(1, 25))
    )
    arguments = ["--mixup", "0.4", *boxes, "--teacher", str(teacher), "--teacher", str(other)]
    assert run(*arguments) == 0
    assert (
        "Teachers: teacher.h5 for 24 of 24 training pictures; other.h5 for 24 of 24 training pictures, 2 of 3 findings."
        in capsys.readouterr().out
    )
    info = read_model_info(project / "model" / "chest_xray_densenet_model.h5")
    assert info.settings["teachers"] == f"{label(teacher)}, {label(other)}"


@pytest.mark.fault("T04")
def test_another_teacher_is_another_run(project, teacher, without_report, monkeypatch, capsys):
    train_epoch = loop._train_epoch

    def stop_in_the_second_epoch(one, stop):
        if one.state.epoch == 1:
            raise KeyboardInterrupt
        train_epoch(one, stop)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_train_epoch", stop_in_the_second_epoch)
        assert run("--teacher", str(teacher)) == 130
    before = teacher.read_bytes()
    write_small_teacher(teacher, FINDINGS, seed=4)
    assert run("--teacher", str(teacher)) == 2
    assert "An unfinished run with other settings or data is there (teachers: was teacher.h5" in capsys.readouterr().err
    teacher.write_bytes(before)
    assert run("--teacher", str(teacher)) == 0
    assert "Resuming an unfinished run at epoch 2" in capsys.readouterr().out


def missing(path):
    path.unlink()


def foreign_findings(path):
    write_small_teacher(path, ("Edema",))


def too_few_findings(path):
    write_small_teacher(path, ("Hernia",))


def foreign_folder(path):
    write_small_teacher(path, FINDINGS, sources=("nih",))


def damaged(path):
    with h5py.File(path, "r+") as file:
        file["weights/bn/0"][0] = 0.5


@pytest.mark.fault("T73")
@pytest.mark.parametrize("check", [(), ("--check",)])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (missing, "teacher.h5: no such teacher's file"),
        (damaged, "damaged or changed"),
        (too_few_findings, "No teacher knows Mass, Pleural_Thickening. Expected that every finding"),
        (foreign_findings, "knows none of the findings Mass, Pleural_Thickening, Hernia; it knows Edema"),
        (foreign_folder, "has learned from images in the folders nih, with which no training image's name begins"),
    ],
)
def test_a_useless_teacher_is_refused_before_any_image_is_decoded(
    project, teacher, monkeypatch, capsys, change, message, check
):
    monkeypatch.setattr(main_train, "cache_split", None)
    change(teacher)
    assert run("--teacher", str(teacher), *check) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_the_check_says_what_a_teacher_can_teach(project, teacher, capsys):
    assert run("--check", "--teacher", str(teacher)) == 0
    assert "Teachers: teacher.h5 for 24 of 24 training pictures." in capsys.readouterr().out


def test_a_taught_student_answers_as_its_teacher_does(project, teacher, without_report):
    """Whatever the labels, all 0 for Hernia, and the picture: of a teacher with constant answers, 0.98 and 0.02."""
    for logit in (4.0, -4.0):
        network = write_small_teacher(teacher, FINDINGS)
        head = network.get_layer("logits")
        head.set_weights([np.zeros(head.kernel.shape), np.array([0, 0, logit])])
        save_teacher(network, TeacherInfo(FINDINGS, network.input_shape[1]), teacher)
        assert run("--teacher", str(teacher), "--fresh") == 0
        info = read_model_info(project / "model" / "chest_xray_densenet_model.h5")
        assert info.self_check.probabilities[2] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-4)


def test_a_table_teaches_beside_a_network_or_alone(project, teacher, without_report, capsys):
    """Alone, and right about every picture, it moves the student's answers to its own: here 0.98 or 0.02 for all."""
    table = project / "probabilities.csv"
    for probability in (0.98, 0.02):
        rows = "".join(f"{k}.png,{probability},{probability},{probability}\n" for k in range(1, 25))
        table.write_text("Image,Mass,Pleural Thickening,Hernia\n" + rows)
        assert run("--teacher", str(table), "--fresh", "--epochs", "1") == 0
        assert "Teachers: probabilities.csv for 24 of 24 training pictures." in capsys.readouterr().out
        info = read_model_info(project / "model" / "chest_xray_densenet_model.h5")
        assert info.self_check.probabilities == pytest.approx([probability] * 3, abs=0.02)
    assert run("--teacher", str(table), "--teacher", str(teacher), "--fresh", "--epochs", "1") == 0
    info = read_model_info(project / "model" / "chest_xray_densenet_model.h5")
    assert info.settings["teachers"] == f"{label(table)}, {label(teacher)}"


@pytest.mark.fault("T73")
@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("Image,Mass,Hernia\n1.png,0,1\n", "missing column Pleural_Thickening. Add it, or leave out --teacher."),
        ("Image,Mass,Pleural_Thickening,Hernia\n1.png,0,1,2\n", "line 2: expected a probability from 0 to 1"),
        ("Image,Mass,Pleural_Thickening,Hernia\nx.png,0,1,0\n", "none of its images is in the train split"),
    ],
)
def test_a_useless_table_is_refused_before_any_image_is_decoded(project, monkeypatch, capsys, table, message):
    monkeypatch.setattr(main_train, "cache_split", None)
    (project / "table.csv").write_text(table)
    assert run("--teacher", str(project / "table.csv")) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
