"""Schedule and phases against their closed form."""

import math

import numpy as np
import pytest

from cxr.training.recipe import Recipe, count_warmup_steps, learning_rate_at, phase_at


def test_schedule_equals_its_closed_form():
    rates = [learning_rate_at(step, num_steps=14, warmup_steps=4, peak=0.5) for step in range(14)]
    np.testing.assert_allclose(rates[:4], [0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(rates[4:], [0.25 * (1 + math.cos(math.pi * k / 10)) for k in range(10)])
    assert rates[4] == max(rates) == 0.5
    assert learning_rate_at(0, 1, 0, 0.5) == 0.5  # one step, no warm-up
    assert 0 < learning_rate_at(0, 1, 5, 0.5) < 0.5  # a run shorter than its warm-up


@pytest.mark.parametrize(("epochs", "steps"), [(1, 20), (4, 80), (5, 100), (30, 100)])
def test_warm_up_is_an_epoch_but_at_most_a_fifth_of_the_run(epochs, steps):
    recipe = Recipe(epochs=epochs)
    assert count_warmup_steps(recipe, phase_at(recipe, 0), steps_per_epoch=100) == steps


def test_pretrained_weights_train_the_head_first():
    recipe = Recipe(epochs=5, head_epochs=2, learning_rate=1e-4, head_learning_rate=1e-3)
    phases = [phase_at(recipe, epoch) for epoch in range(5)]
    assert [(one.name, one.frozen) for one in phases] == [("head", True)] * 2 + [("all", False)] * 3
    assert (phases[0].learning_rate, phases[4].learning_rate) == (1e-3, 1e-4)
    assert (phases[4].first_epoch, phases[4].num_epochs) == (2, 3)
    assert phase_at(Recipe(epochs=2), 0).name == "all"
