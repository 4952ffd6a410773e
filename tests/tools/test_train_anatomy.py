"""Training the outline network: its examples, its randomisation, its loss and scores, and a run that is resumed."""

import csv
import dataclasses
import subprocess
import sys
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from lung_shapes import chest
from sklearn.metrics import f1_score

from cxr.anatomy.credibility import measure_lungs
from cxr.anatomy.outline_network import build_outline_network
from cxr.anatomy.outlines import outlines_from
from cxr.data.boxes import Box
from tools import train_anatomy
from tools.anatomy.examples import (
    HEART,
    LEFT,
    NO_HEART_KNOWN,
    RIGHT,
    Examples,
    Guess,
    read_outlined,
    read_phantom,
    split_sides,
)
from tools.anatomy.limits import limits_of, otherwise_credible
from tools.anatomy.measures import dice, measure_hearts, score_outlined, score_phantom, summary
from tools.anatomy.randomisation import UNKNOWN, randomise
from tools.train_anatomy import main, make_batch, masked_loss

ROOT = Path(__file__).resolve().parents[2]
MASKS = chest(96)


@pytest.fixture(scope="module")
def outlined(tmp_path_factory):
    """Three drawn chests as `--outlined` takes them; the last one is for measuring."""
    folder = tmp_path_factory.mktemp("lungs")
    for name in ("images", "masks"):
        (folder / name).mkdir()
    rows = [("a.png", "train"), ("b.png", "train"), ("c.png", "evaluate")]
    with (folder / "lungs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "view", "use"), *((name, "PA", use) for name, use in rows)])
    lungs = MASKS[0] | MASKS[1]
    for k, (name, _) in enumerate(rows):
        cv2.imwrite(str(folder / "images" / name), (200 - 150 * lungs + k).astype(np.uint8))
        cv2.imwrite(str(folder / "masks" / name), 255 * lungs.astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    command = [sys.executable, "-m", "tools.make_sample_data", "--out", str(folder), "--count", "7", "--size", "96",
               "--seed", "3", "--masks", "--workers", "1"]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def test_dice_is_sklearns_f1():
    rng = np.random.default_rng(0)
    for share in (0.1, 0.5, 0.9):
        found, expected = rng.random((2, 40, 50)) < share
        assert dice(found, expected) == pytest.approx(f1_score(expected.ravel(), found.ravel()))
    assert dice(np.zeros(3, bool), np.zeros(3, bool)) == 1.0


def test_summary_of_ten_scores_by_hand():
    expected = {"images": 11, "mean_dice": 0.5, "dice_10th_percentile": 0.1, "smallest_dice": 0.0}
    assert summary([k / 10 for k in range(11)]) == expected


def test_sides_of_a_mask_of_both_lungs():
    lungs = MASKS[0] | MASKS[1]
    lungs[2:5, 20:22] = lungs[2:5, 80:82] = True  # crumbs, near to one side each
    flags = split_sides(lungs, "x")
    np.testing.assert_array_equal(flags & RIGHT > 0, lungs & (np.arange(96) < 48))
    np.testing.assert_array_equal(flags & LEFT > 0, lungs & (np.arange(96) >= 48))
    assert (flags & NO_HEART_KNOWN).all()
    with pytest.raises(ValueError, match=r"x: expected a mask of two lungs apart, found 1"):
        split_sides(MASKS[0], "x")


def test_phantom_and_outlined_pictures_are_read(outlined, phantom):
    found = read_outlined(outlined, "train", 96)
    assert found.names == ["a.png", "b.png"]
    np.testing.assert_array_equal(found.flags[0] & (RIGHT | LEFT), MASKS[0] * RIGHT + MASKS[1] * LEFT)
    found = read_phantom(phantom, "train-small.csv", 96)
    mask = cv2.imread(str(phantom / "masks" / found.names[0]))
    for flag, channel in ((HEART, 0), (LEFT, 1), (RIGHT, 2)):  # OpenCV reads blue first
        np.testing.assert_array_equal(found.flags[0] & flag > 0, mask[..., channel] > 127)
    assert not (found.flags & NO_HEART_KNOWN).any()


def test_picture_and_outline_move_together():
    """A picture that is its own outline still is where the randomisation has moved it."""
    rng = np.random.default_rng(5)
    scores = []
    for _ in range(12):
        picture = np.where(MASKS[0], 30, 220).astype(np.uint8)
        changed, target = randomise(picture, (RIGHT * MASKS[0]).astype(np.uint8), rng)
        small = cv2.resize(changed, (48, 48), interpolation=cv2.INTER_AREA)
        inside, outside = np.median(small[target[..., 0] > 0.9]), np.median(small[target[..., 0] < 0.1])
        dark = small < (inside + outside) / 2 if inside < outside else small > (inside + outside) / 2
        inner = cv2.erode((target[..., 0] > 0.5).astype(np.uint8), np.ones((3, 3))) > 0
        scores.append(dark[inner].mean())
        assert target.shape == (48, 48, 3)
        assert 0 <= changed.min() <= changed.max() <= 255
    assert np.median(scores) > 0.85


def test_randomisation_is_its_seeds_and_leaves_unknown_hearts_out():
    flags = (RIGHT * MASKS[0] + LEFT * MASKS[1] + NO_HEART_KNOWN).astype(np.uint8)
    picture = np.full((96, 96), 90, np.uint8)
    picture[MASKS[0]] = 20
    first, second = (randomise(picture, flags, np.random.default_rng(7)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (first[1][..., 2] == UNKNOWN).all()
    assert first[1][..., :2].min() >= 0


def test_loss_by_hand_and_without_what_is_unknown():
    logits = np.zeros((1, 1, 2, 3), np.float32)
    logits[0, 0, :, 0] = np.log(3), -np.log(3)  # probabilities 0.75 and 0.25
    target = np.full((1, 1, 2, 3), UNKNOWN, np.float32)
    target[..., 0] = 1, 0
    entropy = -np.log(0.75)
    soft_dice = (2 * 0.75 + 1) / (0.75 + 0.25 + 1 + 1)
    found = float(masked_loss(keras.ops.convert_to_tensor(target), keras.ops.convert_to_tensor(logits)))
    assert found == pytest.approx(entropy + 1 - soft_dice, rel=1e-5)


def test_limits_are_the_extremes_widened(outlined):
    examples = read_outlined(outlined, "train", 96)
    low, high = limits_of(examples)["share"]
    assert low == high == pytest.approx((MASKS[0] | MASKS[1]).mean())
    right, left, heart = MASKS[0], MASKS[1], MASKS[2] & ~(np.arange(96) < 48)[np.newaxis]
    flags = [RIGHT * right + LEFT * left + HEART * one for one in (MASKS[2], heart)]
    hearts = Examples(np.zeros((2, 96, 96)), np.array(flags, np.uint8), np.ones(2), ["a", "b"])
    widths = [np.ptp(np.nonzero(one)[1]) + 1 for one in (heart, MASKS[2])]
    widths = [width / (np.ptp(np.nonzero(right | left)[1]) + 1) for width in widths]
    margin = 0.25 * (widths[1] - widths[0])
    assert limits_of(hearts)["width"] == pytest.approx((widths[0] - margin, widths[1] + margin))


def test_values_that_a_single_limit_refuses():
    """The drawn chest, on a film so narrow that the height of both lungs is 1.4 times their width; then upside down."""
    right, left = MASKS[:2]
    probabilities = np.where(MASKS.transpose(1, 2, 0), 0.9, 0.1)
    sides = measure_lungs(right, left, 1.0)["log_width_to_height"]
    narrow, found = np.exp(-np.log(1.4) - sides), outlines_from(probabilities)
    swapped = outlines_from(probabilities[..., [1, 0, 2]])  # the right lung on the left side: more than one is wrong
    guesses = [Guess("a", right, 1.0, found), Guess("b", right, narrow, found), Guess("c", right, 0.5, swapped)]
    values = otherwise_credible([*guesses, Guess("d", right, 1.0, outlines_from(np.zeros((96, 96, 3))))])
    assert values["log_width_to_height"] == pytest.approx((-np.log(1.4), sides))
    assert values["share"] == pytest.approx((np.mean(right | left),) * 2)


def test_scores_of_perfect_and_of_no_outlines(outlined, phantom):
    perfect = outlines_from(np.where(MASKS.transpose(1, 2, 0), 0.9, 0.1))
    assert score_outlined(lambda radiograph: perfect, outlined, "evaluate") == {"c.png": 1.0}
    nothing = outlines_from(np.zeros((96, 96, 3)))
    scores = score_phantom(lambda radiograph: nothing, phantom, "test_data.csv")
    assert scores == {name: [0.0] * 2 for name in ("lungs", "right_lung", "left_lung", "heart")}


def test_hearts_beside_boxes_by_hand(tmp_path):
    """Lungs from column 10 to 90 and a heart from 30 to 60 of 100: the ratio is 30 / 80, on pictures twice as wide."""
    probabilities = np.full((100, 100, 3), 0.1)
    for structure, (left, right) in enumerate(((10, 45), (55, 90), (30, 60))):
        probabilities[40 if structure == 2 else 10 : 80, left:right, structure] = 0.9
    outlines = outlines_from(probabilities)
    believed = dataclasses.replace(outlines, lungs_credible=True, heart_credible=True)
    nowhere = dataclasses.replace(outlines, lungs_credible=False, heart_credible=False)
    table = "Image,Patientid,Cardiomegaly\na.png,7,1\nb.png,7,0\nc.png,8,1\n"
    (tmp_path / "table.csv").write_text(table)
    for grey, name in enumerate("abc"):
        picture = np.tile(np.arange(200, dtype=np.uint8), (100, 1))
        picture[0, 0] = grey
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
    boxes = [Box("a.png", "Cardiomegaly", 0.2, 0.4, 0.6, 0.4), Box("b.png", "Mass", 0.2, 0.4, 0.6, 0.4)]

    def outline(radiograph):
        return nowhere if radiograph[0, 0] == 2 else believed

    found = measure_hearts(outline, tmp_path / "table.csv", tmp_path, boxes)
    np.testing.assert_allclose(found.ratios, [30 / 80, 30 / 80, np.nan])
    np.testing.assert_allclose(found.box_ratios, [60 / 80, np.nan, np.nan])
    np.testing.assert_array_equal(found.labels, [1, 0, 1])
    assert found.patients == ["7", "7", "8"]


def test_batches_depend_on_their_seed_alone(outlined):
    sources = {"outlined": read_outlined(outlined, "train", 96)}
    first, again, other = (make_batch(sources, {"outlined": 2}, [0, 1, step])[0] for step in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.slow  # compiles three times
def test_stopped_training_ends_as_if_it_had_not_been_stopped(outlined, tmp_path, monkeypatch):
    sources, batches = {"outlined": read_outlined(outlined, "train", 32)}, []
    monkeypatch.setattr(train_anatomy, "CHECKPOINT_EVERY", 2)
    monkeypatch.setattr(train_anatomy, "make_batch", lambda *args: batches.append(args[2]) or make_batch(*args))

    def run(name):
        keras.utils.set_random_seed(1)
        network = build_outline_network(32, widths=(4, 6))
        return train_anatomy.train(network, sources, {"outlined": 2}, 4, 0.01, [0], tmp_path / name).get_weights()

    whole = run("whole.keras")
    batches.clear()

    def stop(*args):
        if args[2][-1] == 3:
            raise KeyboardInterrupt
        return make_batch(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train_anatomy, "make_batch", stop)
        run("stopped.keras")
    resumed = run("stopped.keras")
    assert batches == [[0, 2], [0, 3]]
    for one, other in zip(whole, resumed, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.fault("T64")
@pytest.mark.parametrize("change", ["steps", "seed", "rate", "shares", "pictures", "flags", "none noted", "nothing"])
def test_a_checkpoint_of_another_training_is_not_taken_for_this_one(outlined, tmp_path, monkeypatch, change):
    """One that had ended was saved as the result of whatever was asked for next."""
    sources = {"outlined": read_outlined(outlined, "train", 32)}
    wanted = {"shares": {"outlined": 2}, "steps": 4, "rate": 0.01, "seed": [0]}
    checkpoint = tmp_path / "first.keras"
    record = train_anatomy.identify(sources, wanted)
    checkpoint.write_bytes(b"a network")
    if change != "none noted":
        checkpoint.with_suffix(".json").write_text(record)
    if change in wanted:
        wanted[change] = {"steps": 5, "seed": [1], "rate": 0.02, "shares": {"outlined": 3}}[change]
    elif change in ("pictures", "flags"):
        sources["outlined"] = sources["outlined"]._replace(**{change: 1 - getattr(sources["outlined"], change)})
    finished = type("Network", (), {"optimizer": type("Optimizer", (), {"iterations": 4})()})()
    finished.compile = lambda *args, **options: None
    monkeypatch.setattr(train_anatomy.keras.models, "load_model", lambda *args, **options: finished)
    run = lambda: train_anatomy.train(finished, sources, checkpoint=checkpoint, **wanted)  # noqa: E731
    if change == "nothing":
        assert run() is finished
    else:
        with pytest.raises(ValueError, match=r"first\.keras: of a training with other settings or pictures"):
            run()


def test_a_training_that_diverges_ends_with_a_line_and_no_model(outlined, phantom, tmp_path, monkeypatch, capsys):
    class Diverging:
        optimizer = type("Optimizer", (), {"iterations": 0})()
        compile = count_params = lambda self, *args, **options: 0
        train_on_batch = lambda self, *args: float("nan")  # noqa: E731

    monkeypatch.setattr(train_anatomy, "build_outline_network", Diverging)
    arguments = ["--outlined", str(outlined), "--phantom", str(phantom), "--work", str(tmp_path)]
    assert main([*arguments, "--out", str(tmp_path / "out.h5")]) == 4
    assert capsys.readouterr().err == "The loss is nan at step 1. Lower --learning-rate.\n"
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_read_is_said(tmp_path, capsys):
    assert main(["--outlined", str(tmp_path), "--limits"]) == 2
    assert "lungs.csv" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--outlined", str(tmp_path)])
    assert "make_sample_data --masks" in capsys.readouterr().err
    for flag in ("--start", "--heart-boxes"):
        with pytest.raises(SystemExit):
            main(["--outlined", str(tmp_path), "--phantom", str(tmp_path), flag, "x"])
        assert "expected --unlabelled CSV DIR" in capsys.readouterr().err
