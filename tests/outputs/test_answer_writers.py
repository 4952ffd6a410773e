"""Writers of a run's outputs: their order, their end, and that a row of the table comes after them."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import radiographs as files
from numpy.testing import assert_array_equal
from served_model import FINDINGS, served_model, served_predictor

import gradcam
from cxr.heatmaps.overlay import overlay_heatmap
from cxr.imaging.radiograph import decode_with_notices
from cxr.inference.picture_files import OutputNames
from cxr.outputs.overlay_files import OverlayFiles
from cxr.outputs.panel_files import PanelFiles


class Recorder:
    """A writer that notes what it is called with, and how many rows the table has then."""

    def __init__(self, fails=False):
        self.calls, self.fails = [], fails

    def __enter__(self):
        self.calls.append("enter")
        return self

    def __exit__(self, kind, error, trace):
        self.calls.append(("exit", kind))

    def add(self, name, file, picture, answer):
        num_rows = len(Path("gradcam_out/predictions.csv").read_text().splitlines()) - 1
        self.calls.append((name, file.name, picture.file_type, answer.probabilities.shape, num_rows))
        if self.fails:
            raise OSError(28, "No space left on device", "somewhere/x.csv")
        return ["said of it"]


@pytest.fixture
def run_with(run_main, monkeypatch):
    """Run the command line over two pictures with a writer of one's own."""
    for number, name in enumerate(["a.png", "b.png"]):
        Path(name).write_bytes(files.png(files.radiograph(seed=number)))

    def run(writer):
        monkeypatch.setattr(gradcam, "_writers", lambda *_: [writer])
        return run_main(["a.png", "b.png"])

    return run


def test_a_row_is_written_after_the_other_outputs_of_its_picture(run_with, capsys):
    writer = Recorder()
    assert run_with(writer) == 0
    shape = (len(FINDINGS),)
    assert writer.calls == [
        "enter",
        ("a.png", "a.png", "png", shape, 0),
        ("b.png", "b.png", "png", shape, 1),
        ("exit", None),
    ]
    assert capsys.readouterr().out.count("    said of it\n") == 2


def test_an_output_that_cannot_be_written_ends_the_run_without_its_row(run_with, capsys):
    writer = Recorder(fails=True)
    assert run_with(writer) == 3
    assert writer.calls[-1] == ("exit", OSError)
    assert "somewhere/x.csv: cannot be written: No space left on device" in capsys.readouterr().err
    assert len(Path("gradcam_out/predictions.csv").read_text().splitlines()) == 1


@pytest.mark.parametrize("own_peak", [False, True])
def test_overlays_and_panel_show_the_chosen_findings_in_their_order(tmp_path, own_peak):
    picture = decode_with_notices(files.png(files.radiograph(seed=2)))
    answer = gradcam.explain(served_predictor(), picture.radiograph)
    outputs, info = OutputNames(tmp_path), served_model().info
    file = Path("x.png")
    overlays = OverlayFiles(outputs, info, lambda _: [5, 0], own_peak=own_peak)
    panels = PanelFiles(outputs, info, lambda _: [5], own_peak=own_peak)
    with overlays, panels:
        lines = [*overlays.add("d/x.png", file, picture, answer), *panels.add("d/x.png", file, picture, answer)]
    names = [f"x-{FINDINGS[5]}.png", f"x-{FINDINGS[0]}.png", "x-panel.png"]
    assert [line.rpartition("-> ")[2] for line in lines] == [str(tmp_path / "d" / name) for name in names]
    for k, name in zip([5, 0], names, strict=False):
        peak = None if own_peak else float(answer.heatmaps.max())
        expected = overlay_heatmap(picture.radiograph, answer.heatmaps[k], peak=peak)
        assert_array_equal(cv2.imread(str(tmp_path / "d" / name))[:, :, ::-1], expected)
    panel = cv2.imread(str(tmp_path / "d" / names[2]))
    assert len(np.unique(panel.reshape(-1, 3), axis=0)) > 1000  # not an empty canvas


@pytest.mark.parametrize(
    ("probability", "said"),
    [(0.0004, "<0.01 (threshold 0.50)"), (0.4996, "0.4996 (threshold 0.5000)"), (0.75, "0.75 (threshold 0.50)")],
)
def test_a_line_shows_on_which_side_of_the_threshold_the_probability_lies(tmp_path, probability, said):
    picture = decode_with_notices(files.png(files.radiograph(seed=2)))
    answer = gradcam.explain(served_predictor(), picture.radiograph)
    answer = replace(answer, probabilities=np.full(len(FINDINGS), probability, np.float32))
    info = replace(served_model().info, threshold=0.5)
    with OverlayFiles(OutputNames(tmp_path), info, lambda _: [1], own_peak=False) as overlays:
        (line,) = overlays.add("x.png", Path("x.png"), picture, answer)
    assert line.startswith(f"{FINDINGS[1]} {said}, ")
