"""Whole folders through one model: decoding ahead, and a table that survives a kill."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from radiographs import radiograph
from served_model import FINDINGS, served_predictor

import gradcam
from cxr.imaging.radiograph import ImageError, read_radiograph
from cxr.inference import answer_table
from cxr.inference.answer_table import NOTE_NAME, SOURCES_NAME, TABLE_NAME, AnswerTable, work_ahead

ROOT = Path(__file__).resolve().parents[2]
JOB = {"model": "m", "top": 3}
HEADER = ["Image", "Mass", "Edema", "Model"]


def row_of(name, mass, edema):
    return [name, f"{mass:.6f}", f"{edema:.6f}", "m"]


def write_pictures(folder, count):
    folder.mkdir()
    for k in range(count):
        cv2.imwrite(str(folder / f"{k:03d}.png"), radiograph(96, 80, k))
    return {path.name: path for path in sorted(folder.iterdir())}


def read_rows(folder):
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def open_table(folder, files, job=JOB):
    time.sleep(0.02)  # the clock of file times is coarse: a change within one step of it does not show
    return AnswerTable(folder, HEADER, job, files)


class Killed(Exception):
    """Stands for the end of the process."""


def start_and_die(folder, files, names, job=JOB):
    """Leave what a job leaves that is killed after answering some files."""
    with pytest.raises(Killed), open_table(folder, files, job) as table:
        for position, name in enumerate(names):
            table.add(row_of(name, position / 8, 0.5))
        raise Killed


def test_work_ahead_gives_every_file_in_order_and_errors_in_their_place(tmp_path):
    files = write_pictures(tmp_path / "in", 30)
    files["007.png"].write_bytes(b"not a picture")
    files["011.png"].unlink()
    found = list(work_ahead(list(files.values()), read_radiograph))
    assert [position for position, _ in found] == list(range(30))
    assert isinstance(found[7][1], ImageError)
    assert isinstance(found[11][1], FileNotFoundError)
    for position, pixels in found:
        if position not in (7, 11):
            np.testing.assert_array_equal(pixels, radiograph(96, 80, position))


def test_work_ahead_holds_a_few_files_only():
    started = []
    for position, _ in work_ahead([Path(str(k)) for k in range(500)], started.append):
        assert len(started) <= position + answer_table.NUM_AHEAD * os.cpu_count()
        if position == 100:
            break


def test_table_is_on_disk_row_by_row_and_leaves_no_note(tmp_path):
    files = write_pictures(tmp_path / "in", 3)
    with open_table(tmp_path / "out", files) as table:
        assert table.finished == frozenset()
        table.add(row_of("000.png", 0.25, 1e-7))
        assert read_rows(tmp_path / "out") == [HEADER, ["000.png", "0.250000", "0.000000", "m"]]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [SOURCES_NAME, "predictions.csv"]


def test_killed_job_goes_on_in_the_files_order(tmp_path):
    files, out = write_pictures(tmp_path / "in", 4), tmp_path / "out"
    start_and_die(out, files, ["001.png", "003.png"])
    with (out / "predictions.csv").open("a") as table:
        table.write("002.png,0.1")  # the row at which the kill came
    with open_table(out, files) as table:
        assert table.finished == {"001.png", "003.png"}
        for name in ("000.png", "002.png"):
            table.add(row_of(name, 1, 1))
    assert [row[0] for row in read_rows(out)[1:]] == ["000.png", "001.png", "002.png", "003.png"]
    assert read_rows(out)[4] == ["003.png", "0.125000", "0.500000", "m"]
    with open_table(out, files) as table:  # that job was finished: the next one starts anew
        assert table.finished == frozenset()


@pytest.mark.parametrize("change", ["other job", "damaged note", "no note", "other findings", "no table"])
def test_other_jobs_start_anew(tmp_path, change):
    files, out = write_pictures(tmp_path / "in", 2), tmp_path / "out"
    start_and_die(out, files, ["000.png"], {"model": "other"} if change == "other job" else JOB)
    if change == "damaged note":
        (out / NOTE_NAME).write_text("{")
    elif change == "no note":
        (out / NOTE_NAME).unlink()
    elif change == "no table":
        (out / "predictions.csv").unlink()
    elif change == "other findings":
        text = (out / "predictions.csv").read_text()
        (out / "predictions.csv").write_text(text.replace("Edema", "Hernia"))
    with open_table(out, files) as table:
        assert table.finished == frozenset()
        assert read_rows(out) == [HEADER]
        note = json.loads((out / NOTE_NAME).read_text())
        assert (note["job"], note["kept"], set(note["entries"])) == (JOB, [], set(files))


def test_changed_removed_and_look_alike_files_are_done_again(tmp_path):
    files, out = write_pictures(tmp_path / "in", 5), tmp_path / "out"
    start_and_die(out, files, list(files))
    files["001.png"].write_bytes(files["002.png"].read_bytes())
    os.utime(files["001.png"], (1, 1))  # as a copy that keeps the old time
    del files["003.png"]
    files["004.jpg"] = files["004.png"]  # shares the stem of 004.png, so that their overlays are numbered
    with open_table(out, files) as table:
        assert table.finished == {"000.png", "002.png"}


@pytest.mark.fault("T91")
@pytest.mark.parametrize("hours", [-5, 5])
def test_a_file_that_changed_is_done_again_whatever_the_clock_was_set_to(tmp_path, hours):
    files, out = write_pictures(tmp_path / "in", 3), tmp_path / "out"
    start_and_die(out, files, list(files))
    changed = time.time() + 3600 * hours  # the clock of the job, seen from now
    for path in (out / NOTE_NAME, out / "predictions.csv"):
        os.utime(path, (changed, changed))
    files["001.png"].write_bytes(files["002.png"].read_bytes())
    start_and_die(out, files, ["001.png"])  # which takes over the other two
    with open_table(out, files) as table:
        assert table.finished == set(files)


@pytest.mark.fault("T91")
def test_a_file_that_changes_while_a_job_is_taken_up_is_done_again_by_the_next(tmp_path, monkeypatch):
    files, out = write_pictures(tmp_path / "in", 3), tmp_path / "out"
    start_and_die(out, files, list(files))
    look, changes = answer_table._entry_digest, [files["002.png"].read_bytes()]

    def look_just_before_a_change(file):
        found = look(file)
        if changes and file == files["001.png"]:
            file.write_bytes(changes.pop())
        return found

    with monkeypatch.context() as patched:
        patched.setattr(answer_table, "_entry_digest", look_just_before_a_change)
        start_and_die(out, files, [])
    with open_table(out, files) as table:
        assert table.finished == {"000.png", "002.png"}


ANSWER_UNTIL_KILLED = """
import sys
from pathlib import Path
import numpy as np
from cxr.imaging.radiograph import read_radiograph
from cxr.inference.answer_table import AnswerTable, work_ahead

files = {path.name: path for path in sorted(Path(sys.argv[1]).iterdir())}
with AnswerTable(Path(sys.argv[2]), ["Image", "Mass", "Edema", "Model"], {"model": "m", "top": 3}, files) as table:
    for name, (_, pixels) in zip(files, work_ahead(list(files.values()), read_radiograph)):
        table.add([name, f"{pixels.mean() / 255:.6f}", "0.500000", "m"])
        print(name, flush=True)
    sys.stdin.read()  # waits for the kill
"""


def test_killed_process_leaves_every_row_that_it_reported(tmp_path):
    files, out = write_pictures(tmp_path / "in", 40), tmp_path / "out"
    time.sleep(0.02)
    code = [sys.executable, "-c", ANSWER_UNTIL_KILLED, str(tmp_path / "in"), str(out)]
    with subprocess.Popen(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as run:
        for _ in range(15):
            assert run.stdout.readline()
        run.kill()
    with open_table(out, files) as table:
        assert set(list(files)[:15]) <= table.finished
        for name in set(files) - table.finished:
            table.add(row_of(name, radiograph(96, 80, int(name[:3])).mean() / 255, 0.5))
    expected = [row_of(name, radiograph(96, 80, k).mean() / 255, 0.5) for k, name in enumerate(files)]
    assert read_rows(out)[1:] == expected


def test_command_that_died_goes_on_without_answering_twice(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cxr.inference.predictor.Predictor", lambda path, **options: served_predictor())
    files = write_pictures(tmp_path / "in", 12)
    time.sleep(0.02)
    answered, explain, killers = [], gradcam.explain, {5}

    def explain_until_killed(predictor, pixels, **options):
        position = next(k for k in range(12) if np.array_equal(pixels, radiograph(96, 80, k)))
        if position in killers:
            raise Killed
        answered.append(position)
        return explain(predictor, pixels, **options)

    monkeypatch.setattr(gradcam, "explain", explain_until_killed)
    with pytest.raises(Killed):
        gradcam.main(["in", "--top", "1"])
    assert len(read_rows(Path("gradcam_out"))) == 1 + 5
    killers.clear()
    answered.clear()
    assert gradcam.main(["in", "--top", "1"]) == 0
    assert "Going on with an unfinished job: 5 of 12 files are done." in capsys.readouterr().out
    assert sorted(answered) == list(range(5, 12))  # each file once
    rows = read_rows(Path("gradcam_out"))
    assert [row[0] for row in rows[1:]] == list(files)
    assert rows[0][: 1 + len(FINDINGS)] == ["Image", *FINDINGS]
    assert len(list(Path("gradcam_out").glob("*.png"))) == 12
    assert not Path("gradcam_out", NOTE_NAME).exists()
    for position in (0, 7, 11):
        expected = explain(served_predictor(), radiograph(96, 80, position)).probabilities
        np.testing.assert_allclose(
            [float(cell) for cell in rows[position + 1][1 : 1 + len(FINDINGS)]], expected, atol=1e-6
        )
    assert gradcam.main(["in", "--finding", "Hernia"]) == 0  # a finished job starts anew
    assert sorted(answered) == sorted([*range(5, 12), *range(12)])


@pytest.mark.fault("C97")
@pytest.mark.skipif(os.name == "nt", reason="pipes and devices as files are Unix's")
def test_a_pipe_or_device_in_the_place_of_the_table_is_never_opened(tmp_path):
    for make in (lambda path: path.symlink_to("/dev/null"), os.mkfifo):
        make(tmp_path / TABLE_NAME)
        with pytest.raises(OSError, match="a pipe, socket or device has that name") as refused:
            open_table(tmp_path, {})
        assert refused.value.filename == str(tmp_path / TABLE_NAME)
        (tmp_path / TABLE_NAME).unlink()


OWN_TABLE = ",".join(HEADER) + "\nb.png,0.125000,0.500000,m\n"


@pytest.mark.fault("I98")
@pytest.mark.parametrize(
    "content",
    [
        b"my own table\n7,Effusion\n",
        b"Patient;Diagnosis\n7;Effusion\n",
        b"Image,Reader\n",
        b"no line end",
        "Image,Mass,Edema,Model\nb.png,0.1,0.2,m\n".encode("utf-16"),
        b"Image,Mass,Edema,Model\nb.png,0,1,m\n\xff\n",
        b'"' + b"long " * 40_000,
        OWN_TABLE.encode() + b"c.png,0.1,0.2,m,seen by me\n",
        OWN_TABLE.encode() + b"\nremark\n",
    ],
)
def test_a_table_of_somebody_else_is_put_aside_byte_by_byte(tmp_path, content):
    (tmp_path / TABLE_NAME).write_bytes(content)
    files = write_pictures(tmp_path / "in", 1)
    with open_table(tmp_path, files) as table:
        table.add(row_of("000.png", 0.25, 0.5))
    assert table.remark == (
        f"{tmp_path / TABLE_NAME} held other things than answers of this program; it is now "
        f"{tmp_path / 'predictions-2.csv'}."
    )
    assert (tmp_path / "predictions-2.csv").read_bytes() == content
    assert read_rows(tmp_path) == [HEADER, row_of("000.png", 0.25, 0.5)]


@pytest.mark.fault("I98")
def test_nothing_is_put_aside_where_a_kill_cut_the_last_row_or_the_table_is_empty(tmp_path):
    files = write_pictures(tmp_path / "in", 1)
    for content, kept in (("", []), (OWN_TABLE + "c.png,0.1", [["b.png", "0.125000", "0.500000", "m"]])):
        (tmp_path / TABLE_NAME).write_text(content)
        with open_table(tmp_path, files) as table:
            table.add(row_of("000.png", 0.25, 0.5))
        assert sorted(path.name for path in tmp_path.glob("*.csv")) == [TABLE_NAME]
        assert read_rows(tmp_path) == [HEADER, *kept, row_of("000.png", 0.25, 0.5)]
        (tmp_path / TABLE_NAME).unlink()
