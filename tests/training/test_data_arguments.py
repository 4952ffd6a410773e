"""The flags of main_train.py that say how the tables are read."""

from pathlib import Path

import pytest

from cxr.training.arguments import parse_args


def parsed(*arguments: str):
    return parse_args(list(arguments), description="", data_dir=Path("data"), model_path=Path("model.h5"))


@pytest.mark.parametrize(
    ("arguments", "findings"),
    [
        ((), None),
        (("--findings", "A, B"), ["A", "B"]),
        (("--finding", "Opacity, diffuse", "--finding", "B"), ["Opacity, diffuse", "B"]),
        (("--findings", '"Opacity, diffuse",B'), ["Opacity, diffuse", "B"]),
        (("--findings", "A", "--finding", "B, C"), ["A", "B, C"]),
    ],
)
def test_findings_may_have_commas(arguments, findings):
    assert parsed(*arguments).findings == findings


def test_filters_are_pairs():
    given = parsed("--where", "Frontal/Lateral=Frontal", "--where", "View = A=B", "--where", "View=C")
    assert given.where == {"Frontal/Lateral": {"Frontal"}, "View": {"A=B", "C"}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--where", "View"), "expected COLUMN=VALUE; received 'View'"),
        (("--where", "=PA"), "expected COLUMN=VALUE"),
        (("--allow", "blank,blank-zero"), "at most one meaning of a blank label"),
        (("--findings", '"A'), "expected names separated by commas"),
    ],
)
def test_choices_that_cannot_be_are_refused(capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        parsed(*arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
