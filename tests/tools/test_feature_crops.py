"""Pictures and crops that features are learned from: what is read, what is left out, and what a crop is."""

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tools.features import pictures
from tools.features.crops import BATCH_SIZE, PHOTOGRAPHS, RADIOGRAPHS, CropBatches, CropLimits, draw_crop
from tools.features.pictures import PicturesError, hold_out, read_folder_pictures, read_table_pictures, shrink

WHOLE = CropLimits(
    min_area=1.0, stretch=0.0, mirrored=0.0, gamma=0.0, contrast=(1.0, 1.0), brightness=0.0, blurred=0.0, inverted=0.0,
    blended=0.0,
)  # fmt: skip


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)


def changed(**limits):
    return CropLimits(**(vars(WHOLE) | limits))


def test_a_crop_without_changes_is_the_picture_resized():
    picture = noise(90, 90)
    crop = draw_crop(picture, np.random.default_rng(0), WHOLE, 30)
    expected = picture.reshape(30, 3, 30, 3).mean(axis=(1, 3))  # INTER_AREA with a whole factor is a mean over blocks
    assert_allclose(crop, np.rint(expected), atol=0.51)
    assert crop.dtype == np.float32
    grown = draw_crop(noise(20, 20), np.random.default_rng(0), WHOLE, 40)
    assert_array_equal(grown, cv2.resize(noise(20, 20), (40, 40), interpolation=cv2.INTER_LINEAR))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"mirrored": 1.0}, lambda grey: grey[:, ::-1]),
        ({"inverted": 1.0}, lambda grey: 255 - grey),
        ({"contrast": (2.0, 2.0)}, lambda grey: np.clip(2 * (grey - 128) + 128, 0, 255)),
        ({"contrast": (0.0, 0.0)}, lambda grey: np.full_like(grey, 128)),
        (
            {"blurred": 1.0, "blur": (0.8, 0.8)},
            lambda grey: np.clip(cv2.GaussianBlur(grey, (0, 0), 0.8), 0, 255),
        ),
    ],
)
def test_each_change_by_hand(limits, expected):
    picture = noise(40, 40)
    crop = draw_crop(picture, np.random.default_rng(3), changed(**limits), 40)
    assert_allclose(crop, expected(picture.astype(np.float32)), atol=1e-3)


def test_exposure_stays_within_its_limits():
    grey = np.full((40, 40), 64, np.uint8)
    rng = np.random.default_rng(0)
    curves = [draw_crop(grey, rng, changed(gamma=0.4), 4)[0, 0] for _ in range(400)]
    low, high = (255 * (64 / 255) ** np.exp(one) for one in (0.4, -0.4))
    assert low <= min(curves) < low + 3 and high - 3 < max(curves) <= high
    lighter = [draw_crop(grey, rng, changed(brightness=25.0), 4)[0, 0] for _ in range(400)]
    assert 39 <= min(lighter) < 41 and 87 < max(lighter) <= 89


def test_a_crop_is_a_rectangle_of_the_picture_with_the_drawn_area():
    """A picture whose two halves of a byte tell row and column gives the crop's place and size away."""
    rows, columns = np.mgrid[:100, :100].astype(np.float32)
    areas, ratios = [], []
    for seed in range(300):
        found = []
        for coordinate in (rows, columns):
            rng = np.random.default_rng(seed)
            crop = draw_crop(coordinate.astype(np.uint8), rng, changed(min_area=0.2, stretch=0.25), 100)
            found.append(crop.max() - crop.min() + 1)
        areas.append(found[0] * found[1] / 10_000)
        ratios.append(found[0] / found[1])
    assert 0.19 < min(areas) < 0.25 and 0.9 < max(areas) <= 1
    assert np.mean(areas) == pytest.approx(0.6, abs=0.04)  # of 300 draws; its deviation is 0.013
    assert np.exp(-0.27) < min(ratios) < np.exp(-0.2) and np.exp(0.2) < max(ratios) < np.exp(0.27)


def batches(share=0.35, seed=5, radiographs=3, photographs=2):
    greys = [np.full((64, 70), 100 + 3 * k, np.uint8) for k in range(radiographs)]
    return CropBatches(greys, [noise(64, 64, k) for k in range(photographs)], share, seed, 100, (20, 16))


def test_the_same_number_gives_the_same_crop_and_another_one_another():
    teacher, student = batches()[2]
    again, _ = batches()[2]
    assert_array_equal(teacher, again)
    assert (teacher.shape, student.shape) == ((BATCH_SIZE, 20, 20, 1), (BATCH_SIZE, 16, 16, 1))
    assert len(batches()) == 4  # 100 crops in batches of 32
    others = batches()[1][0], batches(seed=6)[2][0]
    for other in others:
        assert not any(np.array_equal(one, two) for one, two in zip(teacher, other, strict=True))
    assert len({one.tobytes() for one in teacher}) == BATCH_SIZE
    for one, small in zip(teacher, student, strict=True):
        assert_array_equal(small[..., 0], cv2.resize(one[..., 0], (16, 16), interpolation=cv2.INTER_AREA))


def test_crops_of_photographs_have_their_share():
    def share_of(made):
        crops = np.concatenate([made[k][0] for k in range(20)])
        flat = crops.std(axis=(1, 2, 3)) < 1e-3  # the radiographs here have one grey level each, also blended
        return 1 - flat.mean()

    assert share_of(batches(share=0.0)) == 0
    assert share_of(batches(share=1.0)) == 1
    # A quarter of the crops, but the first of a batch, is blended with another one, which may be a photograph.
    assert 0.35 < share_of(batches(share=0.35)) < 0.55
    assert share_of(batches(share=0.35, photographs=0)) == 0


def test_a_crop_is_blended_with_an_earlier_one_of_its_batch():
    made = CropBatches([noise(64, 64)], [], 0.0, 1, 32, (20, 16))
    earlier, blends = [np.full((20, 20), 1000.0, np.float32)], []
    for seed in range(400):
        crop = made._crop(np.random.default_rng(seed), earlier)
        plain = made._crop(np.random.default_rng(seed), [])
        if not np.array_equal(crop, plain):
            share = (1000 - crop[0, 0]) / (1000 - plain[0, 0])
            assert_allclose(crop, share * plain + (1 - share) * 1000, rtol=1e-4)
            blends.append(share)
    assert 0.2 < len(blends) / 400 < 0.3
    assert 0.3 <= min(blends) < 0.35 and 0.65 < max(blends) <= 0.7


def test_the_limits_are_those_that_were_measured():
    assert (RADIOGRAPHS.min_area, PHOTOGRAPHS.min_area, RADIOGRAPHS.stretch, RADIOGRAPHS.gamma) == (0.2, 0.1, 0.25, 0.4)
    assert CropLimits(min_area=0.1) == PHOTOGRAPHS


def test_large_pictures_are_averaged_down_and_small_ones_stay():
    picture = noise(640, 320)
    assert_allclose(shrink(picture), picture.reshape(320, 2, 160, 2).mean(axis=(1, 3)), atol=0.51)
    assert_array_equal(shrink(noise(100, 320)), noise(100, 320))
    assert shrink(noise(50, 3200)).shape == (5, 320)


@pytest.fixture
def folder(tmp_path):
    """Two good pictures and one of each kind that is passed over; `other.png` is in no table."""
    images = tmp_path / "images"
    images.mkdir()
    for name, picture in {
        "a.png": noise(100, 90), "blank.png": np.full((80, 80), 7, np.uint8),
        "small.png": noise(63, 100), "long.png": noise(64, 300), "other.png": noise(80, 80, 4),
    }.items():  # fmt: skip
        cv2.imwrite(str(images / name), picture)
    cv2.imwrite(str(tmp_path / "secret.png"), noise(80, 80, 5))
    (images / "b.jpg").write_bytes((images / "a.png").read_bytes())
    (images / "broken.png").write_bytes((images / "a.png").read_bytes()[:200])
    names = ["a.png", "b.jpg", "blank.png", "small.png", "long.png", "broken.png", "none.png", "../secret.png"]
    (tmp_path / "table.csv").write_text("\n".join(["Image Index,Patient ID", *(f"{name},1" for name in names)]) + "\n")
    return tmp_path


def test_pictures_of_a_table_are_read_and_the_others_are_counted(folder):
    found = read_table_pictures(folder / "table.csv", folder / "images")
    assert [one.tolist() for one in found.grey] == [noise(100, 90).tolist()] * 2
    assert found.describe() == (
        "2 pictures; passed over: blank (1), cannot be decoded (1), image outside the folder (1), missing image (1), "
        "smaller than 64 pixels (1), too long and narrow (1)"
    )


def test_pictures_of_folders_are_read_and_the_others_are_counted(folder):
    (folder / "images" / "notes.txt").write_text("nothing")
    found = read_folder_pictures([str(folder / "images")])
    assert len(found.grey) == 3
    assert found.describe() == (
        "3 pictures; passed over: blank (1), cannot be decoded (1), files that are no PNG, JPEG or DICOM (1), "
        "smaller than 64 pixels (1), too long and narrow (1)"
    )


def test_tables_and_folders_without_a_picture_are_refused(folder):
    table = folder / "table.csv"
    with pytest.raises(NotADirectoryError):
        read_table_pictures(table, folder / "table.csv")
    with pytest.raises(FileNotFoundError):
        read_table_pictures(folder / "none.csv", folder / "images")
    table.write_text("Picture,Label\na.png,1\n")
    with pytest.raises(PicturesError, match=r"table\.csv: expected a column Image .*, found 'Picture, Label'"):
        read_table_pictures(table, folder / "images")
    table.write_text("")
    with pytest.raises(PicturesError, match=r"table\.csv: expected a column Image"):
        read_table_pictures(table, folder / "images")
    table.write_bytes(b"Image\n\xff\xfe\n")
    with pytest.raises(PicturesError, match=r"table\.csv line 2: byte 0xff"):
        read_table_pictures(table, folder / "images")
    table.write_text("Image\nblank.png\nnone.png\n")
    with pytest.raises(PicturesError, match=r"of 2 pictures named none could be used \(0 pictures; passed over: blank"):
        read_table_pictures(table, folder / "images")
    empty = folder / "empty"
    empty.mkdir()
    with pytest.raises(PicturesError, match=r"--pictures: .*empty: no PNG, JPEG or DICOM file found"):
        read_folder_pictures([str(empty)])
    (empty / "a.png").write_bytes((folder / "images" / "blank.png").read_bytes())
    with pytest.raises(PicturesError, match=r"none of 1 pictures could be used \(0 pictures; passed over: blank \(1\)"):
        read_folder_pictures([str(empty)])


def test_every_twentieth_picture_is_held_out(monkeypatch):
    numbers = [np.array([[k]]) for k in range(45)]
    (first, second), held_out = hold_out(numbers, numbers[:19])
    assert [int(one[0, 0]) for one in held_out] == [19, 39]
    assert [int(one[0, 0]) for one in first] == [k for k in range(45) if k not in (19, 39)]
    assert second == numbers[:19]
    monkeypatch.setattr(pictures, "MAX_HELD_OUT", 1)
    assert [int(one[0, 0]) for one in hold_out(numbers, [])[1]] == [19]
