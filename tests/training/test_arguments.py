"""The command line of main_train.py: what is a flag of its own, and what an old spelling is answered with."""

from pathlib import Path

import pytest

from cxr.network.start_weights import StartWeights
from cxr.training.arguments import parse_args
from cxr.training.recipe import choose_recipe


def parse(*words: str):
    return parse_args(list(words), description="", data_dir=Path(), model_path=Path("model.h5"))


def test_a_fresh_start_is_a_flag_of_its_own():
    assert parse().fresh is False
    assert parse("--fresh", "--allow", "blank").fresh is True


@pytest.mark.parametrize("allowed", ["fresh", "blank,fresh"])
def test_the_old_spelling_of_a_fresh_start_names_the_new_one(allowed, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse("--allow", allowed)
    assert stopped.value.code == 2
    assert "fresh accepts no data problem and is a flag of its own: give --fresh instead" in capsys.readouterr().err


def test_patience_reaches_the_recipe():
    start = StartWeights("none (random)", pretrained=False)
    assert choose_recipe(parse(), start, "float32").patience == 0
    assert choose_recipe(parse("--patience", "3"), start, "float32").patience == 3
