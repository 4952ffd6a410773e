"""main_train.py --evaluate: any model file on any table, refitted to other radiographs, and against another model."""

import csv
import json

import cv2
import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from small_network import build_small_network

import main_train
from cxr.imaging.radiograph import read_radiograph, to_model_input
from cxr.metrics.calibration import fit_calibration
from cxr.metrics.per_finding import choose_thresholds
from cxr.network.model_file import load_model, read_model_info, save_model
from cxr.network.model_info import ModelInfo, hash_image_names

FINDINGS = ("Mass", "Pleural_Thickening", "Hernia")
SIZE, NUM_IMAGES = 32, 60


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Radiographs whose left half is brighter with a mass, whose upper half with a thickening; and their labels."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    labels = random.integers(0, 2, (NUM_IMAGES, 3))
    for number, (mass, thickening, hernia) in enumerate(labels):
        picture = random.integers(40, 120, (80, 72)).astype(np.uint8)
        picture[:, :36] += np.uint8(60 * mass)
        picture[:40] += np.uint8(40 * thickening)
        picture[40:, 36:] += np.uint8(20 * hernia)
        cv2.imwrite(str(folder / f"{number:03}.png"), picture)
    return folder, labels


def network(seed=1, findings=FINDINGS):
    keras.utils.set_random_seed(seed)
    model = build_small_network(findings, SIZE)
    random = np.random.default_rng(seed)
    model.get_layer("logits").set_weights([random.normal(0, 3, (8, len(findings))), random.normal(0, 1, len(findings))])
    return model


@pytest.fixture
def project(tmp_path, monkeypatch, images):
    """A project folder with a table of the radiographs and a model file."""
    monkeypatch.setattr(main_train, "PROJECT_DIR", tmp_path)
    monkeypatch.setattr("cxr.report.report_files.FIGURE_DPI", 30)
    write_table(tmp_path / "test.csv", images[1], FINDINGS)
    save_model(network(), ModelInfo(FINDINGS, SIZE, feature_shape=(15, 15, 8)), tmp_path / "a.h5")
    return tmp_path


def write_table(path, labels, findings, rows=range(NUM_IMAGES)):
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["Image", *findings, "Patientid"])
        table.writerows([f"{row:03}.png", *labels[row], row // 2] for row in rows)


def run(project, images, *arguments):
    table = () if "--test-csv" in arguments else ("--test-csv", str(project / "test.csv"))
    return main_train.main(["--image-dir", str(images[0]), *table, *map(str, arguments)])


def logits_of(path, images):
    model, info = load_model(path)
    inputs = np.stack(
        [to_model_input(read_radiograph(one), info.image_size) for one in sorted(images[0].glob("*.png"))]
    )
    return np.asarray(keras.Model(model.input, model.get_layer("logits").output)(inputs.astype(np.float32)))


def metrics(project):
    (folder,) = (project / "reports").iterdir()
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Not intended for clinical use" in page
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8")), page


@pytest.mark.fault("M68")
def test_report_of_a_model_without_thresholds_calibration_or_card(project, images, capsys):
    before = (project / "a.h5").read_bytes()
    assert run(project, images, "--evaluate", project / "a.h5") == 0
    found, page = metrics(project)
    logits = logits_of(project / "a.h5", images)
    for k, row in enumerate(found["evaluation"]["findings"]):
        assert row["auroc"]["value"] == pytest.approx(roc_auc_score(images[1][:, k], logits[:, k]))
        assert row["at_chosen"] == row["at_default"]
    assert found["calibration"] is None
    assert found["threshold_rule"] == "none; 0.5 for every finding"
    assert "Chosen thresholds: none; 0.5 for every finding." in page
    assert "does not list its training images" in page
    assert 'id="training"' not in page
    assert "Report: " in capsys.readouterr().out
    assert (project / "a.h5").read_bytes() == before
    assert not (project / "reports" / "history.csv").exists()


def test_report_says_where_the_test_radiographs_are_synthetic(project, images, monkeypatch, capsys):
    monkeypatch.setattr("cxr.report.model_evaluation.is_sample", lambda split, image_dir: split.name == "test")
    assert run(project, images, "--evaluate", project / "a.h5") == 0
    words = "The test radiographs are synthetic radiographs of a digital phantom, no patients."
    assert words in metrics(project)[1]
    assert words in capsys.readouterr().out


@pytest.mark.fault("C63")
def test_boxes_are_named_as_the_table_names_the_radiographs(project, images, capsys):
    table, boxes = project / "test.csv", project / "boxes.csv"
    table.write_text(table.read_text().replace(".png", ""))
    boxes.write_text("Image Index,Finding Label,Bbox [x,y,w,h],,,\n000,Mass,0,0,512,1024,,,\n")
    assert run(project, images, "--evaluate", project / "a.h5", "--boxes", boxes) == 0
    assert "localisation against boxes: 1 cases" in capsys.readouterr().out


def test_findings_are_matched_by_name_and_the_others_named(project, images, capsys):
    write_table(project / "other.csv", images[1][:, [2, 0, 1]], ("HERNIA", "mass", "Edema"))
    assert run(project, images, "--evaluate", project / "a.h5", "--test-csv", project / "other.csv") == 0
    said = capsys.readouterr().out
    assert "only a.h5 has them: Pleural_Thickening." in said
    assert f"only {project / 'other.csv'} has them: Edema." in said
    found, _ = metrics(project)
    logits = logits_of(project / "a.h5", images)
    rows = found["evaluation"]["findings"]
    assert [row["finding"] for row in rows] == ["Mass", "Hernia"]
    for row, k in zip(rows, (0, 2), strict=True):
        assert row["auroc"]["value"] == pytest.approx(roc_auc_score(images[1][:, k], logits[:, k]))


def test_radiographs_that_the_model_was_trained_with_are_named(project, images, capsys):
    info = ModelInfo(
        FINDINGS, SIZE, feature_shape=(15, 15, 8), trained_names=hash_image_names(["nih/007.png", "x.png"])
    )
    save_model(network(), info, project / "a.h5")
    assert read_model_info(project / "a.h5").trained_names.tolist() == info.trained_names.tolist()
    assert run(project, images, "--evaluate", project / "a.h5") == 0
    assert "1 of 60 images have names that the model was trained with (007.png)" in capsys.readouterr().out
    assert "007.png" in metrics(project)[1]


def test_refit_writes_a_copy_with_the_same_network(project, images):
    before = (project / "a.h5").read_bytes()
    write_table(project / "val.csv", images[1][:, :2], FINDINGS[:2], range(40))
    write_table(project / "test.csv", images[1], FINDINGS, range(40, 60))
    out = project / "fitted.h5"
    arguments = ("--evaluate", project / "a.h5", "--val-csv", project / "val.csv", "--model-path", out)
    assert run(project, images, *arguments) == 0
    assert (project / "a.h5").read_bytes() == before
    (old, _), (new, info) = load_model(project / "a.h5"), load_model(out)
    assert all(np.array_equal(*pair) for pair in zip(old.get_weights(), new.get_weights(), strict=True))
    logits = logits_of(out, images)[:40, :2].astype(np.float32)
    labels = images[1][:40, :2].astype(np.float32)
    assert info.thresholds[:2] == pytest.approx(
        choose_thresholds(labels, 1 / (1 + np.exp(-logits.astype(float)))), abs=1e-5
    )
    assert info.thresholds[2] is None  # the validation table does not know it
    expected = fit_calibration(labels, logits)
    assert info.calibration["slopes"] == pytest.approx([*expected.slopes, 1.0], abs=1e-4)
    assert info.calibration["biases"] == pytest.approx([*expected.biases, 0.0], abs=1e-4)
    assert info.sources[0].num_images == 32  # the others of the 40 set the limit
    assert info.settings["refit"]["images"] == 40
    assert set(info.test_metrics["auroc"]) == {"Mass", "Pleural_Thickening"}


@pytest.fixture(scope="module")
def better():
    """A network whose first logit is the brightness of the left half: what the labels of a mass were drawn from."""
    radiograph = keras.Input((SIZE, SIZE, 1), name="radiograph")
    quarter = SIZE // 2
    halves = np.zeros((2, 2, 1, 2), np.float32)
    halves[:, 0, 0, 0], halves[:, 1, 0, 1] = 0.5, 0.5
    maps = keras.layers.Conv2D(1, quarter, strides=quarter, use_bias=False, name="conv1_conv")(radiograph)
    maps = keras.layers.Conv2D(2, 2, use_bias=False, name="halves")(maps)  # the mean of the left half, of the right
    maps = keras.layers.Activation("relu", name="relu")(maps)
    logits = keras.layers.Dense(1, name="logits")(keras.layers.GlobalAveragePooling2D(name="pooled")(maps))
    model = keras.Model(radiograph, keras.layers.Activation("sigmoid", name="probabilities")(logits))
    model.get_layer("conv1_conv").set_weights([np.full((quarter, quarter, 1, 1), quarter**-2.0, np.float32)])
    model.get_layer("halves").set_weights([halves])
    model.get_layer("logits").set_weights([np.array([[0.1], [-0.1]], np.float32), np.zeros(1, np.float32)])
    return model


def test_comparison_of_a_model_with_its_copy_is_exactly_nothing(project, images, capsys):
    (project / "b.h5").write_bytes((project / "a.h5").read_bytes())
    assert run(project, images, "--evaluate", project / "a.h5", "--against", project / "b.h5") == 0
    difference = metrics(project)[0]["comparison"]["difference"]
    for one in (*difference["auroc"], difference["mean_auroc"]):
        assert one == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert "do not tell the two apart" in capsys.readouterr().out


def test_comparison_of_models_of_different_quality_excludes_0(project, images, better, capsys):
    save_model(better, ModelInfo(("mass",), SIZE, feature_shape=(1, 1, 2)), project / "good.h5")
    assert run(project, images, "--evaluate", project / "good.h5", "--against", project / "a.h5") == 0
    found, page = metrics(project)
    mean = found["comparison"]["difference"]["mean_auroc"]
    scores = [roc_auc_score(images[1][:, 0], logits_of(project / name, images)[:, 0]) for name in ("good.h5", "a.h5")]
    assert mean["value"] == pytest.approx(scores[0] - scores[1])
    assert 0 < mean["low"] < mean["value"] < mean["high"]
    sentence = "good.h5 ranks better than a.h5 on these radiographs: the interval of the mean excludes 0."
    assert sentence in capsys.readouterr().out
    assert sentence in page


@pytest.mark.fault("P08")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--evaluate", "none.h5"), 2, "no such model file"),
        (("--evaluate", "test.csv"), 2, "expected an HDF5 model file"),
        (("--evaluate", "a.h5", "--against", "none.h5"), 2, "no such model file"),
        (("--evaluate", "a.h5", "--test-csv", "edema.csv"), 2, "No finding is in all of these"),
        (("--evaluate", "a.h5", "--findings", "Edema"), 2, "--findings Edema: not in all of a.h5, "),
        (("--evaluate", "a.h5", "--test-csv", "none.csv"), 3, ""),
    ],
)
def test_what_cannot_be_evaluated_is_told_in_one_line(project, images, capsys, monkeypatch, arguments, code, message):
    monkeypatch.chdir(project)
    write_table(project / "edema.csv", images[1][:, :1], ("Edema",))
    assert run(project, images, *arguments) == code
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == (1 if message else 0)
    assert not (project / "reports").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--against", "b.h5"],
        ["--evaluate", "a.h5", "--val-csv", "v.csv"],
        ["--evaluate", "a.h5", "--model-path", "b.h5"],
        ["--evaluate", "a.h5", "--train-csv", "t.csv"],
        ["--evaluate", "a.h5", "--val-csv", "v.csv", "--model-path", "a.h5"],
        ["--evaluate", "a.h5", "--against", "b.h5", "--val-csv", "v.csv", "--model-path", "c.h5"],
        ["--evaluate", "a.h5", "--also-test", "x", "x.csv"],
    ],
)
def test_flags_that_do_not_belong_together(arguments):
    with pytest.raises(SystemExit) as caught:
        main_train.main(arguments)
    assert caught.value.code == 2
