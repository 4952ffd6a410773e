"""Heatmaps against automatic differentiation, overlays against a closed form, the command line against its files."""

import csv
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import cv2
import keras
import matplotlib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from served_model import FINDINGS, random_inputs, served_model, served_predictor

import gradcam
from cxr.heatmaps.colormap import inferno
from cxr.heatmaps.overlay import OPACITY, overlay_heatmap, upsample_heatmap
from cxr.heatmaps.panel import CaptionedOverlay, draw_panel
from cxr.imaging.radiograph import decode_radiograph, read_radiograph, to_model_input
from cxr.network.input_check import AspectStatistics, Source
from cxr.network.model_file import load_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def inputs():
    return random_inputs(3)


@pytest.fixture(scope="module")
def features(inputs):
    """The network's last activation, by Keras itself: (n, h, w, channels)."""
    network = served_model().network
    return np.asarray(keras.Model(network.input, network.get_layer("relu").output)(inputs.astype(np.float32)))


def autodiff_heatmaps(features, explained, network=None):
    """Grad-CAM as the keras.io example writes it, each image for itself: (n, findings, h, w)."""
    tensorflow = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the oracle needs TensorFlow's gradient tape")
    network = network or served_model().network
    head = keras.Model(network.get_layer("relu").output, network.get_layer(explained).output)
    maps = np.zeros((len(features), len(FINDINGS), *features.shape[1:3]))
    for image in range(len(features)):
        activation = tensorflow.convert_to_tensor(features[image : image + 1])
        with tensorflow.GradientTape(persistent=True) as tape:
            tape.watch(activation)
            outputs = head(activation)
            channels = [outputs[:, finding] for finding in range(len(FINDINGS))]
        for finding, channel in enumerate(channels):
            weights = tensorflow.reduce_mean(tape.gradient(channel, activation), axis=(0, 1, 2))
            maps[image, finding] = tensorflow.nn.relu(tensorflow.reduce_sum(activation[0] * weights, axis=-1))
    return maps


@pytest.fixture
def head():
    """The dense layer of the model in memory, for the test to change."""
    head = served_model().network.get_layer("logits")
    weights = head.get_weights()
    yield head
    head.set_weights(weights)


@pytest.mark.parametrize("sign", [1, -1], ids=["head", "head negated"])
def test_heatmaps_equal_automatic_differentiation_for_all_findings(inputs, features, head, sign):
    """With both signs, each finding has maps with and without positive evidence."""
    kernel, bias = head.get_weights()
    head.set_weights([sign * kernel, bias])
    expected = autodiff_heatmaps(features, "logits")
    predictor = served_predictor()
    assert_array_equal(predictor.head_kernel, kernel)
    maps = gradcam.heatmaps(predictor.predict(inputs)[2], sign * predictor.head_kernel)
    assert maps.shape == (3, 14, 3, 3)
    assert maps.dtype == np.float32
    assert_allclose(maps, expected, rtol=1e-5, atol=1e-5 * expected.max())
    assert expected.max() > 0.01


def test_heatmaps_explain_the_logit_where_the_sigmoid_is_saturated(features, head):
    kernel, bias = head.get_weights()
    head.set_weights([kernel, np.full_like(bias, 200.0)])  # float32's sigmoid is exactly 1 from about 17 on
    assert autodiff_heatmaps(features, "probabilities").max() == 0  # the trap: nothing left to see
    expected = autodiff_heatmaps(features, "logits")
    assert expected.max() > 0.01
    assert_allclose(gradcam.heatmaps(features, kernel), expected, rtol=1e-5, atol=1e-5 * expected.max())


def test_heatmaps_of_the_shipped_model_equal_automatic_differentiation():
    """Trained weights, all findings, radiographs of the sample; then with every sigmoid saturated."""
    network, info = load_model(gradcam.MODEL_PATH)
    names = ("00000011_001.png", "00000026_000.png")
    radiographs = [read_radiograph(ROOT / "images" / name) for name in names]
    inputs = np.stack([to_model_input(one, info.image_size) for one in radiographs]).astype(np.float32)
    features = np.asarray(keras.Model(network.input, network.get_layer("relu").output)(inputs))
    head = network.get_layer("logits")
    kernel, bias = head.get_weights()
    peaks = np.zeros((2, 14))
    for sign in (-1, 1):  # between them, every finding has evidence to compare
        head.set_weights([sign * kernel, bias])
        expected = autodiff_heatmaps(features, "logits", network)
        assert expected.shape == (2, 14, *info.feature_shape[:2])
        assert_allclose(gradcam.heatmaps(features, sign * kernel), expected, rtol=1e-5, atol=1e-5 * expected.max())
        peaks = np.maximum(peaks, expected.max(axis=(2, 3)))
    assert (peaks > 1e-3).all()

    head.set_weights([kernel, np.full_like(bias, 200.0)])
    assert autodiff_heatmaps(features, "probabilities", network).max() == 0
    assert_allclose(autodiff_heatmaps(features, "logits", network), expected, rtol=1e-5, atol=1e-5 * expected.max())


def test_heatmaps_hand_worked_values():
    features = np.zeros((2, 2, 2, 2))
    features[0, 0, 1] = [3, 1]
    features[1, 1, 0] = [1, 5]
    kernel = np.array([[2.0, -1.0], [-1.0, 1.0]])
    expected = np.zeros((2, 2, 2, 2))  # (image, finding, row, column)
    expected[0, 0, 0, 1] = (3 * 2 - 1) / 4
    expected[1, 1, 1, 0] = (-1 + 5) / 4
    assert_array_equal(gradcam.heatmaps(features, kernel), expected)


@pytest.mark.parametrize(
    ("features", "kernel"),
    [((1, 7, 7, 8), (9, 14)), ((7, 7, 8), (8, 14)), ((1, 7, 7, 8), (8,)), ((1, 392), (392, 14))],
    ids=["channels differ", "no batch axis", "kernel of one axis", "flattened features"],
)
def test_heatmaps_refuses_a_head_that_is_not_pooling_and_one_dense_layer(features, kernel):
    with pytest.raises(ValueError, match=r"features \(n, h, w, channels\) and a head kernel .* Received"):
        gradcam.heatmaps(np.zeros(features), np.zeros(kernel))


def test_describe_heatmap_names_peak_and_logit_or_the_lack_of_evidence():
    assert "+0.25 to a logit of -1.5" in gradcam.describe_heatmap(np.array([[0, 0.25]]), -1.5)
    assert "no positive evidence" in gradcam.describe_heatmap(np.zeros((7, 7)), 3.0)


def test_colours_are_matplotlibs_inferno():
    expected = matplotlib.colormaps["inferno"](np.arange(256))[:, :3] * 255
    assert_array_equal(inferno(), np.rint(expected))


def tent(position, num_cells, num_pixels):
    """Bilinear weight of one cell at each pixel: centres at half pixels, the border cells going on to the border."""
    centres = (np.arange(num_pixels) + 0.5) * num_cells / num_pixels - 0.5
    return np.maximum(0, 1 - np.abs(np.clip(centres, 0, num_cells - 1) - position))


@pytest.mark.parametrize("cell", [(0, 0), (3, 3), (2, 5), (6, 1)])
@pytest.mark.parametrize("shape", [(224, 224), (301, 457), (1024, 800), (65, 200)])
def test_overlay_of_one_hot_map_equals_the_closed_form(cell, shape):
    heatmap = np.zeros((7, 7), np.float32)
    heatmap[cell] = 0.02
    radiograph = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    relative = np.outer(tent(cell[0], 7, shape[0]), tent(cell[1], 7, shape[1]))
    assert_allclose(upsample_heatmap(heatmap, *shape), 0.02 * relative, atol=1e-7)

    overlay = overlay_heatmap(radiograph, heatmap)
    colours = matplotlib.colormaps["inferno"](np.rint(relative * 255).astype(int))[..., :3] * 255
    alpha = OPACITY * relative[..., np.newaxis]
    expected = radiograph[..., np.newaxis] * (1 - alpha) + colours * alpha
    assert np.abs(overlay - expected).max() <= 3  # 256 steps of heat; neighbouring colours differ by up to 5
    cold = relative == 0
    assert cold.mean() > 0.5
    for channel in range(3):
        assert_array_equal(overlay[..., channel][cold], radiograph[cold])
    hottest = np.unravel_index(relative.argmax(), shape)
    assert_allclose(overlay[hottest], expected[hottest], atol=2)


def test_overlay_puts_the_heat_back_where_the_model_input_saw_it():
    """A bright square, shrunk by the project's resize and averaged into cells, must come back onto itself."""
    radiograph = np.zeros((900, 630), np.uint8)
    radiograph[300:429, 360:450] = 255  # cell (7/3, 4) to about (10/3, 5) of 7 x 7
    model_input = to_model_input(radiograph, 224)[..., 0]
    cells = model_input.reshape(7, 32, 7, 32).mean(axis=(1, 3))
    heat = upsample_heatmap(cells, 900, 630).astype(float)
    rows, columns = np.indices(heat.shape)
    assert_allclose((rows * heat).sum() / heat.sum(), (300 + 428) / 2, atol=1.5)
    assert_allclose((columns * heat).sum() / heat.sum(), (360 + 449) / 2, atol=1.5)


@pytest.mark.parametrize("opacity", [0.0, 0.6, 1.0])
def test_overlay_without_evidence_is_the_radiograph(opacity):
    radiograph = np.random.default_rng(1).integers(0, 256, (90, 70), dtype=np.uint8)
    overlay = overlay_heatmap(radiograph, np.zeros((7, 7), np.float32), opacity=opacity)
    assert overlay.dtype == np.uint8
    assert_array_equal(overlay, np.stack([radiograph] * 3, axis=2))


def test_overlay_scale_does_not_depend_on_units_but_on_the_peak_given():
    radiograph = np.full((70, 70), 100, np.uint8)
    heatmap = np.random.default_rng(2).uniform(0, 1, (7, 7)).astype(np.float32)
    heatmap[3, 3] = 1
    assert_array_equal(overlay_heatmap(radiograph, heatmap), overlay_heatmap(radiograph, heatmap * 1e-6))
    shared = overlay_heatmap(radiograph, heatmap * 0.5, peak=1.0)
    expected = 100 * (1 - OPACITY / 2) + inferno()[128].astype(float) * OPACITY / 2
    assert_allclose(shared[35, 35], expected, atol=2)
    saturated = overlay_heatmap(radiograph, heatmap * 3, peak=1.0)
    assert_allclose(saturated[35, 35], 100 * (1 - OPACITY) + inferno()[255].astype(float) * OPACITY, atol=1)


@pytest.mark.parametrize(
    ("radiograph", "heatmap", "opacity", "message"),
    [
        (np.zeros((70, 70)), np.zeros((7, 7)), 0.6, "received float64"),
        (np.zeros((70, 70, 3), np.uint8), np.zeros((7, 7)), 0.6, r"received uint8 \(70, 70, 3\)"),
        (np.zeros((70, 70), np.uint8), np.zeros((1, 7, 7)), 0.6, r"received shape \(1, 7, 7\)"),
        (np.zeros((70, 70), np.uint8), np.full((7, 7), np.nan), 0.6, "finite heatmap"),
        (np.zeros((70, 70), np.uint8), np.full((7, 7), -1.0), 0.6, ">= 0"),
        (np.zeros((70, 70), np.uint8), np.zeros((7, 7)), 1.5, "received 1.5"),
    ],
)
def test_overlay_refuses(radiograph, heatmap, opacity, message):
    with pytest.raises(ValueError, match=message):
        overlay_heatmap(radiograph, heatmap, opacity=opacity)


def write_picture(path, seed, shape=(130, 110)):
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (6, 5), dtype=np.uint8)
    path.write_bytes(gradcam.encode_png(cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC)))
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
        assert_array_equal(overlay, overlay_heatmap(radiograph, answer.heatmaps[FINDINGS.index("Pleural_Thickening")]))
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
    assert gradcam.UNUSUAL_TEXT not in capsys.readouterr().out
    num_channels = len(served_predictor().head_kernel)
    far_away = AspectStatistics(np.full(num_channels, 900.0), np.eye(num_channels)[:, :1], np.ones(1), 1.0)
    elsewhere = Source(features=far_away, centres=(0.0,), spreads=(0.1,))
    monkeypatch.setattr(served_predictor(), "info", dataclasses.replace(served_model().info, sources=(elsewhere,)))
    run_main(["x.png"])
    assert gradcam.UNUSUAL_TEXT in capsys.readouterr().out


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
    assert colours([], gradcam.UNUSUAL_TEXT) == (True, False)
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
