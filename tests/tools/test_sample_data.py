"""The sample set: its splits, its determinism, and that the phantom's truth is true."""

import csv
import gzip
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from tools import contact_sheet, make_sample_data
from tools.make_sample_data import (
    BOXES_CSV,
    DEFAULT_COUNT,
    DEFAULT_SEED,
    DEFAULT_SIZE,
    SPLITS,
    encode_png,
    examine,
    plan_enriched,
    plan_splits,
    split_csv,
)
from tools.phantom.case import BOX_SCALE, make_case
from tools.phantom.casemix import ALONE, NAMES, TOGETHER, companions, draw_label_sets
from tools.phantom.findings import DRAW_ORDER, FINDINGS
from tools.phantom.geometry import Frame, smooth_curve
from tools.phantom.hardware import label_image
from tools.phantom.imaging import SPECTRUM, Exposure, expose
from tools.phantom.thorax import draw_patient

ROOT = Path(__file__).resolve().parents[2]
MINIMUM = {"train-small.csv": 25, "val_data.csv": 8, "test_data.csv": 15}
BOXED = [name for name in NAMES if FINDINGS[name].boxed]


@pytest.fixture(scope="module")
def plan():
    return plan_splits(DEFAULT_COUNT, DEFAULT_SEED)


def make(findings, seed, size=128):
    rng = np.random.default_rng([seed, len(findings)])
    return make_case(draw_patient(rng), findings, size, rng)


def test_every_second_training_image_of_an_enriched_set_shows_the_finding():
    plan = plan_enriched(210, 5, "Nodule")
    shown = {name: sum("Nodule" in examination.findings for examination in split) for name, split in plan.items()}
    assert {name: len(split) for name, split in plan.items()} == {
        "train-small.csv": 120,
        "val_data.csv": 30,
        "test_data.csv": 60,
    }
    assert shown["train-small.csv"] == 60
    assert shown["val_data.csv"] < 10
    assert shown["test_data.csv"] < 20
    patients = [{examination.patient for examination in split} for split in plan.values()]
    assert sum(map(len, patients)) == len(set.union(*patients))
    large = plan_splits(2100, 5)
    assert all(set(split) <= set(large[name]) for name, split in plan.items())
    assert plan_enriched(210, 5, "Nodule") == plan


# The shipped set


@pytest.mark.parametrize("name", MINIMUM)
def test_shipped_csv_is_what_the_default_seed_gives(plan, name):
    assert (ROOT / name).read_text(encoding="utf-8") == split_csv(plan[name])


def test_shipped_images_are_what_the_default_seed_gives(plan):
    with (ROOT / BOXES_CSV).open(encoding="utf-8", newline="") as file:
        shipped_boxes = [(row[0], row[1], *map(float, row[2:])) for row in list(csv.reader(file))[1:]]
    every = [examination for split in plan.values() for examination in split]
    for examination in every[::140]:
        case = examine(examination, DEFAULT_SEED, DEFAULT_SIZE)
        shipped = cv2.imread(str(ROOT / "images" / examination.image), cv2.IMREAD_UNCHANGED)
        difference = np.abs(shipped.astype(int) - case.radiograph)
        # Another processor's exp() may round a grey level the other way; it moves no structure.
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.005
        boxes = [(examination.image, b.finding, b.x, b.y, b.width, b.height) for b in case.boxes]
        assert boxes == [row for row in shipped_boxes if row[0] == examination.image]


def test_shipped_set_is_complete_and_small(plan):
    names = {examination.image for split in plan.values() for examination in split}
    files = {path.name: path.stat().st_size for path in (ROOT / "images").glob("*.png")}
    assert set(files) == names
    assert sum(files.values()) <= 30e6


def test_splits_have_their_sizes_and_share_no_patient(plan):
    assert [len(plan[name]) for name in MINIMUM] == [480, 120, 240]
    patients = [{examination.patient for examination in plan[name]} for name in MINIMUM]
    assert sum(map(len, patients)) == len(set.union(*patients))
    assert any(count > 1 for count in Counter(e.patient for e in plan["train-small.csv"]).values())


@pytest.mark.parametrize(("name", "minimum"), MINIMUM.items())
def test_every_finding_is_represented_and_a_third_has_none(plan, name, minimum):
    counts = Counter(finding for examination in plan[name] for finding in examination.findings)
    assert min(counts[finding] for finding in NAMES) >= minimum
    assert sum(not e.findings for e in plan[name]) / len(plan[name]) == pytest.approx(1 / 3, abs=0.01)


def test_making_the_same_examination_twice_gives_the_same_bytes(plan):
    examination = plan["test_data.csv"][3]
    first, second = (encode_png(examine(examination, DEFAULT_SEED, 96).radiograph) for _ in range(2))
    other = encode_png(examine(examination, DEFAULT_SEED + 1, 96).radiograph)
    assert first == second != other


def test_tool_keeps_other_data_and_makes_a_set(tmp_path):
    command = [sys.executable, "-m", "tools.make_sample_data", "--out", str(tmp_path), "--count", "8", "--size", "64"]
    (tmp_path / "val_data.csv").write_text("mine\n")
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "val_data.csv exists and holds other data" in refused.stderr
    assert (tmp_path / "val_data.csv").read_text() == "mine\n"
    (tmp_path / "val_data.csv").unlink()
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    rows = [row for name, *_ in SPLITS for row in csv.DictReader((tmp_path / name).read_text().splitlines())]
    assert sorted(row["Image"] for row in rows) == sorted(path.name for path in (tmp_path / "images").iterdir())
    assert len(rows) == 8


def test_masks_are_the_generators_outlines_and_change_no_picture(tmp_path):
    command = [sys.executable, "-m", "tools.make_sample_data", "--count", "4", "--size", "96", "--seed", "6"]
    for name, flags in (("plain", []), ("masked", ["--masks"])):
        subprocess.run([*command, "--out", str(tmp_path / name), *flags], cwd=ROOT, capture_output=True, check=True)
    assert not (tmp_path / "plain" / "masks").exists()
    examinations = [one for split in plan_splits(4, 6).values() for one in split]
    for examination in examinations:
        pictures = [(tmp_path / name / "images" / examination.image).read_bytes() for name in ("plain", "masked")]
        assert pictures[0] == pictures[1]
        mask = cv2.imread(str(tmp_path / "masked" / "masks" / examination.image), cv2.IMREAD_UNCHANGED)
        red_green_blue = mask[..., ::-1].transpose(2, 0, 1)
        np.testing.assert_array_equal(red_green_blue, 255 * examine(examination, 6, 96).outlines.astype(np.uint8))


def test_outlines_have_the_heart_over_them_and_the_ratio_between_them():
    for seed in range(5):
        case = make((), seed, size=256)
        right, left, heart = case.outlines
        assert not (right & left).any()
        # What is open to the beam is in the outline but for what the diaphragm's dome hides; the heart hides the rest.
        open_share = (case.right_lung & right).sum() + (case.left_lung & left).sum()
        assert open_share > 0.8 * (case.right_lung | case.left_lung).sum()
        assert (left & heart).sum() > 0.25 * heart.sum()
        assert (right & heart).any()
        widths = [np.ptp(np.flatnonzero(mask.any(axis=0))) for mask in (heart, right | left)]
        assert widths[0] / widths[1] == pytest.approx(case.ctr, abs=0.02)  # on the grid, tilted patient


# Which findings occur together


def test_companions_occur_as_often_as_at_nih():
    rng = np.random.default_rng(0)
    for name in ("Effusion", "Edema", "Pneumothorax"):
        first = NAMES.index(name)
        drawn = [companions(first, rng) for _ in range(4000)]
        share = np.bincount([j for found in drawn for j in found], minlength=len(NAMES)) / 4000
        expected = np.where(np.arange(len(NAMES)) == first, 0, TOGETHER[first] / TOGETHER[first, first])
        assert np.corrcoef(share, expected)[0, 1] > 0.97
        assert np.mean([not found for found in drawn]) == pytest.approx(ALONE[first] / TOGETHER[first, first], abs=0.03)


def test_label_sets_hold_the_quota():
    sets = draw_label_sets(300, 12, np.random.default_rng(5))
    counts = Counter(finding for findings in sets for finding in findings)
    assert len(sets) == 300
    assert min(counts[name] for name in NAMES) >= 12


def test_nih_counts_equal_a_count_of_the_real_table():
    folder = os.environ.get("CXR_REAL_DATA")
    if not folder:
        pytest.skip("CXR_REAL_DATA is not set: no real label table at hand")
    pairs, alone = Counter(), Counter()
    with gzip.open(Path(folder) / "labels" / "Data_Entry_2017_v2020.csv.gz", "rt", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found = [name for name in row["Finding Labels"].split("|") if name in NAMES]
            pairs.update((a, b) for a in found for b in found)
            alone.update(found if len(found) == 1 else [])
    assert TOGETHER.tolist() == [[pairs[a, b] for b in NAMES] for a in NAMES]
    assert ALONE.tolist() == [alone[name] for name in NAMES]


# The truth about each radiograph, from the geometry


@pytest.mark.parametrize("finding", BOXED)
def test_each_box_is_the_tight_frame_of_its_lesion(finding):
    for seed in range(3):
        case = make((finding,), seed)
        regions = [mask for mask in case.regions[finding] if mask.any()]
        assert regions
        assert len(case.boxes) == len(regions)
        for mask, box in zip(regions, case.boxes, strict=True):
            rows, columns = np.nonzero(mask)
            pixel = BOX_SCALE / mask.shape[0]
            assert box.finding == finding
            assert (box.x, box.y) == (columns.min() * pixel, rows.min() * pixel)
            assert (box.x + box.width, box.y + box.height) == ((columns.max() + 1) * pixel, (rows.max() + 1) * pixel)


LUNG_FINDINGS = ("Infiltration", "Mass", "Nodule", "Pneumonia", "Consolidation", "Pneumothorax", "Edema", "Fibrosis",
                 "Atelectasis", "Effusion", "Pleural_Thickening")  # fmt: skip


@pytest.mark.parametrize("finding", LUNG_FINDINGS)
def test_findings_of_the_lung_lie_in_the_lungs(finding):
    for seed in range(3):
        case = make((finding,), seed)
        region = np.any(case.regions[finding], axis=0)
        inside = region & (case.right_lung | case.left_lung | case.heart)
        assert inside.sum() / region.sum() > 0.85


def test_effusion_is_low_and_hernia_crosses_the_heart():
    for seed in range(3):
        case = make(("Effusion",), seed)
        lung_rows = np.flatnonzero((case.right_lung | case.left_lung).any(axis=1))
        assert np.nonzero(case.regions["Effusion"][0])[0].mean() > lung_rows.mean()
        hernia = make(("Hernia",), seed)
        assert (hernia.regions["Hernia"][0] & hernia.heart).sum() > 0.3 * hernia.regions["Hernia"][0].sum()


def test_nodules_are_at_most_three_centimetres_and_masses_more():
    # The lungs of an adult span 18 to 31 cm from wall to wall: sizes are judged against that width.
    for finding, low, high in (("Nodule", 0.02, 0.14), ("Mass", 0.09, 0.45)):
        for seed in range(4):
            case = make((finding,), seed, size=256)
            wall_to_wall = np.ptp(np.flatnonzero((case.right_lung | case.left_lung).any(axis=0)))
            for mask in case.regions[finding]:
                assert low < np.sqrt(mask.sum() * 4 / np.pi) / wall_to_wall < high


@pytest.mark.parametrize("findings", [(), ("Cardiomegaly",), ("Emphysema",), ("Cardiomegaly", "Emphysema")])
def test_cardiothoracic_ratio_fits_the_label(findings):
    for seed in range(6):
        case = make(findings, seed, size=256)
        heart = np.ptp(np.flatnonzero(case.heart.any(axis=0)))
        thorax = np.ptp(np.flatnonzero((case.right_lung | case.left_lung).any(axis=0)))
        assert (case.ctr > 0.5) == ("Cardiomegaly" in findings)
        assert heart / thorax == pytest.approx(case.ctr, abs=0.03)  # drawn masks, tilted patient


def test_no_radiograph_is_mirrored():
    for seed in range(12):
        case = make((), seed)
        lungs = case.right_lung | case.left_lung
        middle = np.flatnonzero(lungs.any(axis=0))[[0, -1]].mean()
        assert np.nonzero(case.heart)[1].mean() > middle  # the heart points to the patient's left
        assert np.nonzero(case.right_lung)[1].mean() < np.nonzero(case.left_lung)[1].mean()


def test_every_finding_changes_the_picture():
    assert set(DRAW_ORDER) == set(FINDINGS) == set(NAMES)
    for finding in NAMES:
        plain, ill = make((), 5), make((finding,), 5)
        assert ill.findings == (finding,)
        assert not np.array_equal(plain.radiograph, ill.radiograph)


def test_side_marker_and_synthetic_stay_off_the_lungs():
    for seed in range(10):
        case = make((), seed, size=256)
        lungs = case.right_lung | case.left_lung
        printed = np.zeros((256, 256), np.float32)
        label_image(printed, lungs, case.ap_view, np.random.default_rng(seed))
        assert printed.sum() > 100
        assert not (printed.astype(bool) & lungs).any()


# The physics


def test_exposure_follows_beer_lambert():
    water, bone, metal = (np.full((32, 32), value, np.float32) for value in (120.0, 8.0, 0.5))
    noiseless = Exposure(0, (0, 0), 1, scatter=0, photons=1e12, blur_mm=0, black=0, white=0, gamma=1, toe=0,
                         detail=0, equalise=0)  # fmt: skip
    signal = expose(water, bone, metal, noiseless, 1.0, np.random.default_rng(0))
    # Bone takes the place of water: 112 mm of water and 8 mm of bone stay in the beam.
    expected = sum(
        w * np.exp(-(112 * water_mu + 8 * bone_mu + 0.5 * metal_mu)) for w, water_mu, bone_mu, metal_mu in SPECTRUM
    )
    np.testing.assert_allclose(signal, expected, rtol=1e-3)


def test_quantum_noise_has_the_variance_of_counted_photons():
    water = np.zeros((200, 200), np.float32)
    exposure = Exposure(0, (0, 0), 1, scatter=0, photons=1e4, blur_mm=0, black=0, white=0, gamma=1, toe=0, detail=0,
                        equalise=0)  # fmt: skip
    signal = expose(water, water, water, exposure, 1.0, np.random.default_rng(1))
    assert signal.std() == pytest.approx(1 / np.sqrt(1e4), rel=0.03)  # Poisson: relative deviation 1 / sqrt(n)


def test_ellipsoid_path_length_is_the_closed_form():
    frame = Frame(64, 2.0, -64.0)
    path = frame.ellipsoid((0.0, 0.0), (30.0, 30.0), 60.0)
    radius2 = frame.x**2 + frame.y**2
    np.testing.assert_allclose(path, 2 * np.sqrt(np.maximum(900 - radius2, 0)), rtol=1e-4, atol=1e-3)
    assert path.sum() * 4 == pytest.approx(4 / 3 * np.pi * 30**3, rel=0.01)  # the volume of the ball


def test_smooth_curve_passes_through_its_points():
    points = [(0.0, 0.0), (10.0, 5.0), (20.0, -3.0), (25.0, 8.0)]
    curve = smooth_curve(points, samples=8)
    np.testing.assert_allclose(curve[::8], points, atol=1e-9)


def test_drawing_in_millimetres_fills_the_area_it_should():
    frame = Frame(200, 0.5, -50.0)
    angle = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    circle = np.stack([30.3 * np.cos(angle), 20.7 * np.sin(angle)], axis=1)
    for outline in (circle, circle[::-1]):
        assert frame.mask(outline).sum() * 0.25 == pytest.approx(np.pi * 30.3 * 20.7, rel=0.01)
    rows, columns = np.nonzero(frame.mask(circle) > 0.5)
    assert np.ptp(frame.x[0, columns]) == pytest.approx(60.6, abs=1.0)
    assert frame.x[0, columns].mean() == pytest.approx(0, abs=0.3)
    assert frame.y[rows, 0].mean() == pytest.approx(0, abs=0.3)


@pytest.mark.fault("T71")
def test_a_place_that_cannot_be_used_is_a_line_and_no_traceback(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(sys, "argv", ["make_sample_data", "--out", str(tmp_path / "file"), "--count", "3"])
    assert make_sample_data.main() == 3
    assert capsys.readouterr().err.startswith(f"{tmp_path / 'file'}/images: Not a directory. ")
    for data, code, said in (
        (tmp_path, 3, f"{tmp_path}/train-small.csv: No such file or directory. Correct the path."),
        (tmp_path / "other", 2, f"{tmp_path / 'other'}: train-small.csv: no column Atelectasis. "),
    ):
        monkeypatch.setattr(sys, "argv", ["contact_sheet", "--data", str(data), "--out", str(tmp_path / "sheet.png")])
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / "train-small.csv").write_text("Image,Mass\na.png,1\n")
        assert contact_sheet.main() == code
        assert capsys.readouterr().err.startswith(said)


@pytest.mark.fault("T71")
def test_a_csv_of_other_data_or_bytes_is_not_replaced(tmp_path, monkeypatch):
    for content in ("Image,Mass\na.png,1\n".encode("utf-16"), b"Image\n"):
        (tmp_path / "train-small.csv").write_bytes(content)
        monkeypatch.setattr(sys, "argv", ["make_sample_data", "--out", str(tmp_path), "--count", "3"])
        with pytest.raises(SystemExit, match="exists and holds other data"):
            make_sample_data.main()
        assert (tmp_path / "train-small.csv").read_bytes() == content
