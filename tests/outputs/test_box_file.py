"""--boxes-out: what the file says of pictures of any size, and what becomes of an older file."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import radiographs as files
from numpy.testing import assert_allclose
from served_model import FINDINGS, served_model, served_predictor

import gradcam
from cxr.data.boxes import FOUND_BOXES_HEADER, read_boxes
from cxr.heatmaps.boxes_from_heatmaps import GRID, boxes_from_heatmap
from cxr.heatmaps.explanation import Explanation
from cxr.imaging.radiograph import DecodedPicture, decode_radiograph
from cxr.outputs.box_file import BoxFile


def write(name, shape=(90, 130), seed=0):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    small = files.radiograph(seed=seed)
    path.write_bytes(files.png(cv2.resize(small, shape[::-1], interpolation=cv2.INTER_AREA)))
    return decode_radiograph(path.read_bytes())


def rows_of(path="boxes.csv"):
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def answer_of(heatmap, probability=0.9):
    maps = np.zeros((len(FINDINGS), *heatmap.shape), np.float32)
    maps[2] = heatmap
    probabilities = np.full(len(FINDINGS), probability, np.float32)
    return Explanation(probabilities, np.zeros(len(FINDINGS), np.float32), None, maps, None)


def test_rows_worked_by_hand_in_pixels_of_a_picture_that_is_no_square(tmp_path):
    """A cell at the top right that is as hot as its neighbour below; and a fainter one far from both."""
    heatmap = np.zeros((8, 8))
    heatmap[:2, 7], heatmap[7, 0] = 2.0, 1.2
    picture = DecodedPicture(np.zeros((640, 1600), np.uint8), (), "png")
    path = tmp_path / "new/boxes.csv"
    with BoxFile(path, served_model().info, lambda _: [2, 0]) as writer:
        lines = writer.add("=a.png", Path("a.png"), picture, answer_of(heatmap))
    header, first, second = rows_of(path)
    assert tuple(header) == FOUND_BOXES_HEADER
    assert lines == [f"boxes: 2 -> {path}"]
    # 0.55 of the peak lies 0.45 of a cell from the hot centres: left of 7.5 cells of 200 pixels, below 1.5 of 80.
    assert first[:2] == ["'=a.png", "Effusion"]
    assert_allclose(list(map(int, first[2:6])), [7.05 * 200, 0, 0.95 * 200, 1.95 * 80], atol=1600 / GRID)
    # 0.6 * (1 - d) = 0.55 where d = 1 / 12.
    assert_allclose(list(map(int, second[2:6])), [0, (7.5 - 1 / 12) * 80, 7 / 12 * 200, 7 / 12 * 80], atol=1600 / GRID)
    assert_allclose([float(first[6]), float(second[6])], [0.9, 0.6 * 0.9], atol=1e-4)
    assert first[7:] == second[7:] == ["1600", "640"]
    box = read_boxes(path)[0]
    assert (box.image, box.finding) == ("=a.png", "Effusion")
    assert (box.left, box.top) == (int(first[2]) / 1600, int(first[3]) / 640)


@pytest.mark.parametrize("flags", [["--top", "2"], ["--finding", "Hernia"], ["--top", "0"]])
def test_boxes_of_the_findings_that_overlays_show_or_of_those_above_the_threshold(run_main, flags):
    radiographs = {name: write(f"in/{name}", seed=seed) for seed, name in enumerate(["a.png", "b.png"])}
    assert run_main(["in", *flags, "--boxes-out", "boxes.csv"]) == 0
    found = {}
    for row in rows_of()[1:]:
        found.setdefault((row[0], row[1]), []).append(row)
    expected = set()
    for name, radiograph in radiographs.items():
        answer = gradcam.explain(served_predictor(), radiograph)
        ranked = np.argsort(-answer.probabilities, kind="stable")
        above = [k for k in range(len(FINDINGS)) if answer.probabilities[k] >= served_model().info.threshold]
        chosen = {"--top": above if flags[1] == "0" else ranked[:2], "--finding": [FINDINGS.index("Hernia")]}[flags[0]]
        for k in chosen:
            boxes = boxes_from_heatmap(answer.heatmaps[k])
            if boxes:
                expected.add((name, FINDINGS[k]))
                rows = found[name, FINDINGS[k]]
                shares = [[int(row[2]) / 130, int(row[3]) / 90, int(row[4]) / 130, int(row[5]) / 90] for row in rows]
                assert_allclose(shares, [box[:4] for box in boxes], atol=1.1 / 90)
                assert float(rows[0][6]) == pytest.approx(answer.probabilities[k], abs=1e-6)
    assert set(found) == expected
    assert expected or flags == ["--top", "0"]


@pytest.mark.fault("I77")
def test_an_older_list_of_other_pictures_gets_another_name_and_one_of_the_same_is_replaced(run_main, capsys):
    write("one/a.png", seed=1)
    write("two/b.png", seed=2)
    run_main(["one/a.png", "--boxes-out", "boxes.csv"])
    first = rows_of()
    assert run_main(["two", "--boxes-out", "boxes.csv"]) == 0
    assert "boxes.csv held boxes of other pictures; it is now boxes-2.csv." in capsys.readouterr().out
    assert rows_of("boxes-2.csv") == first
    second = rows_of()
    assert {row[0] for row in second[1:]} == {"b.png"}
    run_main(["two", "--boxes-out", "boxes.csv"])
    assert rows_of() == second
    assert not Path("boxes-3.csv").exists()


@pytest.mark.fault("I77")
def test_a_file_that_is_no_list_of_boxes_is_left_alone(run_main, capsys):
    write("a.png")
    for content in (b"Image Index,Finding Label,Bbox [x,y,w,h],,,\na.png,Mass,1,2,3,4,,,\n", b"\xff\x00"):
        Path("boxes.csv").write_bytes(content)
        assert run_main(["a.png", "--boxes-out", "boxes.csv"]) == 3
        assert "boxes.csv: cannot be written: it is there already and is no list of boxes" in capsys.readouterr().err
        assert Path("boxes.csv").read_bytes() == content
    assert run_main(["a.png", "--boxes-out", "gradcam_out/predictions.csv"]) == 3


@pytest.fixture
def killed(run_main, monkeypatch):
    """Run a command that ends behind the boxes of its second picture, before its row of the table."""

    def killed(command):
        add, calls = gradcam.AnswerTable.add, []

        def killed_after_the_boxes_of_the_second(table, row):
            calls.append(row)
            if len(calls) == 2:
                raise KeyboardInterrupt
            add(table, row)

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(gradcam.AnswerTable, "add", killed_after_the_boxes_of_the_second)
            run_main(command)

    return killed


@pytest.mark.fault("I77")
def test_a_job_that_was_killed_goes_on_with_its_list(run_main, killed):
    for seed, name in enumerate(["a.png", "b.png", "c.png"]):
        write(f"in/{name}", seed=seed)
    command = ["in", "--top", "1", "--boxes-out", "boxes.csv"]
    run_main(command)
    whole = rows_of()
    for left in Path().glob("gradcam_out/*"):
        left.unlink()
    Path("boxes.csv").unlink()
    killed(command)
    with Path("boxes.csv").open("a") as file:
        file.write("c.png,Mass,1,")  # cut by the kill
    assert run_main(command) == 0
    assert rows_of() == whole


@pytest.mark.fault("I77")
def test_a_job_whose_list_was_deleted_says_what_is_missing(run_main, killed, capsys):
    for seed, name in enumerate(["a.png", "b.png"]):
        write(f"in/{name}", seed=seed)
    command = ["in", "--top", "1", "--boxes-out", "boxes.csv"]
    killed(command)
    Path("boxes.csv").unlink()
    capsys.readouterr()
    assert run_main(command) == 0
    assert "boxes.csv is gone: the boxes of 1 files done before are missing." in capsys.readouterr().out
    assert {row[0] for row in rows_of()[1:]} == {"b.png"}
