"""Names of findings: one key for every spelling, one form for readers."""

import pytest

from cxr.data.columns import display_name, name_key


@pytest.mark.parametrize(
    "spelling",
    [
        "Pleural_Thickening",
        "pleural thickening",
        "PLEURAL\tTHICKENING",
        "Pleural\u00a0Thickening",
        " Pleural__Thickening\n",
        "Pleural\u2009Thickening",
    ],
)
def test_spellings_of_one_name_have_one_key(spelling):
    assert name_key(spelling) == "pleuralthickening"


def test_case_is_folded_and_not_only_lowered():
    assert name_key("Straße") == name_key("STRASSE")


def test_the_word_of_the_box_list_is_that_of_the_labels():
    assert name_key("Infiltrate") == name_key("Infiltration")


def test_other_names_stay_apart():
    assert len({name_key(name) for name in ("Mass", "Nodule", "Mass 2", "Massé", "")}) == 5


def test_names_are_shown_with_spaces():
    assert display_name("Pleural_Thickening") == "Pleural Thickening"
