"""Targets blended with teachers' answers: the table, who answers for which picture, and resume to the bit."""

from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import Ridge
from small_network import build_small_network
from small_teacher import use_small_teachers, write_small_teacher
from small_training import FINDINGS, TRAIN, StopAfter, run_fit

from cxr.data.batches import RadiographBatches
from cxr.data.cache import CachedSplit
from cxr.data.labels import Split
from cxr.distillation.lessons import describe_lessons, plan_lesson, plan_lessons, plan_table
from cxr.distillation.taught_batches import Teaching, blend_targets, load_teaching, resize
from cxr.distillation.teacher_file import TeacherInfo
from cxr.network.model_info import ModelFileError
from cxr.training.recipe import Recipe
from cxr.training.run_control import Stopped

NAN = float("nan")
IMAGES = ("nih/a.png", "nih/b.png", "nih/c.png", "nih/d.png", "phantom/e.png", "phantom/f.png", "g.png", "nih/h.png")
LETTERS = tuple("ABCDEFGH")


def test_the_target_lies_between_label_and_answer():
    """Sigmoids of 0 and of log 3 and log 1/3 are 0.5, 0.75 and 0.25."""
    labels = np.array([[1, 0, NAN], [0.5, NAN, 1]], np.float32)
    logits = np.array([[0, np.log(3), np.log(3)], [np.log(1 / 3), 9, 9]])
    answered = np.array([[True, True, True], [True, False, False]])
    found = blend_targets(labels, logits, answered)
    expected = [[0.1 + 0.9 * 0.5, 0.9 * 0.75, 0.75], [0.1 * 0.5 + 0.9 * 0.25, NAN, 1]]
    assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32
    assert_allclose(blend_targets(labels[:1], np.array([[-1e4, 1e4, 0]]), answered[:1]), [[0.1, 0.9, 0.5]], rtol=1e-6)


def make_split(images=IMAGES, findings=LETTERS):
    """Label picture k with finding k alone: a blend's labels then are its shares."""
    labels = np.eye(len(images), len(findings), dtype=np.float32)
    return Split("train", tuple(images), tuple(images), labels, tuple(findings))


def lesson_of(findings, sources, size=16, split=None):
    return plan_lesson(Path("t.h5"), TeacherInfo(tuple(findings), size, sources=sources), split or make_split())


class Answers:
    """Stand for a network that answers every picture with its own fixed logits, from features that are its mean."""

    def __init__(self, logits):
        self.logits, self.seen = np.asarray(logits, np.float32), []

    def predict_on_batch(self, pictures):
        self.seen.append(pictures.shape)
        means = pictures.mean(axis=(1, 2, 3), dtype=np.float64)
        return np.stack([means, means**2], axis=1), np.tile(self.logits, (len(pictures), 1))

    def get_layer(self, name):
        head = keras.layers.Dense(len(self.logits), name=name)
        head.build((None, 2))
        return head


def begun(lessons, networks, batches, findings):
    """Return a teaching that has looked at the first pictures, for a small student."""
    teaching = Teaching(lessons, networks, len(findings))
    teaching.begin(build_small_network(findings, 16), batches, with_cells=True)
    return teaching


def of_nih(labels):
    return labels[:, [0, 1, 2, 3, 7]].sum(axis=1)


@pytest.mark.parametrize("mixup", [0.0, 0.4, 2.0])
def test_each_teacher_answers_for_pictures_of_its_sources_and_for_its_findings(mixup):
    """The oracle takes shares from blended labels, which name the pictures, and goes through cells one by one."""
    pictures = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 1), np.uint8)
    batches = RadiographBatches(CachedSplit(make_split(), pictures, "x"), 8, training=True, seed=1, mixup=mixup)
    backwards, two = np.linspace(-2, 2, 8), [1.5, -0.5]
    networks = [Answers(backwards), Answers(two)]
    lessons = [lesson_of(LETTERS[::-1], ("nih",)), lesson_of(("b", "c"), (), size=24)]
    teaching = begun(lessons, networks, batches, LETTERS)
    known = [dict(zip(LETTERS[::-1], backwards, strict=True)), dict(zip("BC", two, strict=True))]
    heard = set()
    for epoch in range(12):
        batches.set_epoch(epoch)
        model_inputs, labels = batches[0]
        inputs, (found, coverage, features) = teaching(batches, 0, model_inputs, (labels, "coverage"))
        assert inputs is model_inputs
        assert coverage == "coverage"
        assert np.isnan(features).tolist() == [[row < 0.8 - 1e-6] * 2 + [False] * 2 for row in of_nih(labels)]
        for row in range(8):
            for column, name in enumerate(LETTERS):
                speak = [of_nih(labels)[row] >= 0.8, True]
                logits = [one[name] for one, speaks in zip(known, speak, strict=True) if speaks and name in one]
                heard.add(len(logits))
                answer = 1 / (1 + np.exp(-np.mean(logits))) if logits else None
                expected = 0.1 * labels[row, column] + 0.9 * answer if logits else labels[row, column]
                assert found[row, column] == pytest.approx(expected, abs=1e-6)
    assert heard == {0, 1, 2}
    assert {shape for network in networks for shape in network.seen} == {(8, 16, 16, 1), (8, 24, 24, 1)}


def test_four_fifths_of_a_blend_are_enough_and_less_is_not(monkeypatch):
    split = make_split(("nih/a.png", "phantom/b.png"), ("A", "B"))
    batches = RadiographBatches(CachedSplit(split, np.zeros((2, 16, 16, 1), np.uint8), "x"), 2)
    teaching = begun([lesson_of(("A", "B"), ("nih",), 16, split)], [Answers([0, 0])], batches, ("A", "B"))
    for share, taught in ((0.8, True), (0.79, False)):
        composition = np.array([0, 1]), np.array([1, 0]), np.full(2, share, np.float32)
        monkeypatch.setattr(batches, "composition", lambda index, parts=composition: parts)
        _, (found, _) = teaching(batches, 0, np.zeros((2, 16, 16, 1), np.uint8), np.ones((2, 2), np.float32))
        assert_allclose(found, [[0.55, 0.55] if taught else [1, 1], [1, 1]], rtol=1e-6)


def test_pictures_are_resized_by_area_down_and_linearly_up():
    pictures = np.array([[[0, 100], [20, 120]]], np.uint8)[..., None]
    assert resize(pictures, 1).tolist() == [[[[60]]]]
    assert_array_equal(resize(pictures, 4)[0, 0, :, 0], [0, 25, 75, 100])
    assert resize(pictures, 2) is pictures


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_the_head_answers_with_the_mean_of_the_teachers_heads(mixup):
    """From the teachers' own features it gives the mean of their logits, finding by finding, whoever knows it."""
    pictures = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 1), np.uint8)
    batches = RadiographBatches(CachedSplit(make_split(), pictures, "x"), 8, training=True, seed=1, mixup=mixup)
    lessons = [lesson_of(LETTERS[::-1], ()), lesson_of(("b", "x", "c"), (), size=24)]
    networks = [teacher_network(lesson, seed) for seed, lesson in enumerate(lessons)]
    teaching = Teaching(lessons, networks, len(LETTERS))
    trained = teaching.begin(build_small_network(LETTERS, 16), batches, with_cells=False)
    model_inputs, labels = batches[0]
    _, (_, features) = teaching(batches, 0, model_inputs, labels)
    assert features.dtype == np.float32
    assert_allclose(features.mean(axis=0), 0, atol=1e-4)  # they are those that the scale was measured on
    *_, head_kernel, head_bias = trained.get_layer("logits").get_weights()
    first, second = (
        network.predict_on_batch(resize(model_inputs, lesson.image_size))[1]
        for network, lesson in zip(networks, lessons, strict=True)
    )
    expected = first[:, ::-1].copy()
    expected[:, 1] = (expected[:, 1] + second[:, 0]) / 2
    expected[:, 2] = (expected[:, 2] + second[:, 2]) / 2
    assert_allclose(features @ head_kernel + head_bias, expected, rtol=1e-3, atol=1e-3)


def teacher_network(lesson, seed):
    """Build a teacher of random weights; its findings are as many as the lesson's outputs reach to."""
    keras.utils.set_random_seed(seed)
    whole = build_small_network(range(lesson.outputs.max() + 1), lesson.image_size)
    head = whole.get_layer("logits")
    return keras.Model(whole.input, [head.input, head.output])


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_a_table_teaches_its_logits_for_the_pictures_that_it_names(tmp_path, mixup):
    """Blended with a picture that it names too, the logits are blended; a network beside it has half of the answer."""
    split, rng = make_split(IMAGES, ("A", "B", "C")), np.random.default_rng(3)
    named, probabilities = [0, 1, 2, 3, 6], rng.uniform(0, 1, (5, 3))
    probabilities[0] = [0, 1, 0.5]
    logits = np.full((8, 3), NAN)
    clipped = np.clip(probabilities, 1e-4, 1 - 1e-4)
    logits[named] = np.log(clipped / (1 - clipped))
    rows = [f"{IMAGES[k]},{','.join(map(repr, row))},ok" for k, row in zip(named, probabilities.tolist(), strict=True)]
    (tmp_path / "table.csv").write_text("\n".join(["Image,c,A,b,Notices", *[swap(row) for row in rows]]) + "\n")
    lesson = plan_table(tmp_path / "table.csv", split)
    assert_allclose(lesson.answers, logits, rtol=1e-4)
    pictures = rng.integers(0, 256, (8, 16, 16, 1), np.uint8)
    batches = RadiographBatches(CachedSplit(split, pictures, "x"), 8, training=True, seed=1, mixup=mixup)
    other_lesson = lesson_of(("A", "B", "C"), (), 16, split)
    network = teacher_network(other_lesson, 4)
    teaching = Teaching([lesson, other_lesson], [None, network], 3)
    trained = teaching.begin(build_small_network(("A", "B", "C"), 16), batches, with_cells=False)
    *_, head_kernel, head_bias = trained.get_layer("logits").get_weights()
    heard = set()
    for epoch in range(12):
        batches.set_epoch(epoch)
        own, other, shares = batches.composition(0)
        model_inputs, labels = batches[0]
        _, (found, features) = teaching(batches, 0, model_inputs, labels)
        of_network = network.predict_on_batch(model_inputs)[1]
        for row, (k, j, share) in enumerate(zip(own, other, shares, strict=True)):
            speaks = (k in named) * share + (j in named) * (1 - share) >= 0.8
            heard.add((bool(speaks), j in named))
            assert np.isnan(features[row, :3]).all() == (not speaks)
            answer = of_network[row]
            if speaks:
                table = share * logits[k] + (1 - share) * logits[j] if j in named else logits[k]
                answer = (table + answer) / 2
                assert_allclose(features[row] @ head_kernel + head_bias, answer, rtol=1e-3, atol=1e-3)
            assert_allclose(found[row], 0.1 * labels[row] + 0.9 / (1 + np.exp(-answer)), rtol=1e-4, atol=1e-5)
    assert len(heard) == 4


def swap(row):
    """Put the columns image, A, B, C, notices into the order image, C, A, B, notices."""
    image, first, second, third, notices = row.split(",")
    return ",".join((image, third, first, second, notices))


def test_what_is_trained_ends_in_the_networks_head():
    """The network, its head settled, gives the logits and cells of what was trained; the student sees its own size."""
    pictures = np.random.default_rng(0).integers(0, 256, (8, 24, 24, 1), np.uint8)
    batches = RadiographBatches(CachedSplit(make_split(), pictures, "x"), 8)
    lesson = lesson_of(LETTERS, (), size=24)
    network = build_small_network(LETTERS, 16)
    teaching = Teaching([lesson], [teacher_network(lesson, 3)], len(LETTERS))
    assert teaching.picture_size == 24
    trained = teaching.begin(network, batches, with_cells=True)
    inputs, _ = teaching(batches, 0, *batches[0])
    assert_array_equal(inputs, resize(pictures, 16))
    logits, cells, _ = trained.predict_on_batch(inputs)
    assert_allclose(cells.mean(axis=(1, 2)), logits, rtol=1e-4, atol=1e-4)
    teaching.settle(network)
    found = keras.Model(network.input, network.get_layer("logits").output).predict_on_batch(inputs)
    assert_allclose(found, logits, rtol=1e-4, atol=1e-4)


def test_the_first_map_is_fitted_to_what_training_sees():
    """Random weights with untouched moving statistics give other features in training than in prediction."""
    pictures = np.random.default_rng(0).integers(0, 256, (32, 16, 16, 1), np.uint8)
    pictures = (pictures * np.linspace(0.1, 1, 32)[:, None, None, None]).astype(np.uint8)
    split = make_split([f"{k}.png" for k in range(32)])
    batches = RadiographBatches(CachedSplit(split, pictures, "x"), 8)
    lesson = lesson_of(LETTERS, (), split=split)
    keras.utils.set_random_seed(5)
    network = build_small_network(LETTERS, 16)
    weights = network.get_weights()
    teaching = Teaching([lesson], [teacher_network(lesson, 3)], len(LETTERS))
    trained = teaching.begin(network, batches, with_cells=False)
    for before, after in zip(weights[:-2], network.get_weights()[:-2], strict=True):  # all but the head's
        assert_array_equal(before, after)
    inputs, (_, wanted) = teaching(batches, 0, *batches[0])
    _, found = trained(inputs.astype(np.float32), training=True)
    assert np.mean((np.asarray(found) - wanted) ** 2) < np.mean(wanted**2)


@pytest.mark.parametrize("num_named", [200, 199])
def test_a_quarter_of_the_finished_head_is_fitted_to_the_table(tmp_path, num_named):
    """The oracle is scikit-learn's ridge regression of the table's logits on features of pictures as they are."""
    rng = np.random.default_rng(2)
    split = make_split([f"{k}.png" for k in range(230)], ("A", "B"))
    pictures = rng.integers(0, 256, (230, 24, 24, 1), np.uint8)
    pictures = (pictures * rng.uniform(0.1, 1, (230, 1, 1, 1))).astype(np.uint8)
    named = rng.permutation(230)[:num_named]
    probabilities = rng.uniform(0.01, 0.99, (num_named, 2))
    rows = [f"{k}.png,{a!r},{b!r}" for k, (a, b) in zip(named, probabilities.tolist(), strict=True)]
    (tmp_path / "table.csv").write_text("\n".join(["Image,A,B", *rows]) + "\n")
    cached = CachedSplit(split, pictures, "x")
    batches = RadiographBatches(cached, 64, training=True, seed=1, mixup=0.4)
    network = build_small_network(("A", "B"), 16)
    own = network.get_layer("logits").get_weights()
    other = lesson_of(("A", "B"), (), 24, split)
    lessons = [plan_table(tmp_path / "table.csv", split), other]
    teaching = Teaching(lessons, [None, teacher_network(other, 3)], 2)
    teaching.begin(network, batches, with_cells=False)
    teaching.finish(network, cached, 64)
    kernel, bias = network.get_layer("logits").get_weights()
    if num_named < 200:
        assert_array_equal(kernel, own[0])
        return
    student = keras.Model(network.input, network.get_layer("pooled").output)
    features = student.predict_on_batch(resize(pictures[named], 16)).astype(np.float64)
    scatter = np.var(features, axis=0).sum() * num_named
    ridge = Ridge(alpha=0.3 * scatter / features.shape[1], solver="cholesky")
    ridge.fit(features, np.log(probabilities / (1 - probabilities)))
    assert_allclose(kernel, 0.75 * own[0] + 0.25 * ridge.coef_.T, rtol=1e-3, atol=1e-4)
    assert_allclose(bias, 0.75 * own[1] + 0.25 * ridge.intercept_, rtol=1e-3, atol=1e-4)


def test_tables_of_other_pictures_have_equal_parts_of_the_quarter(tmp_path):
    """One names the first 210 pictures, one the last 205 of 260; a third of 199 is not heard."""
    rng = np.random.default_rng(3)
    split = make_split([f"{k}.png" for k in range(260)], ("A", "B"))
    pictures = (rng.integers(0, 256, (260, 16, 16, 1)) * rng.uniform(0.1, 1, (260, 1, 1, 1))).astype(np.uint8)
    cached = CachedSplit(split, pictures, "x")
    network = build_small_network(("A", "B"), 16)
    student = keras.Model(network.input, network.get_layer("pooled").output)
    lessons, fitted = [], []
    for name, named in (("a", range(210)), ("b", range(55, 260)), ("c", range(199))):
        probabilities = rng.uniform(0.01, 0.99, (len(named), 2))
        rows = [f"{k}.png,{a!r},{b!r}" for k, (a, b) in zip(named, probabilities.tolist(), strict=True)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["Image,A,B", *rows]) + "\n")
        lessons.append(plan_table(tmp_path / f"{name}.csv", split))
        if len(named) >= 200:
            features = student.predict_on_batch(pictures[list(named)]).astype(np.float64)
            alpha = 0.3 * np.var(features, axis=0).sum() * len(named) / features.shape[1]
            fitted.append(
                Ridge(alpha=alpha, solver="cholesky").fit(features, np.log(probabilities / (1 - probabilities)))
            )
    own = network.get_layer("logits").get_weights()
    other = lesson_of(("A", "B"), (), 16, split)
    teaching = Teaching([*lessons, other], [None, None, None, teacher_network(other, 3)], 2)
    teaching.begin(network, RadiographBatches(cached, 64, training=True, seed=1), with_cells=False)
    teaching.finish(network, cached, 64)
    kernel, bias = network.get_layer("logits").get_weights()
    first, second = fitted
    assert_allclose(kernel, 0.75 * own[0] + 0.125 * (first.coef_ + second.coef_).T, rtol=1e-3, atol=1e-4)
    assert_allclose(bias, 0.75 * own[1] + 0.125 * (first.intercept_ + second.intercept_), rtol=1e-3, atol=1e-4)


def test_every_finding_needs_a_teacher(tmp_path, monkeypatch):
    use_small_teachers(monkeypatch)
    write_small_teacher(tmp_path / "a.h5", ("A", "B"))
    write_small_teacher(tmp_path / "b.h5", ("c",))
    split = make_split(IMAGES, ("A", "B", "C"))
    assert len(plan_lessons([tmp_path / "a.h5", tmp_path / "b.h5"], split)) == 2
    with pytest.raises(ModelFileError, match=r"No teacher knows C. Expected .*; give another teacher"):
        plan_lessons([tmp_path / "a.h5"], split)


@pytest.mark.parametrize("sources", [(), ("",)])
def test_a_teacher_without_a_folder_speaks_for_all(sources):
    assert lesson_of(("A",), sources).speaks_for.all()


def test_the_line_says_who_teaches_what_to_how_many():
    lessons = [lesson_of(("A", "x"), ("nih",)), lesson_of(LETTERS, ("phantom", ""))]
    assert describe_lessons(lessons, 8) == (
        "Teachers: t.h5 for 5 of 8 training pictures, 1 of 8 findings; t.h5 for 3 of 8 training pictures."
    )


@pytest.mark.parametrize(
    ("findings", "sources", "message"),
    [
        (("X", "Y"), (), "t.h5: this teacher knows none of the findings A, B, C, D, E, ...; it knows X, Y. Give"),
        (("A",), ("mimic",), "has learned from images in the folders mimic, with which no .* example nih/a.png. Give"),
    ],
)
def test_a_teacher_with_nothing_to_teach_is_refused(findings, sources, message):
    with pytest.raises(ModelFileError, match=message):
        lesson_of(findings, sources)


def test_a_teacher_that_answers_with_nan_is_refused():
    batches = RadiographBatches(CachedSplit(make_split(), np.zeros((8, 16, 16, 1), np.uint8), "x"), 8)
    with pytest.raises(ModelFileError, match="answers with NaN or Inf"):
        begun([lesson_of(("A",), ())], [Answers([NAN])], batches, ("A",))


@pytest.mark.fault("T02")
def test_a_taught_run_resumes_to_the_bit(tmp_path, monkeypatch):
    use_small_teachers(monkeypatch)
    write_small_teacher(tmp_path / "teacher.h5", FINDINGS)
    recipe = Recipe(epochs=3, batch_size=4, learning_rate=0.01, seed=5, mixup=0.4)

    def run(folder, stop=None, seed=1):
        teaching = load_teaching([tmp_path / "teacher.h5"], TRAIN.split, "float32")
        return run_fit(tmp_path / folder, recipe, stop, weights_seed=seed, teaching=teaching)

    weights, history = run("whole")
    for looks in (3, 17):
        with pytest.raises(Stopped):
            run(f"stopped-{looks}", StopAfter(looks))
        resumed_weights, resumed_history = run(f"stopped-{looks}", seed=99)
        assert resumed_history == history
        for one, other in zip(weights, resumed_weights, strict=True):
            assert_array_equal(one, other)
    _, alone = run_fit(tmp_path / "alone", recipe)
    assert [row["loss"] for row in alone] != [row["loss"] for row in history]
