"""What a run of gradcam.py leaves: notices, the columns of its table, and other runs' answers untouched."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from shlex import quote

import cv2
import numpy as np
import pytest
import radiographs as files
from numpy.testing import assert_allclose
from served_model import FINDINGS, served_model, served_predictor

import gradcam
from cxr.imaging.png import is_drawn
from cxr.imaging.radiograph import DRAWN, decode_radiograph, decode_with_notices
from cxr.inference.table_columns import COLUMNS
from cxr.metrics.calibration import Calibration, calibrate_logits, sigmoid

ROOT = Path(__file__).parents[2]
ABOUT = ["Input check", "Input check value", "Notices", "Model"]
LATERAL = "The file is marked as a lateral view; frontal views (PA or AP) are expected."
needs_posix = pytest.mark.skipif(os.name == "nt", reason="POSIX file names")


@pytest.fixture
def run_main(monkeypatch, tmp_path):
    """Run the command line in a scratch folder with the small model, which is loaded once."""
    monkeypatch.setattr("cxr.inference.predictor.Predictor", lambda path, **options: served_predictor())
    monkeypatch.chdir(tmp_path)
    return gradcam.main


def write(name, data=None, seed=0):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(files.png(files.radiograph(seed=seed)) if data is None else data)
    return path


def rows_of(path="gradcam_out/predictions.csv"):
    with Path(path).open(newline="", encoding="utf-8") as file:
        return {row["Image"]: row for row in csv.DictReader(file)}


@pytest.mark.fault("I67")
def test_notices_reach_the_terminal_and_the_table(run_main, capsys):
    write("a.dcm", files.dicom(files.radiograph(), ViewPosition="LL"))
    write("b.png")
    assert run_main(["a.dcm", "b.png", "--top", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[[line.startswith("a.dcm") for line in lines].index(True) + 1] == f"    {LATERAL}"
    assert sum(LATERAL in line for line in lines) == 1
    rows = rows_of()
    assert rows["a.dcm"]["Notices"] == LATERAL
    assert rows["b.png"]["Notices"] == ""
    assert {row["Model"] for row in rows.values()} == {served_model().info.digest}


@pytest.mark.fault("I67")
def test_every_notice_of_the_decoder_is_shown(run_main, capsys):
    data = files.dicom(
        files.radiograph(), ViewPosition="LL", PresentationIntentType="FOR PROCESSING", BurnedInAnnotation="YES"
    )
    write("a.dcm", data)
    notices = decode_with_notices(data).notices
    assert len(notices) == 3
    run_main(["a.dcm", "--top", "0"])
    shown = capsys.readouterr().out
    assert all(f"    {notice}\n" in shown for notice in notices)
    assert rows_of()["a.dcm"]["Notices"] == " ".join(notices)


def test_columns_on_demand_say_what_the_answer_says(run_main):
    path = write("x.png", seed=3)
    wanted = ",".join(COLUMNS)
    assert run_main(["x.png", "--top", "0", "--columns", wanted]) == 0
    row = rows_of()["x.png"]
    answer, info = gradcam.explain(served_predictor(), decode_radiograph(path.read_bytes())), served_model().info
    kinds = [f" {column}" if column != "probability" else "" for column in wanted.split(",")]
    assert list(row) == ["Image", *(f"{finding}{kind}" for kind in kinds for finding in FINDINGS), *ABOUT]

    def column(kind):
        return [row[f"{finding} {kind}" if kind else finding] for finding in FINDINGS]

    assert_allclose(np.array(column(""), float), answer.probabilities, atol=1e-6)
    assert_allclose(np.array(column("logit"), float), answer.logits, rtol=1e-5)
    assert_allclose(np.array(column("peak"), float), answer.heatmaps.max(axis=(1, 2)), rtol=1e-5)
    assert column("decision") == [str(int(one >= info.threshold)) for one in answer.probabilities]
    assert set(column("threshold")) == {f"{info.threshold:g}"}
    chosen = info.thresholds or (None,) * len(FINDINGS)
    assert column("chosen_threshold") == ["" if one is None else f"{one:.6g}" for one in chosen]
    rules = [info.threshold if one is None else one for one in chosen]
    assert column("chosen_decision") == [str(int(p >= t)) for p, t in zip(answer.probabilities, rules, strict=True)]
    if info.calibration:
        fitted = Calibration(tuple(info.calibration["slopes"]), tuple(info.calibration["biases"]))
        expected = sigmoid(calibrate_logits(answer.logits[np.newaxis], fitted))[0]
        assert_allclose(np.array(column("calibrated"), float), expected, atol=1e-6)
    else:
        assert set(column("calibrated")) == {""}


def test_only_the_columns_asked_for_are_there_and_unknown_ones_refused(run_main, capsys):
    write("x.png")
    assert run_main(["x.png", "--top", "0", "--columns", "decision, logit,decision"]) == 0
    assert list(rows_of()["x.png"])[1:] == [f"{f} {c}" for c in ("decision", "logit") for f in FINDINGS] + ABOUT
    with pytest.raises(SystemExit):
        run_main(["x.png", "--columns", "probability,odds"])
    assert "received 'odds'" in capsys.readouterr().err


@pytest.mark.fault("I69")
def test_overlays_and_panels_carry_the_mark_and_are_noticed_where_they_are_named(run_main, capsys):
    write("in/x.png", seed=1)
    assert run_main(["in", "--top", "1", "--panel", "--out", "in/out"]) == 0
    drawn = sorted(Path("in/out").glob("*.png"))
    assert len(drawn) == 2
    assert all(is_drawn(path.read_bytes()) and cv2.imread(str(path)) is not None for path in drawn)
    assert run_main(["in", "--top", "0", "--out", "elsewhere"]) == 0
    assert "pictures drawn by this program (2)" in capsys.readouterr().out
    assert list(rows_of("elsewhere/predictions.csv")) == ["x.png"]
    run_main([str(drawn[0]), "--top", "0", "--out", "third"])
    assert DRAWN in capsys.readouterr().out


@needs_posix
@pytest.mark.fault("I78")
def test_a_second_run_at_the_same_time_is_refused_and_loses_nothing(run_main, monkeypatch, capsys):
    """Each would else write its rows into a table that the other has replaced."""
    write("a.png")
    write("b.png", seed=1)
    codes, explain = [], gradcam.explain

    def explain_beside_others(*arguments, **options):
        monkeypatch.setattr(gradcam, "explain", explain)
        codes.append(run_main(["b.png", "--top", "0"]))
        codes.append(run_main(["b.png", "--top", "0", "--out", "other", "--boxes-out", "boxes.csv"]))
        codes.append(run_main(["b.png", "--top", "0", "--out", "third"]))
        return explain(*arguments, **options)

    monkeypatch.setattr(gradcam, "explain", explain_beside_others)
    assert run_main(["a.png", "--top", "0", "--boxes-out", "boxes.csv"]) == 0
    assert codes == [3, 3, 0]
    told = capsys.readouterr().err
    assert "gradcam_out: cannot be written: another run is writing there. Choose another place for it." in told
    assert "boxes.csv: cannot be written: another run is writing there. Choose another place for it." in told
    assert set(rows_of()) == {"a.png"}
    assert set(rows_of("third/predictions.csv")) == {"b.png"}
    assert run_main(["b.png", "--top", "0"]) == 0  # the first has let go
    assert set(rows_of()) == {"a.png", "b.png"}


@pytest.mark.fault("I73")
def test_runs_over_other_files_add_to_the_table(run_main, capsys):
    write("one/a.png", seed=1)
    write("two/b.png", seed=2)
    write("two/a.jpg", files.pillow_bytes(files.radiograph(seed=3)))
    run_main(["one/a.png", "--top", "1"])
    first = rows_of()
    overlays = {path: path.read_bytes() for path in Path("gradcam_out").glob("*.png")}
    capsys.readouterr()
    for _ in range(2):  # the second time its own rows and pictures are replaced
        run_main(["two", "--top", "1"])
        assert "holds answers for 1 other files; they stay in it" in capsys.readouterr().out
        rows = rows_of()
        assert list(rows) == ["a.png", "a.jpg", "b.png"]
        assert rows["a.png"] == first["a.png"]
        assert len(list(Path("gradcam_out").glob("*.png"))) == 3
        assert all(path.read_bytes() == data for path, data in overlays.items())


@pytest.mark.fault("I73")
@pytest.mark.parametrize("why", ["same name", "other columns", "other model"])
def test_a_table_that_does_not_go_together_with_the_run_is_kept_beside_it(run_main, capsys, monkeypatch, why):
    write("one/a.png", seed=1)
    write("two/a.png" if why == "same name" else "two/b.png", seed=2)
    run_main(["one/a.png", "--top", "1"])
    first = rows_of()
    overlays = {path: path.read_bytes() for path in Path("gradcam_out").glob("*.png")}
    if why == "other model":
        table = Path("gradcam_out/predictions.csv")
        table.write_text(table.read_text().replace(served_model().info.digest, "0" * 64))
        first = rows_of()
    options = ["--columns", "logit"] if why == "other columns" else []
    capsys.readouterr()
    run_main(["two", "--top", "1", *options])
    assert "held answers for other files; it is now" in capsys.readouterr().out
    assert rows_of("gradcam_out/predictions-2.csv") == first
    assert list(rows_of()) == ["a.png" if why == "same name" else "b.png"]
    assert all(path.read_bytes() == data for path, data in overlays.items())
    run_main(["two", "--top", "1", *options])
    assert not Path("gradcam_out/predictions-3.csv").exists()
    assert len(list(Path("gradcam_out").glob("*.png"))) == 2


@pytest.mark.fault("I72")
@needs_posix
def test_odd_names_come_through_printing_table_and_pictures(run_main, tmp_path, capsys):
    odd = ["=cmd|' C calc'!A0.png", "\x1b[2Jclear.png", os.fsdecode(b"\xff\xfe.png"), "n" * 246 + ".png", "a;=1.png"]
    for number, name in enumerate(odd):
        write(f"in/{name}", seed=number)
    assert run_main(["in", "--top", "1"]) == 0
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert r"\x1b[2Jclear.png" in shown.out
    rows = rows_of()
    assert len(rows) == len(odd)
    assert "'=cmd|' C calc'!A0.png" in rows
    assert len(list(Path("gradcam_out").glob("*.png"))) == len(odd)
    assert run_main(["in", "--top", "1"]) == 0
    assert rows_of() == rows


@pytest.mark.fault("I74")
def test_panels_without_matplotlib_are_refused_in_a_line(run_main, monkeypatch, capsys):
    write("x.png")
    find_spec = gradcam.importlib.util.find_spec
    monkeypatch.setattr(
        gradcam.importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name)
    )
    assert run_main(["x.png", "--panel"]) == 2
    assert capsys.readouterr().err.startswith("--panel needs Matplotlib")
    assert run_main(["x.png", "--top", "0"]) == 0


@pytest.mark.fault("I74")
@needs_posix
@pytest.mark.parametrize("fault", ["no folder", "full"])
def test_a_folder_for_temporary_files_that_takes_nothing_is_named_as_such(tmp_path, fault):
    pytest.importorskip("openvino")
    write(tmp_path / "x.png")
    (tmp_path / "file").write_text("no folder")
    faults = {
        "no folder": "tempfile._candidate_tempdir_list = lambda: [sys.argv[1]]",
        # OpenVINO's writer meets the limit as it would meet the end of a disk; nothing else here is as large.
        "full": "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))",
    }
    code = (
        f"import sys, runpy, signal, tempfile; {faults[fault]}\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "sys.argv = sys.argv[2:]; sys.path[0] = sys.argv[0].rpartition('/')[0]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", code, tmp_path / "file", ROOT / "gradcam.py", tmp_path / "x.png"]
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    command += ["--model-path", served_model().path, "--out", tmp_path / "out"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "The folder for temporary files cannot take the network" in done.stderr
    assert "TMPDIR" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.fault("I75")
@needs_posix
@pytest.mark.parametrize("output", ["nobody reads it", "full", "closed"])
def test_output_that_nobody_reads_ends_no_job(tmp_path, output):
    pytest.importorskip("openvino")
    for number in range(4):
        write(tmp_path / f"{number}.png", seed=number)
    redirections = {
        "nobody reads it": "| true",
        "full": "> /dev/full 2> /dev/full",
        "closed": ">&- 2>&-",
    }
    command = (
        f"set -o pipefail; {quote(sys.executable)} {quote(str(ROOT / 'gradcam.py'))} {tmp_path} "
        f"--top 0 --out {tmp_path / 'out'} "
        f"--model-path {served_model().path} {redirections[output]}"
    )
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert len(rows_of(tmp_path / "out/predictions.csv")) == 4


@pytest.mark.fault("I76")
@pytest.mark.skipif(os.name != "posix", reason="other systems do not let a current folder be deleted")
def test_a_current_folder_that_was_deleted_is_said_in_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert gradcam.main(["film.png"]) == 2
    assert capsys.readouterr().err.startswith("The current folder has been deleted. Change to another one")
