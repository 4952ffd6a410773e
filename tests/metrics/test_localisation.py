"""Boxes and heatmaps on hand-made pictures, and random maps against the closed form."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose

from cxr.data.boxes import Box, BoxError, read_boxes
from cxr.data.columns import name_key
from cxr.metrics.localisation import AREA_GRID, NUM_RANDOM_MAPS, box_mask, enlarge, localise, random_heatmaps, score_map

HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
BOTTOM_RIGHT = Box("a.png", "Mass", 0.5, 0.5, 0.5, 0.5)


def write_boxes(folder, rows, header=HEADER):
    path = folder / "boxes.csv"
    path.write_text(header + rows, encoding="utf-8")
    return path


def test_read_boxes_gives_shares_of_the_picture(tmp_path):
    path = write_boxes(
        tmp_path, "a.png,Infiltrate,256,512,128,64,,,\na.png,Infiltrate,0,0,1024,1024,,,\n\nb.png,Mass,1.5,2,3,4\n"
    )
    first, second, third = read_boxes(path)
    assert first == Box("a.png", "Infiltrate", 0.25, 0.5, 0.125, 0.0625)
    assert (second.width, second.height) == (1.0, 1.0)
    assert third == Box("b.png", "Mass", 1.5 / 1024, 2 / 1024, 3 / 1024, 4 / 1024)


@pytest.mark.parametrize(
    "rows, message",
    [
        ("a.png,Mass,1,2,3", "line 2: expected 6 values .* received 5"),
        ("a.png,Mass,1,2,3,4,5", "line 2: expected 6 values .* received 7"),
        ("a.png,Mass,1,2,3,four", "line 2: expected four numbers x, y, w, h, received 1, 2, 3, four"),
        (",Mass,1,2,3,4", "line 2: expected an image name and a finding"),
        ("a.png,Mass,1,2,0,4", "line 2: expected a box inside a 1024 x 1024 picture, received x=1, y=2, w=0, h=4"),
        ("a.png,Mass,-1,2,3,4", "line 2: expected a box inside"),
        ("a.png,Mass,1000,2,30,4", "line 2: expected a box inside"),
        ("a.png,Mass,nan,2,30,4", "line 2: expected a box inside"),
        ("a.png,Mass,1,2,inf,4", "line 2: expected a box inside"),
        ("a.png,Mass,1,2,3,4\na.png,Mass,x,2,3,4\na.png,Mass,1,2,3", "line 3: .*\n.*line 4: "),
        ("a.png,Mass,1,2,3\n" * 25, "and 5 more faulty lines"),
        ("\n,,,,,\n", "no rows, expected at least one box"),
    ],
)
def test_read_boxes_names_each_fault(tmp_path, rows, message):
    with pytest.raises(BoxError, match=message):
        read_boxes(write_boxes(tmp_path, rows))


@pytest.mark.parametrize("header", ["", "image,x,y,w,h\n"])
def test_read_boxes_wants_the_header(tmp_path, header):
    with pytest.raises(BoxError, match="line 1: expected the header 'Image Index"):
        read_boxes(write_boxes(tmp_path, "", header))


def test_read_boxes_refuses_what_is_no_text(tmp_path):
    (tmp_path / "boxes.csv").write_bytes(b"\x89PNG\xff\xfe\x00")
    with pytest.raises(BoxError, match="is not UTF-8 text"):
        read_boxes(tmp_path / "boxes.csv")


@pytest.mark.parametrize(
    "name, other, same",
    [
        ("Infiltrate", "Infiltration", True),
        ("Pleural Thickening", "Pleural_Thickening", True),
        ("edema", "EDEMA", True),
        ("Mass", "Nodule", False),
    ],
)
def test_finding_key_compares_names(name, other, same):
    assert (name_key(name) == name_key(other)) is same


# Geometry


def test_box_mask_takes_cells_by_their_centre():
    box = Box("a", "Mass", left=0.25, top=0.5, width=0.5, height=0.25)  # columns 1-2, row 2 of a 4 x 4 map
    expected = np.zeros((4, 4), dtype=bool)
    expected[2, 1:3] = True
    assert (box_mask([box], (4, 4)) == expected).all()
    # A narrow box around the centre of cell (1, 1), which is at 3/8, holds that cell alone.
    assert np.argwhere(box_mask([Box("a", "Mass", 0.3, 0.3, 0.1, 0.1)], (4, 4))).tolist() == [[1, 1]]
    # A box that holds no centre holds no cell; the union of two boxes counts a cell once.
    assert not box_mask([Box("a", "Mass", 0.26, 0.26, 0.1, 0.1)], (4, 4)).any()
    assert box_mask([box, box], (4, 4)).sum() == 2


@pytest.mark.parametrize("shape", [(7, 7), (3, 5), (1, 4), (2, 2)])
def test_enlarge_equals_opencv(shape):
    heatmap = np.random.default_rng(0).random(shape).astype(np.float32)
    assert_allclose(
        enlarge(heatmap, 64), cv2.resize(heatmap, (64, 64), interpolation=cv2.INTER_LINEAR), atol=1e-5, rtol=0
    )


# Scores


def test_score_map_by_hand():
    heatmap = np.zeros((2, 2))
    heatmap[1, 1] = 1.0
    pointing, iobb, iou = score_map(heatmap, [BOTTOM_RIGHT], heat_threshold=0.999)
    assert pointing == 1.0
    # Above .999 the region is the corner outside the outermost centre: 1/16 of the picture, all in the box of 1/4.
    assert iobb == 1.0
    assert iou == pytest.approx(0.25, rel=0.05)
    heatmap = np.zeros((2, 2))
    heatmap[0, 0] = 1.0
    assert score_map(heatmap, [BOTTOM_RIGHT], heat_threshold=0.999) == (0.0, 0.0, 0.0)


def test_score_map_of_a_flat_map_is_the_share_of_the_box():
    assert_allclose(score_map(np.ones((4, 4)), [BOTTOM_RIGHT], 0.5), [0.25, 0.25, 0.25])


def test_score_map_shares_a_tie_between_its_cells():
    heatmap = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert score_map(heatmap, [BOTTOM_RIGHT], 0.5)[0] == 0.5


def test_score_map_without_evidence_is_a_miss():
    assert score_map(np.zeros((4, 4)), [BOTTOM_RIGHT], 0.5) == (0.0, 0.0, 0.0)


def test_random_maps_point_everywhere_alike():
    maps = random_heatmaps(np.random.default_rng(0), 20_000, (5, 4))
    peaks = np.bincount(maps.reshape(len(maps), -1).argmax(axis=1), minlength=20) / len(maps)
    assert maps.min() >= 0
    assert_allclose(peaks, 1 / 20, atol=5 * np.sqrt(0.05 * 0.95 / len(maps)))


def test_random_control_meets_the_closed_form():
    # A random point hits a box as often as the box is large: three boxes of 1/4, 1/8 and 1/2 of the picture.
    boxes = [
        Box("a.png", "Mass", 0.5, 0.5, 0.5, 0.5),
        Box("b.png", "Mass", 0.125, 0.25, 0.25, 0.5),
        Box("c.png", "Mass", 0.0, 0.0, 0.5, 1.0),
    ]
    images = ["a.png", "b.png", "c.png"]
    scores = [localise(np.ones((3, 1, 8, 8)), images, ["Mass"], boxes, seed=seed).overall for seed in range(20)]
    expected = np.mean([1 / 4, 1 / 8, 1 / 2])
    noise = np.sqrt(expected * (1 - expected) / (3 * 20 * NUM_RANDOM_MAPS))
    assert np.mean([score.random_pointing for score in scores]) == pytest.approx(expected, abs=4 * noise)
    assert np.mean([score.random_iobb for score in scores]) == pytest.approx(expected, abs=0.02)
    assert scores[0].box_share == expected


def test_localise_matches_cases_and_counts_the_rest():
    heatmaps = np.zeros((2, 2, 4, 4), dtype=np.float32)
    heatmaps[0, 0, 3, 3] = 1.0  # a.png, Mass: hits the second of its two boxes
    heatmaps[1, 1, 0, 0] = 2.0  # b.png, Infiltration: misses; b.png, Mass stays blank
    boxes = [
        Box("a.png", "Mass", 0.0, 0.0, 0.25, 0.25),
        BOTTOM_RIGHT,
        Box("b.png", "Infiltrate", 0.5, 0.5, 0.5, 0.5),
        Box("b.png", "mass", 0.5, 0.5, 0.5, 0.5),
        Box("b.png", "Hernia", 0.5, 0.5, 0.5, 0.5),
        Box("z.png", "Mass", 0.5, 0.5, 0.5, 0.5),
    ]
    result = localise(heatmaps, ["a.png", "b.png"], ["Mass", "Infiltration"], boxes)
    mass, infiltration = result.findings
    assert (mass.finding, mass.num_cases, mass.num_boxes, mass.pointing) == ("Mass", 2, 3, 0.5)
    assert (infiltration.num_cases, infiltration.pointing) == (1, 0.0)
    assert (result.overall.num_cases, result.overall.num_boxes) == (3, 4)
    assert result.overall.pointing == pytest.approx(1 / 3)
    assert (result.num_blank, result.num_unused) == (1, 2)
    assert localise(heatmaps, ["a.png", "b.png"], ["Mass", "Infiltration"], boxes) == result  # the same seed


def test_heat_inside_lungs_and_heart_is_scored_beside_random_maps():
    heatmaps = np.zeros((3, 2, 4, 4))
    heatmaps[0, 0, 0, 0], heatmaps[0, 0, 3, 3] = 3.0, 1.0  # two corners: three quarters of the heat on the left
    heatmaps[2, 0] = 1.0  # even, on a radiograph without outlines; b.png's map is blank
    boxes = [Box(name, "Mass", 0.5, 0.5, 0.5, 0.5) for name in ("a.png", "b.png", "c.png")]
    left = np.zeros((AREA_GRID, AREA_GRID), bool)
    left[:, : AREA_GRID // 4] = True
    images, organs = ["a.png", "b.png", "c.png"], {"a.png": left, "b.png": left}
    scores = [localise(heatmaps, images, ["Mass", "Edema"], boxes, seed=k, organs=organs).overall for k in range(20)]
    # The corner's cell reaches from the border to the next cell's centre, half of it drawn thinner: 7/8 of its heat lie
    # in the first of four columns of cells.
    assert scores[0].inside == pytest.approx(0.75 * 7 / 8, rel=1e-6)
    assert scores[0].num_inside == 1
    # The heat of maps that are random everywhere lies in a mask as far as that reaches.
    assert np.mean([score.random_inside for score in scores]) == pytest.approx(1 / 4, abs=0.01)
    without = localise(heatmaps, images, ["Mass", "Edema"], boxes).overall
    assert without.num_inside == 0 and np.isnan([without.inside, without.random_inside]).all()


def test_localise_without_cases_is_undefined():
    result = localise(np.ones((1, 1, 2, 2)), ["a.png"], ["Edema"], [BOTTOM_RIGHT])
    assert result.findings == () and result.overall.num_cases == 0 and result.num_unused == 1
    assert np.isnan([result.overall.pointing, result.overall.random_pointing, result.overall.box_share]).all()


def test_localise_refuses_maps_that_do_not_fit():
    with pytest.raises(ValueError, match=r"expected \(1, 2, h, w\), received \(1, 1, 4, 4\)"):
        localise(np.ones((1, 1, 4, 4)), ["a.png"], ["Mass", "Edema"], [BOTTOM_RIGHT])


@pytest.mark.skipif("CXR_REAL_DATA" not in os.environ, reason="needs the folder of real data in CXR_REAL_DATA")
def test_read_boxes_reads_the_whole_nih_list():
    boxes = read_boxes(Path(os.environ["CXR_REAL_DATA"]) / "labels" / "BBox_List_2017.csv")
    assert len(boxes) == 984
    assert len({name_key(box.finding) for box in boxes}) == 8
