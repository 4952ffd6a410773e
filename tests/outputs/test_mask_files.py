"""Masks as files: read again by OpenCV, passed over by a later run, and never in the place of another picture."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import radiographs as files
from drawn_outlines import DrawnOutlines, drawn_outlines
from numpy.testing import assert_array_equal
from served_model import served_predictor

import gradcam
from cxr.anatomy.outlines import labels_at
from cxr.imaging.png import mark_as_drawn
from cxr.network.model_info import ModelFileError


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run the command line in a folder with two pictures of one name; the model outlines what `run.outlines` says."""
    monkeypatch.setattr("cxr.inference.predictor.Predictor", lambda path, **options: served_predictor())
    monkeypatch.setattr("cxr.anatomy.outline_model.OutlineModel", lambda path: DrawnOutlines(run.outlines))
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(["a/x.png", "b/x.png"]):
        Path(name).parent.mkdir()
        Path(name).write_bytes(files.png(files.radiograph(96 + 10 * number, 120, seed=number)))

    def run(*arguments):
        return gradcam.main(["--top", "0", "--masks-out", "masks", *arguments])

    run.outlines = drawn_outlines()
    return run


def test_masks_are_the_labels_in_each_pictures_own_size(run, capsys):
    assert run("a", "b") == 0
    for name in ("a", "b"):
        radiograph = cv2.imread(f"{name}/x.png", cv2.IMREAD_UNCHANGED)
        mask = cv2.imread(f"masks/{name}/x.png", cv2.IMREAD_UNCHANGED)
        assert_array_equal(mask, 80 * labels_at(run.outlines, *radiograph.shape))
        assert set(np.unique(mask)) == {0, 80, 160, 240}
    assert "    Outlines of lungs and heart. -> masks/a/x.png\n" in capsys.readouterr().out


def test_a_later_run_passes_masks_over(run, capsys):
    assert run("a", "b") == 0
    assert run(".") == 0
    assert "pictures drawn by this program (2)" in capsys.readouterr().out
    assert len(list(Path("masks").rglob("*.png"))) == 2


def test_outlines_that_are_not_credible_are_left_out_and_said(run, capsys):
    reason = "No outline: the right lung was not found."
    run.outlines = replace(drawn_outlines(), lungs_credible=False, heart_credible=False, reason=reason)
    assert run("a/x.png") == 0
    assert not cv2.imread("masks/x.png", cv2.IMREAD_UNCHANGED).any()
    assert f"    {reason} -> masks/x.png\n" in capsys.readouterr().out
    run.outlines = replace(drawn_outlines(), heart_credible=False, reason="No outline of the heart: it was not found.")
    assert run("a/x.png") == 0
    assert set(np.unique(cv2.imread("masks/x.png", cv2.IMREAD_UNCHANGED))) == {0, 80, 160}


def test_a_radiograph_is_never_replaced_by_its_mask(run, capsys):
    before = Path("a/x.png").read_bytes()
    assert run("a/x.png", "--masks-out", "a") == 3
    assert "a/x.png: cannot be written: a file that this program did not draw has that name." in capsys.readouterr().err
    assert Path("a/x.png").read_bytes() == before


def test_files_of_one_name_have_masks_of_their_own(run):
    Path("a/x.jpg").write_bytes(files.pillow_bytes(files.radiograph(80, 70, seed=4)))
    assert run("a") == 0
    assert {path.name for path in Path("masks").iterdir()} == {"x.png", "x-2.png"}


@pytest.mark.fault("I73")
def test_masks_of_runs_with_tables_of_their_own_do_not_replace_each_other(run, capsys):
    assert run("a/x.png", "--out", "one") == 0
    first = Path("masks/x.png").read_bytes()
    for _ in range(2):  # the second time its own mask is replaced
        assert run("b/x.png", "--out", "two") == 0
        assert "    masks/x.png is not known to be of this radiograph and stays.\n" in capsys.readouterr().out
        assert Path("masks/x.png").read_bytes() == first
        assert cv2.imread("masks/x-2.png", cv2.IMREAD_UNCHANGED).shape == (106, 120)
    assert run("a/x.png", "--out", "three") == 0
    assert {path.name for path in Path("masks").iterdir()} == {"x.png", "x-2.png"}


@pytest.mark.fault("I73")
def test_a_mask_that_does_not_say_of_which_radiograph_it_is_stays(run, capsys):
    Path("masks").mkdir()
    Path("masks/x.png").write_bytes(older := mark_as_drawn(files.png(files.radiograph(80, 70))))
    assert run("a/x.png") == 0
    assert "    masks/x.png is not known to be of this radiograph and stays.\n" in capsys.readouterr().out
    assert Path("masks/x.png").read_bytes() == older
    assert {path.name for path in Path("masks").iterdir()} == {"x.png", "x-2.png"}


def test_masks_need_the_outline_model(run, monkeypatch, capsys):
    def missing(path):
        raise ModelFileError(f"{path}: no such file.")

    monkeypatch.setattr("cxr.anatomy.outline_model.OutlineModel", missing)
    assert run("a/x.png", "--anatomy", "nothing.h5") == 2
    assert "nothing.h5: no such file." in capsys.readouterr().err
    assert not Path("masks").exists()


def test_zones_are_a_column_of_the_table(run):
    Path("anatomy.h5").touch()  # what is in it, the stand-in does not ask
    assert gradcam.main(["a/x.png", "--top", "0", "--columns", "zone", "--anatomy", "anatomy.h5"]) == 0
    header, row = (line.split(",") for line in Path("gradcam_out/predictions.csv").read_text().splitlines())
    answer = gradcam.explain(served_predictor(), cv2.imread("a/x.png", 0), outline_model=DrawnOutlines())
    zones = {name.removesuffix(" zone"): cell for name, cell in zip(header, row, strict=True) if name.endswith(" zone")}
    expected = ["" if place is None else place.largest.words for place in answer.places]
    assert list(zones.values()) == expected
    assert any(expected)


@pytest.mark.parametrize("present", [True, False])
def test_zones_stay_empty_without_the_outline_model(run, monkeypatch, capsys, present):
    def refused(path):
        raise ModelFileError(f"{path}: damaged.")

    monkeypatch.setattr("cxr.anatomy.outline_model.OutlineModel", refused)
    if present:
        Path("anatomy.h5").write_bytes(b"x")
    assert gradcam.main(["a/x.png", "--top", "0", "--columns", "zone", "--anatomy", "anatomy.h5"]) == 0
    line = "No outlines of lungs and heart: anatomy.h5: damaged.\n"
    assert (line in capsys.readouterr().err) == present
