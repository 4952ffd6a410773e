"""The command line of gradcam.py."""

import csv
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from served_model import FINDINGS, served_model, served_predictor

import gradcam
from cxr.heatmaps.overlay import encode_png, overlay_heatmap
from cxr.heatmaps.panel import CaptionedOverlay, draw_panel
from cxr.imaging.radiograph import decode_radiograph
from cxr.network.input_check import AspectStatistics, Source

ROOT = Path(__file__).parents[2]


def write_picture(path, seed, shape=(130, 110)):
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (6, 5), dtype=np.uint8)
    path.write_bytes(encode_png(cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC)))
    return decode_radiograph(path.read_bytes())


@pytest.fixture
def run_main(monkeypatch, tmp_path):
    """Run the command line in a scratch folder with the small model, which is loaded once."""
    monkeypatch.setattr("cxr.inference.predictor.Predictor", lambda path, **options: served_predictor())
    monkeypatch.chdir(tmp_path)
    return gradcam.main


def read_table(path="gradcam_out/predictions.csv"):
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_main_writes_overlays_and_table_of_a_folder_and_names_never_collide(run_main, tmp_path, capsys):
    one = write_picture(tmp_path / "in/a/x.png", 1)
    two = write_picture(tmp_path / "in/b/x.png", 2)
    three = write_picture(tmp_path / "in/b/x.jpg", 3)
    assert run_main(["in", "--finding", "pleural thickening", "--finding", "Hernia"]) == 0
    rows = read_table()
    assert list(rows[0]) == ["Image", *FINDINGS, "Input check", "Input check value", "Notices", "Model"]
    assert [row["Image"] for row in rows] == ["a/x.png", "b/x.jpg", "b/x.png"]
    written = sorted(path.relative_to("gradcam_out").as_posix() for path in Path("gradcam_out").rglob("*-P*.png"))
    assert written == ["a/x-Pleural_Thickening.png", "b/x-Pleural_Thickening-2.png", "b/x-Pleural_Thickening.png"]
    for radiograph, name, row in [(one, written[0], rows[0]), (three, written[2], rows[1]), (two, written[1], rows[2])]:
        answer = gradcam.explain(served_predictor(), radiograph)
        overlay = cv2.imread(f"gradcam_out/{name}")[:, :, ::-1]
        heatmap, peak = answer.heatmaps[FINDINGS.index("Pleural_Thickening")], float(answer.heatmaps.max())
        assert_array_equal(overlay, overlay_heatmap(radiograph, heatmap, peak=peak))
        assert_allclose([float(row[finding]) for finding in FINDINGS], answer.probabilities, atol=1e-6)
    assert "hottest cell adds" in capsys.readouterr().out


def test_main_second_run_leaves_its_own_overlays_out(run_main, tmp_path):
    write_picture(tmp_path / "x.png", 1)
    assert run_main(["."]) == 0
    assert run_main(["."]) == 0
    assert [row["Image"] for row in read_table()] == ["x.png"]


@pytest.mark.parametrize(
    ("flags", "num_overlays"), [([], 3), (["--top", "1"], 1), (["--all"], 14), (["--top", "0"], 0)]
)
def test_main_draws_the_most_probable_findings(run_main, tmp_path, flags, num_overlays):
    radiograph = write_picture(tmp_path / "x.png", 4)
    probabilities = gradcam.explain(served_predictor(), radiograph).probabilities
    expected = sorted(FINDINGS, key=lambda name: -probabilities[FINDINGS.index(name)])[:num_overlays]
    assert run_main(["x.png", *flags]) == 0
    assert {path.stem for path in Path("gradcam_out").glob("*.png")} == {f"x-{finding}" for finding in expected}


def test_main_says_which_files_could_not_be_read_and_goes_on(run_main, tmp_path, capsys):
    write_picture(tmp_path / "good.png", 1)
    Path("bad.png").write_bytes(Path("good.png").read_bytes()[:100])
    Path("notes.txt").write_text("not a picture")
    assert run_main(["bad.png", "notes.txt", "good.png", "missing.png", "none-*.png"]) == 1
    shown = capsys.readouterr()
    for name in ("bad.png: ", "notes.txt: This is not a PNG", "missing.png: no PNG", "none-*.png: no PNG"):
        assert name in shown.err
    assert "1 of 3 files" in shown.out
    assert [row["Image"] for row in read_table()] == ["good.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing-*.png"], "no PNG, JPEG or DICOM file found"),
        (["x.png", "--finding", "Efusion"], "expected one of Atelectasis, Cardiomegaly"),
    ],
)
def test_main_refuses_what_it_cannot_do(run_main, tmp_path, capsys, arguments, message):
    write_picture(tmp_path / "x.png", 1)
    assert run_main(arguments) == 2
    assert message in capsys.readouterr().err


def test_main_without_a_model_says_how_to_train_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_picture(tmp_path / "x.png", 1)
    assert gradcam.main(["x.png", "--model-path", "none.h5"]) == 2
    assert "main_train.py" in capsys.readouterr().err
    assert not Path("gradcam_out").exists()


def test_main_warns_of_a_picture_unlike_the_training_radiographs(run_main, tmp_path, monkeypatch, capsys):
    write_picture(tmp_path / "x.png", 1)
    run_main(["x.png"])
    assert gradcam.INPUT_CHECK_WARNING not in capsys.readouterr().out
    num_channels = len(served_predictor().head_kernel)
    far_away = AspectStatistics(np.full(num_channels, 900.0), np.eye(num_channels)[:, :1], np.ones(1), 1.0)
    elsewhere = Source(features=far_away, centres=(0.0,), spreads=(0.1,))
    monkeypatch.setattr(served_predictor(), "info", dataclasses.replace(served_model().info, sources=(elsewhere,)))
    run_main(["x.png"])
    assert gradcam.INPUT_CHECK_WARNING in capsys.readouterr().out


def test_main_says_where_it_cannot_write(run_main, tmp_path, capsys):
    write_picture(tmp_path / "x.png", 1)
    Path("taken").write_text("a file, not a folder")
    assert run_main(["x.png", "--out", "taken"]) == 3
    assert "taken: cannot be written" in capsys.readouterr().err


def test_panel_is_one_picture_per_image(run_main, tmp_path):
    write_picture(tmp_path / "x.png", 1)
    assert run_main(["*.png", "--panel", "--top", "2"]) == 0
    panel = cv2.imread("gradcam_out/x-panel.png")
    assert panel.shape[1] > 1000
    assert len(np.unique(panel.reshape(-1, 3), axis=0)) > 1000  # not an empty canvas


def test_panel_carries_the_warning_where_there_is_one_and_no_legend_without_heat():
    radiograph = np.full((90, 90), 50, np.uint8)
    probabilities = np.full(14, 0.1, np.float32)

    def colours(overlays, warning):
        data = draw_panel("x.png", radiograph, overlays, probabilities, served_model().info, warning)
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1].astype(int)
        red, green, blue = np.moveaxis(picture, 2, 0)
        reddish = (red > 200) & (green < 180) & (blue < 180) & (blue > 90)  # the warning's text, not the bars' orange
        yellowish = (red > blue + 60) & (green > 0.65 * red)  # the warm end of the legend; no bar is that warm here
        return reddish.any(), yellowish.any()

    cold = CaptionedOverlay(overlay_heatmap(radiograph, np.zeros((3, 3))), 0, "no positive evidence")
    assert colours([], "") == (False, False)
    assert colours([], gradcam.INPUT_CHECK_WARNING) == (True, False)
    assert colours([cold], "") == (False, True)


def test_script_runs_on_openvino_and_draws_no_panel_unasked(tmp_path):
    pytest.importorskip("openvino")
    write_picture(tmp_path / "x.png", 1)
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    code = (
        "import os, runpy, sys; sys.argv = sys.argv[1:]; sys.path[0] = os.path.dirname(sys.argv[0])\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as done: assert done.code == 0, done.code\n"
        "import keras; print(keras.backend.backend(), 'cxr.heatmaps.panel' in sys.modules)"
    )
    command = [sys.executable, "-c", code, ROOT / "gradcam.py", "x.png", "--model-path", served_model().path]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "openvino False"
    radiograph = decode_radiograph((tmp_path / "x.png").read_bytes())
    expected = gradcam.explain(served_predictor(), radiograph).probabilities
    row = read_table(tmp_path / "gradcam_out/predictions.csv")[0]
    assert_allclose([float(row[finding]) for finding in FINDINGS], expected, atol=1e-4)


def test_main_on_real_radiographs(run_main, tmp_path):
    """Every file of the development data is answered, or refused with a line."""
    if "CXR_REAL_DATA" not in os.environ:
        pytest.skip("CXR_REAL_DATA names no folder of real radiographs")
    data = Path(os.environ["CXR_REAL_DATA"])
    files = [*sorted(data.glob("images-1024/*.png"))[:10], *sorted(data.glob("dicom/*.dcm"))]
    assert run_main([*map(str, files), "--top", "1"]) == 0
    rows = read_table()
    assert len(rows) == len(files) == len({row["Image"] for row in rows})
    for row in rows:
        assert all(0 < float(row[finding]) < 1 for finding in FINDINGS)
