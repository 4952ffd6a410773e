"""The model card's figures are the model file's: the page is compared, and the tables held against known numbers."""

import csv
import dataclasses
from pathlib import Path

import pytest

from cxr.network.input_check import Source
from cxr.network.model_file import read_model_info
from cxr.network.model_info import ModelInfo
from tools.model_card import BEGIN, END, MODEL_PATH, PAGE, card, main, with_card

ROOT = Path(__file__).resolve().parents[2]
RESULTS = {
    "description": "films",
    "num_images": 1439,
    "num_patients": 288,
    "mean_auroc": 0.7649,
    "mean_auroc_interval": [0.7341, None],
    "calibration_error": 0.0192,
    "calibration_error_calibrated": None,
    "pointing": {"num_cases": 114, "in_box": 0.605, "random_in_box": 0.096},
    "auroc": {"Mass": 0.725, "Pleural_Thickening": None},
    "auroc_intervals": {"Mass": [0.61, 0.8249], "Pleural_Thickening": [None, None]},
    "positives": {"Mass": 34, "Pleural_Thickening": 0},
    "average_precision": {"Mass": 0.27, "Pleural_Thickening": None},
    "sensitivity": {"Mass": 0.125, "Pleural_Thickening": None},
    "specificity": {"Mass": 0.99, "Pleural_Thickening": 1.0},
    "sensitivity_chosen": {"Mass": 0.5, "Pleural_Thickening": None},
    "specificity_chosen": {"Mass": 0.75, "Pleural_Thickening": 1.0},
    "views": {"AP": {"num_images": 185, "mean_auroc": 0.75, "mean_auroc_interval": [0.7, 0.79],
                     "auroc": {"Mass": 0.71, "Pleural_Thickening": None}}},
}  # fmt: skip


def test_page_holds_what_the_shipped_model_file_says():
    info = read_model_info(MODEL_PATH)
    page = PAGE.read_text(encoding="utf-8")
    assert with_card(page, card(info)) == page, "run python -m tools.model_card"


def test_tables_hold_the_numbers_of_the_file_and_say_what_is_undefined():
    info = ModelInfo(
        ("Mass", "Pleural_Thickening"),
        224,
        thresholds=(0.77, None),
        sources=(Source("nih", "films", 2300, 1443),),
        test_sets={"nih": RESULTS},
        settings={"epochs": 34, "mixup": 0.2, "patience": 0},
    )
    lines = card(info).splitlines()
    assert "| nih | films | 2,300 | 1,443 |" in lines
    assert (
        "| nih: films | 1,439 (288) | 0.76 (0.73 to n/a) | 0.019, n/a calibrated | 0.60 of 114, random maps 0.10 |"
        in lines
    )
    assert "| Mass | 34 | 0.72 (0.61 to 0.82) | 0.27 | 0.12, 0.99 | 0.50, 0.75 at 0.77 |" in lines
    assert "| Pleural Thickening | 0 | n/a | n/a | n/a, 1.00 | n/a, 1.00 at n/a |" in lines
    assert "| Mean of the findings that are defined | 0.75 (0.70 to 0.79) |" in lines
    assert "| Recipe | epochs 34, mixup 0.2 |" in lines
    averaged = dataclasses.replace(info, settings={"epochs": 0, "learning_rate": 0.0002})
    assert "| Recipe | not trained further |" in card(averaged).splitlines()


@pytest.mark.parametrize("page", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}\n{END}\n{END}"])
def test_page_without_its_two_marks_is_left_alone(tmp_path, page, capsys):
    (tmp_path / "page.md").write_text(page)
    assert main(["--page", str(tmp_path / "page.md")]) == 2
    assert "once each, in this order" in capsys.readouterr().err
    assert (tmp_path / "page.md").read_text() == page


def test_check_writes_nothing(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert main(["--page", str(page), "--check"]) == 1
    assert "old" in page.read_text()
    assert main(["--page", str(page)]) == 0
    assert main(["--page", str(page), "--check"]) == 0
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")


def test_training_images_are_names_alone_and_as_many_as_the_model_learned_from():
    with (ROOT / "model" / "training_images.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["Image"]
    assert len({row[0] for row in rows}) == len(rows)
    assert len(rows) == next(one for one in read_model_info(MODEL_PATH).sources if one.name == "nih").num_images
