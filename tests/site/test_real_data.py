"""Real radiographs through the site: an answer or a clear refusal, never a fault. CXR_REAL_DATA names their folder."""

import os
from pathlib import Path

import pytest
from quick_site import expected_probabilities
from site_tools import quick_client, upload

from cxr.imaging.limits import ERROR_STATUS, ImageError
from cxr.imaging.radiograph import decode_radiograph

FOLDER = Path(os.environ["CXR_REAL_DATA"]) if os.environ.get("CXR_REAL_DATA") else None
NUM_PNG = 10  # of each folder, in the ordinary suite

pytestmark = pytest.mark.skipif(FOLDER is None, reason="CXR_REAL_DATA names no folder of real radiographs")


def pictures(folder, limit):
    """Some files of a folder, evenly chosen; an empty list where there is none."""
    files = sorted(path for path in (FOLDER / folder).rglob("*") if path.is_file())
    return files[:: max(1, len(files) // limit)][:limit] if limit else files


def check(folder, limit):
    """Send files to page and program; return how many were answered and how many refused."""
    client, answered, refused = quick_client(), 0, 0
    for path in pictures(folder, limit):
        data = path.read_bytes()
        response = upload(client, (path.name, data), path="/api/predict")
        try:
            radiograph = decode_radiograph(data)
        except ImageError as error:
            refused += 1
            assert (response.status_code, response.json["code"]) == (ERROR_STATUS[error.code], error.code), path.name
            assert response.json["detail"] == str(error)
            assert upload(client, data).status_code == error.status
            continue
        answered += 1
        assert response.status_code == 200, path.name
        (answer,) = response.json["results"]
        found = [one["probability"] for one in answer["findings"]]
        assert found == pytest.approx(expected_probabilities(radiograph), abs=1e-5)
        assert (answer["height"], answer["width"]) == radiograph.shape
        assert upload(client, data, script="1").status_code == 200
    return answered, refused


@pytest.mark.parametrize("folder", ["images-1024", "images-256"])
def test_real_png_files_are_answered(folder):
    answered, refused = check(folder, NUM_PNG)
    assert (answered > 0, refused) == (bool(pictures(folder, NUM_PNG)), 0)


def test_real_dicom_files_are_answered_or_refused_with_a_reason():
    answered, refused = check("dicom", 0)
    assert answered + refused == len(pictures("dicom", 0))


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["images-1024", "images-256"])
def test_all_real_png_files_are_answered(folder):
    answered, refused = check(folder, 0)
    assert (answered, refused) == (len(pictures(folder, 0)), 0)
