"""gradcam.py --report: a text file beside the overlays, by either threshold rule."""

import dataclasses
from pathlib import Path

import pytest
import radiographs as files
from served_model import FINDINGS, served_model, served_predictor

import gradcam
from cxr.imaging.radiograph import decode_with_notices
from cxr.inference.picture_files import OutputNames
from cxr.inference.report_draft import draft_report
from cxr.network.model_info import DISCLAIMER
from cxr.outputs.draft_files import DraftFiles


@pytest.mark.parametrize("flags", [[], ["--chosen-thresholds"]])
def test_each_picture_gets_the_draft_of_its_answer(run_main, monkeypatch, capsys, flags):
    info = dataclasses.replace(served_model().info, thresholds=(0.2,) * len(FINDINGS))
    monkeypatch.setattr(served_predictor(), "info", info)
    Path("d").mkdir()
    for name in ("a.png", "d/a.png"):
        Path(name).write_bytes(files.png(files.radiograph(90, 120, seed=len(name))))
    assert run_main(["a.png", "d", "--report", "--top", "0", "--anatomy", "none.h5", *flags]) == 0
    said = capsys.readouterr().out
    for name in ("a", "d/a"):
        picture = decode_with_notices(Path(f"{name}.png").read_bytes())
        answer = gradcam.explain(served_predictor(), picture.radiograph)
        expected = draft_report(info, answer, picture.notices, 120, 90, chosen=bool(flags)).text
        path = Path("gradcam_out") / f"{name}-report.txt"
        assert path.read_text(encoding="utf-8") == expected
        assert f"    -> {path}\n" in said
        assert expected.startswith(DISCLAIMER)


def test_without_the_flag_there_is_no_text(run_main):
    Path("a.png").write_bytes(files.png(files.radiograph()))
    assert run_main(["a.png", "--top", "0"]) == 0
    assert not list(Path("gradcam_out").glob("*.txt"))


def test_a_name_that_cannot_be_encoded_is_written_all_the_same(tmp_path):
    info = dataclasses.replace(served_model().info, findings=("\ud800 Mass", *FINDINGS[1:]))
    picture = decode_with_notices(files.png(files.radiograph()))
    answer = gradcam.explain(served_predictor(), picture.radiograph)
    DraftFiles(OutputNames(tmp_path), info, chosen=False).add("x.png", Path("x.png"), picture, answer)
    assert "? Mass" in (tmp_path / "x-report.txt").read_text(encoding="utf-8")
