"""The site's DICOM results: what comes back for a DICOM file, what is refused, and that nothing stays or leaks."""

import io
import json
import zipfile

import dicom_answers as answers
import numpy as np
import pydicom
import pytest
import radiographs as files
from site_tools import form, png, quick_client, text_of, upload

from cxr.imaging.radiograph import decode_radiograph

BOTH = pytest.mark.parametrize("path", ["/dicom", "/api/dicom"])


@pytest.fixture(scope="module")
def client():
    return quick_client()


def unpacked(response) -> dict[str, pydicom.Dataset]:
    assert response.status_code == 200, response.text
    assert response.mimetype == "application/zip"
    with zipfile.ZipFile(io.BytesIO(response.data)) as archive:
        return {name: pydicom.dcmread(io.BytesIO(archive.read(name))) for name in archive.namelist()}


@BOTH
def test_a_dicom_file_comes_back_as_objects_of_its_study_with_the_numbers_of_the_answer(client, path):
    data = answers.patient_dicom()
    found = unpacked(upload(client, ("film.dcm", data), path=path))
    assert sorted(found) == ["capture.dcm", "report.dcm"]
    assert {one.StudyInstanceUID for one in found.values()} == {answers.STUDY}
    answer = upload(client, ("film.dcm", data), path="/api/predict").json["results"][0]
    numbers = sorted((one["probability"] for one in answer["findings"]), reverse=True)
    read = [group["Probability"] for group in answers.groups_of(found["report.dcm"])]
    np.testing.assert_allclose(read, numbers, rtol=1e-5)
    assert decode_radiograph(data).shape == (96, 80)


def test_the_file_may_be_the_body_itself(client):
    response = client.post("/api/dicom", data=answers.patient_dicom(), content_type="application/dicom")
    assert sorted(unpacked(response)) == ["capture.dcm", "report.dcm"]


def test_the_download_has_a_name_without_anything_of_the_file(client):
    response = upload(client, ("DOE^JANE.dcm", answers.patient_dicom()), path="/dicom")
    assert response.headers["Content-Disposition"] == 'attachment; filename="dicom-results.zip"'
    assert response.headers["X-Content-Type-Options"] == "nosniff"


REFUSED = [
    (b"", "empty", 422),
    (b"text", "type", 415),
    (png(), "no_identifiers", 422),
    (files.dicom(files.radiograph()), "no_identifiers", 422),
    (
        answers.patient_dicom().replace(answers.STUDY.encode(), answers.STUDY.replace(".8.", ".08").encode()),
        "no_identifiers",
        422,
    ),
    (answers.patient_dicom(NumberOfFrames=2), "several_pictures", 422),
    (answers.patient_dicom(OtherPatientIDs="x")[:400], "damaged", 422),
]


@pytest.mark.fault("O09")
@pytest.mark.parametrize(("data", "code", "status"), REFUSED)
def test_what_cannot_become_a_dicom_result_is_refused(client, data, code, status):
    response = client.post("/api/dicom", data=data, content_type="application/dicom")
    assert (response.status_code, response.json["code"]) == (status, code)


@pytest.mark.fault("O09")
def test_one_file_is_taken_and_not_several(client):
    assert upload(client, png(), png(1), path="/api/dicom").json["code"] == "one_file"
    assert (
        client.post("/api/dicom", data=form(), content_type="multipart/form-data; boundary=border").status_code == 400
    )


@pytest.mark.fault("O09")
def test_a_page_says_why_there_are_no_results(client):
    response = upload(client, png(), path="/dicom")
    assert response.status_code == 422
    assert "Only DICOM files have the identifiers that DICOM results need" in text_of(response)


@pytest.mark.fault("O09")
@BOTH
def test_other_sites_do_not_get_a_patients_objects(client, path):
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "http://evil.example"}
    response = upload(client, ("film.dcm", answers.patient_dicom()), path=path, headers=headers)
    assert response.status_code == 403


@pytest.mark.fault("O09")
@pytest.mark.parametrize("size", [32 * 1024**2 + 1])
def test_a_body_beyond_the_limit_is_refused(client, size):
    response = client.post("/api/dicom", data=bytes(size), content_type="application/dicom")
    assert (response.status_code, response.json["code"]) == (413, "request_too_large")


@pytest.mark.fault("O09")
def test_nothing_of_the_patient_is_logged_or_kept(client, caplog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = answers.patient_dicom(PatientName="MUSTERMANN^MAX", PatientID="ID4711")
    with caplog.at_level("DEBUG"):
        report = unpacked(upload(client, ("film.dcm", data), path="/dicom"))["report.dcm"]
        upload(client, ("film.dcm", answers.patient_dicom(PatientName="MUSTERMANN=A=B=C")), path="/api/dicom")
    assert report.PatientName == "MUSTERMANN^MAX"
    assert "MUSTERMANN" not in caplog.text
    for secret in ("ID4711", answers.STUDY, answers.SERIES, answers.INSTANCE):
        assert secret not in caplog.text
    assert not list(tmp_path.iterdir())
    lines = [json.loads(record.message) for record in caplog.records if record.name == "cxr.requests"]
    assert lines[-1]["files"][0]["code"] == "no_identifiers"


@pytest.mark.fault("O08")
def test_without_highdicom_the_site_says_what_to_install(client, monkeypatch):
    monkeypatch.setattr("cxr.site.service.can_write_dicom", lambda: False)
    response = upload(client, ("film.dcm", answers.patient_dicom()), path="/api/dicom")
    assert (response.status_code, response.json["code"]) == (503, "no_highdicom")
    assert "pip install highdicom" in response.json["detail"]


def test_the_result_page_of_a_dicom_file_offers_them_and_that_of_a_png_does_not(client):
    page = upload(client, ("film.dcm", answers.patient_dicom()))
    assert 'action="/dicom"' in page.text
    assert 'action="/dicom"' not in upload(client, png()).text
