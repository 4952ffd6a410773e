"""Further test sets of main_train.py, and where its model goes."""

import csv
import os
import shutil

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from small_run import (
    COUNTS,
    FINDINGS,
    run,
)

from cxr.network.model_file import keep_previous, load_model, read_model_info


@pytest.mark.fault("M81")
@pytest.mark.usefixtures("without_report")
def test_a_model_of_other_data_is_kept_and_one_of_the_same_data_is_not(project, capsys):
    folder = project / "model"
    folder.mkdir()
    path = folder / "chest_xray_densenet_model.h5"
    path.write_bytes(b"someone's model")
    assert run("--epochs", "1") == 0
    assert "it is kept as chest_xray_densenet_model.previous.h5." in capsys.readouterr().out
    assert (folder / "chest_xray_densenet_model.previous.h5").read_bytes() == b"someone's model"

    first = path.read_bytes()
    assert run("--epochs", "1", "--seed", "1") == 0  # the same data
    assert "is kept as" not in capsys.readouterr().out
    second = path.read_bytes()
    assert second != first

    for name in ("train-small.csv", "val_data.csv"):  # other data: the first two images are no longer in it
        lines = (project / name).read_text().splitlines(keepends=True)
        (project / name).write_text("".join([lines[0], *lines[3:]]))
    assert run("--epochs", "1") == 0
    assert "it is kept as chest_xray_densenet_model.previous-2.h5." in capsys.readouterr().out
    assert (folder / "chest_xray_densenet_model.previous.h5").read_bytes() == b"someone's model"
    assert (folder / "chest_xray_densenet_model.previous-2.h5").read_bytes() == second


@pytest.mark.usefixtures("without_report")
def test_model_path_is_where_the_model_is_saved_and_nothing_else_is_touched(project, capsys):
    shipped = project / "model" / "chest_xray_densenet_model.h5"
    shipped.parent.mkdir()
    shipped.write_bytes(b"the shipped model")
    own = project / "own" / "mine.h5"
    assert run("--epochs", "1", "--model-path", str(own)) == 0
    assert f"Saved {own}" in capsys.readouterr().out
    assert read_model_info(own).findings == FINDINGS
    assert read_model_info(own).test_metrics["num_images"] == COUNTS["test_data.csv"]
    assert shipped.read_bytes() == b"the shipped model"
    assert {one.name for one in own.parent.iterdir()} == {"mine.h5", ".train.lock", "checkpoints"}
    assert [one.name for one in shipped.parent.iterdir()] == [shipped.name]


def test_previous_model_is_kept_without_links_too(tmp_path, monkeypatch):
    """As on a file system that knows no hard links; a model that is kept already is not kept twice."""
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    path = tmp_path / "model.h5"
    path.write_bytes(b"old")
    assert keep_previous(path, "ab") == tmp_path / "model.previous.h5"
    assert keep_previous(path, "ab") == tmp_path / "model.previous.h5"
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == {
        "model.h5": b"old",
        "model.previous.h5": b"old",
    }
    assert keep_previous(tmp_path / "none.h5", "ab") is None


def write_table(path, rows, folder, size, views=()):
    """Write a CSV of `rows` radiographs with images in a folder, as `make_data` draws them, half of them AP."""
    rng = np.random.default_rng(len(str(path)))
    (path.parent / folder).mkdir(parents=True, exist_ok=True)
    lines = [["Image", *FINDINGS, "Patientid", *(["View Position"] if views else [])]]
    for number in range(rows):
        labels = [number % 2, *rng.integers(0, 2, 1), 0]
        picture = rng.integers(40, 120, (80, 72)).astype(np.uint8)
        picture[:, :36] += np.uint8(80 * labels[0])
        picture[:size] = 0
        cv2.imwrite(str(path.parent / folder / f"{number}.png"), picture)
        cells = [f"{folder.split('/', 1)[1]}/{number}.png", *labels, f"{path.stem} {folder} {number}"]
        lines.append(cells + ([views[number % 2]] if views else []))
    return lines


def write_two_sources(project):
    """Train and validate on images of two folders; the test splits are of one each."""
    tables = {
        "train-small.csv": (("images/nih/train", 12, 40), ("images/phantom/train", 0, 40)),
        "val_data.csv": (("images/nih/val", 12, 10), ("images/phantom/val", 0, 10)),
        "test_data.csv": (("images/nih/test", 12, 12),),
        "phantom.csv": (("images/phantom/test", 0, 44),),
    }
    for name, parts in tables.items():
        views = ("AP", "PA") if name == "phantom.csv" else ()
        lines = [write_table(project / name, rows, folder, size, views) for folder, size, rows in parts]
        with (project / name).open("w", newline="") as file:
            csv.writer(file).writerows([lines[0][0], *(row for part in lines for row in part[1:])])
    path = project / "phantom.csv"
    path.write_text(path.read_text().replace("Image,", "Path,").replace(".png", ""))  # as other tables name images


@pytest.mark.fault("C88")
@pytest.mark.usefixtures("without_report")
def test_further_test_set_is_scored_apart_and_its_source_told_apart(project, capsys):
    write_two_sources(project)
    described = ("--describe", "nih", "real radiographs", "--describe", "phantom", "a phantom")
    boxes = project / "boxes.csv"
    boxes.write_text("Image Index,Finding Label,Bbox [x,y,w,h],,,\nphantom/test/0,Mass,0,0,512,512,,,\n")
    further = ("--also-test", "phantom", str(project / "phantom.csv"), "--boxes", str(boxes))
    assert run(*further, *described) == 0
    assert "\nphantom: mean AUROC " in capsys.readouterr().out
    model, info = load_model(project / "model" / "chest_xray_densenet_model.h5")

    assert [(one.name, one.description, one.num_images) for one in info.sources] == [
        ("nih", "real radiographs", 40),
        ("phantom", "a phantom", 40),
    ]
    assert list(info.test_sets) == ["nih", "phantom"]
    assert info.test_sets["nih"]["mean_auroc"] == info.test_metrics["mean_auroc"]
    found = info.test_sets["phantom"]
    assert (found["description"], found["num_images"], found["num_patients"]) == ("a phantom", 44, 44)

    rows = list(csv.DictReader((project / "phantom.csv").read_text().splitlines()))
    labels = np.array([int(row["Mass"]) for row in rows])
    pictures = [cv2.imread(str(project / "images" / f"{row['Path']}.png"), cv2.IMREAD_GRAYSCALE) for row in rows]
    inputs = np.stack([cv2.resize(one, (32, 32), interpolation=cv2.INTER_AREA) for one in pictures])[..., np.newaxis]
    probabilities = model.predict(inputs.astype(np.float32), verbose=0)[:, 0]
    assert found["auroc"]["Mass"] == pytest.approx(roc_auc_score(labels, probabilities))
    predicted = probabilities >= info.thresholds[0]
    assert found["sensitivity_chosen"]["Mass"] == pytest.approx(predicted[labels == 1].mean())
    assert found["specificity_chosen"]["Mass"] == pytest.approx((~predicted)[labels == 0].mean())
    assert {view: one["num_images"] for view, one in found["views"].items()} == {"AP": 22, "PA": 22}
    assert info.test_sets["nih"]["views"] == {}  # the file has no column for it
    assert found["pointing"]["num_cases"] == 1
    assert "pointing" not in info.test_sets["nih"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--also-test", "phantom"], "expected NAME CSV"),
        (["--also-test", "a/b", "c.csv"], "expected a NAME of letters"),
        (["--also-test", "test", "c.csv"], "other than train, val, test"),
        (["--also-test", "a", "c.csv", "--also-test", "a", "d.csv"], "a NAME of its own"),
        (["--also-test", "phantom", "c.csv", "images", "more"], "expected NAME CSV"),
    ],
)
def test_further_test_set_that_is_not_named_well_is_refused(project, arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.fault("C80")
def test_further_test_sets_are_checked_before_training(project, capsys):
    def said():
        return " ".join(capsys.readouterr().out.split())

    write_two_sources(project)
    own = str(project / "phantom.csv")
    assert run("--check", "--also-test", "phantom", own) == 0
    assert run("--check", "--also-test", "phantom", "none.csv") == 3
    assert "none.csv does not exist. Correct the path or give another with --also-test phantom." in said()
    assert run("--check", "--also-test", "nih", own) == 2
    assert "the test split has that name already" in capsys.readouterr().err
    assert run("--check", "--describe", "nonsense", "words") == 2
    assert "expected one of the test sets nih" in capsys.readouterr().err
    assert run("--check", "--also-test", "again", str(project / "train-small.csv")) == 2
    assert "patients who are also in the train split: 80" in said()
    # Another folder may count its patients from 1 again: a warning.
    shutil.copytree(project / "images", project / "elsewhere")
    own = str(project / "train-small.csv")
    assert run("--check", "--also-test", "again", own, str(project / "elsewhere")) == 0
    assert "patients who are also in the train split: 80" in said()


@pytest.mark.fault("C93")
def test_rows_that_are_not_wanted_are_left_out_of_further_test_sets_too(project, capsys):
    names = ("train-small.csv", "val_data.csv", "test_data.csv", "with.csv", "without.csv")
    for number, name in enumerate(names):
        views = () if name == "without.csv" else ("AP", "PA")
        with (project / name).open("w", newline="") as file:
            csv.writer(file).writerows(write_table(project / name, 20, f"images/{number}", number, views))
    sets = [words for name in ("with", "without") for words in ("--also-test", name, str(project / f"{name}.csv"))]
    assert run("--check", "--where", "view position=AP", *sets) == 0
    printed = capsys.readouterr().out
    assert [line.split()[1:] for line in printed.splitlines() if line.startswith("images ")] == [
        ["10", "10", "10"],
        ["10", "20"],
    ]
    told = f"{project / 'without.csv'} line 1: --where: no column 'view position'; all of its values are taken."
    assert " ".join(told.split()) in " ".join(printed.split())
