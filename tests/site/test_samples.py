"""The samples of the start page, read by the reader of the data check: whatever it accepts, the site starts with."""

import shutil
from pathlib import Path

import pytest

from cxr.site.uploads import SAMPLE_NAMES, load_samples

ROOT = Path(__file__).resolve().parents[2]
HEADER, *ROWS = (ROOT / "test_data.csv").read_text(encoding="utf-8").splitlines()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name in SAMPLE_NAMES:
        shutil.copy(ROOT / "images" / name, tmp_path / "images")
    return tmp_path


@pytest.mark.parametrize(
    "table",
    [
        "\n".join([HEADER, *ROWS]),
        "\n".join([HEADER.replace("Image,", "Image Index,"), *ROWS]),
        "\ufeff" + "\r\n".join([HEADER.replace("Patientid", "Patient ID"), *ROWS]),
        "\n".join([HEADER, *[row.replace(",0,", ",0.0,") for row in ROWS]]),
        "\n".join([HEADER.upper(), *ROWS]),
    ],
    ids=["as shipped", "Image Index", "byte order mark", "0.0", "capitals"],
)
def test_samples_have_their_labels_however_the_table_is_written(folder, table):
    (folder / "test_data.csv").write_text(table, encoding="utf-8", newline="")
    samples = load_samples(folder)
    assert list(samples) == list(SAMPLE_NAMES)
    for name in SAMPLE_NAMES:
        row = next(row for row in ROWS if row.startswith(name)).split(",")
        present = [f for f, cell in zip(HEADER.split(","), row, strict=True) if cell == "1" and f != "Patientid"]
        assert [one.casefold() for one in samples[name].labels] == [one.casefold() for one in present]
        assert samples[name].data == (ROOT / "images" / name).read_bytes()


@pytest.mark.parametrize("table", [b"", b"a;b\n", b"\xff\xfeI\0", b"Image,Mass\n1.png,1\n"])
def test_a_table_that_cannot_be_read_shows_no_samples_and_is_logged(folder, table, caplog):
    (folder / "test_data.csv").write_bytes(table)
    assert load_samples(folder) == {}
    assert "No samples are shown. test_data.csv" in caplog.text


def test_without_a_table_there_are_no_samples(folder, caplog):
    assert load_samples(folder) == {}
    assert caplog.text == ""
