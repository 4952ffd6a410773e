"""The samples of the start page: known by what the files hold, whatever they or a user's table are called."""

import csv
import shutil
from pathlib import Path

import pytest
from site_tools import png

from cxr.site.service import SAMPLES, load_samples

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.fault("I80")
def test_samples_are_known_by_their_content_and_not_by_their_names(tmp_path):
    """A patient's film under a sample's name is never offered as one; labels do not come from a table of the user's."""
    shipped = load_samples()
    (tmp_path / "images").mkdir()
    for name in list(shipped)[1:]:
        (tmp_path / "images" / name).write_bytes(png())
    (tmp_path / "images" / next(iter(shipped))).write_bytes(next(iter(shipped.values())).data)
    (tmp_path / "test_data.csv").write_text("Image Index,Hernia\n" + "".join(f"{name},1\n" for name in shipped))
    (sample,) = load_samples(tmp_path).values()
    assert (sample.name, sample.labels) == ("00000054_000.png", ("Cardiomegaly",))


def test_labels_of_the_samples_are_those_of_the_shipped_test_split():
    with (ROOT / "test_data.csv").open(newline="") as file:
        rows = {row.pop("Image"): row for row in csv.DictReader(file)}
    samples = load_samples()
    assert len(samples) == 6
    for name, sample in samples.items():
        assert sample.labels == tuple(
            finding for finding, cell in rows[name].items() if cell == "1" and finding != "Patientid"
        )


def test_samples_need_no_table_and_a_missing_one_is_left_out(tmp_path):
    (tmp_path / "images").mkdir()
    for name in list(SAMPLES)[2:]:
        shutil.copy(ROOT / "images" / name, tmp_path / "images")
    assert list(load_samples(tmp_path)) == list(SAMPLES)[2:]
    assert load_samples(tmp_path / "images") == {}
