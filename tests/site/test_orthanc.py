"""DICOM results and the script of docs/site.md in a real Orthanc, started here on free ports of this machine."""

import contextlib
import http.client
import io
import json
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import dicom_answers as answers
import pydicom
import pytest
import radiographs as files
from site_tools import ROOT, ask, running_site

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("Orthanc") is None, reason="Orthanc is not installed; apt-get install orthanc"),
    pytest.mark.skipif(shutil.which("storescu") is None, reason="dcmtk is not installed; apt-get install dcmtk"),
]
PAGE = (ROOT / "docs" / "site.md").read_text(encoding="utf-8")
SCRIPT = re.search(r"```lua\n(.*?)```", PAGE, re.DOTALL)[1]
PATIENCE = 60  # seconds


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextlib.contextmanager
def running_orthanc(folder: Path, script: str = ""):
    """Start Orthanc with a database and a configuration of its own, reachable from this machine alone."""
    ports = SimpleNamespace(http=free_port(), dicom=free_port())
    (folder / "hook.lua").write_text(script, encoding="utf-8")
    configuration = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": ports.http,
        "DicomPort": ports.dicom,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [],
        "LuaScripts": [str(folder / "hook.lua")],
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration), encoding="utf-8")
    command = ["Orthanc", str(folder / "orthanc.json")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: reachable(ports.http))
        yield ports
    finally:
        process.terminate()
        process.wait(PATIENCE)


def until(condition):
    """Wait for a condition, and return what it says."""
    end = time.monotonic() + PATIENCE
    while not (said := condition()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.2)
    return said


def reachable(port: int) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return ask(port, path="/system")[0] == 200
    return False


def store(ports, *paths: Path) -> None:
    subprocess.run(["storescu", "--required", "127.0.0.1", str(ports.dicom), *map(str, paths)], check=True)


def get(ports, path: str):
    return json.loads(ask(ports.http, path=path)[2])


def stored(ports) -> dict[str, pydicom.Dataset]:
    """Return everything that Orthanc holds by modality, read back through REST."""
    found = [ask(ports.http, path=f"/instances/{one}/file")[2] for one in get(ports, "/instances")]
    datasets = [pydicom.dcmread(io.BytesIO(data)) for data in found]
    return {dataset.Modality: dataset for dataset in datasets}


def test_results_sent_by_dicom_come_back_with_the_same_numbers_in_one_study(tmp_path):
    film = answers.patient_dicom()
    paths = [tmp_path / "film.dcm"]
    paths[0].write_bytes(film)
    for what, data in answers.objects_for(film).items():
        paths.append(tmp_path / f"{what}.dcm")
        paths[-1].write_bytes(data)
    with running_orthanc(tmp_path) as ports:
        store(ports, *paths)
        (study,) = get(ports, "/studies?expand")
        assert study["MainDicomTags"]["StudyInstanceUID"] == answers.STUDY
        assert study["PatientMainDicomTags"]["PatientName"] == "Doe^Jane"
        assert len(study["Series"]) == 4
        back = stored(ports)
    read = [group["Probability"] for group in answers.groups_of(back["SR"])]
    assert read == [0.7312846, 0.5, 0.25]
    sent = pydicom.dcmread(tmp_path / "capture.dcm")
    assert back["OT"].PixelData == sent.PixelData
    assert back["SEG"].PixelData == pydicom.dcmread(tmp_path / "segmentation.dcm").PixelData


@pytest.mark.fault("O10")
def test_a_stored_film_is_answered_by_the_script_of_the_page_once(tmp_path):
    """The script runs as it stands on the page, but for the site's port, which is a free one here."""
    film = tmp_path / "film.dcm"
    film.write_bytes(answers.patient_dicom(Modality="CR", SOPClassUID="1.2.840.10008.5.1.4.1.1.1"))
    second = tmp_path / "second.dcm"
    second.write_bytes(answers.patient_dicom(files.radiograph(seed=1), SOPInstanceUID="1.2.3.4.5"))
    with running_site() as site:
        until(lambda: ask(site.port, path="/readyz")[0] == 200)
        assert SCRIPT.count(":5000/") == 1
        with running_orthanc(tmp_path, SCRIPT.replace(":5000/", f":{site.port}/")) as ports:
            store(ports, film)
            until(lambda: len(get(ports, "/instances")) == 3)
            (study,) = get(ports, "/studies?expand")
            assert len(study["Series"]) == 3
            back = stored(ports)
            store(ports, film)  # again: Orthanc has it already
            time.sleep(2)
            assert len(get(ports, "/instances")) == 3
            site.stop()
            store(ports, second)
            until(lambda: len(get(ports, "/instances")) == 4)
            time.sleep(2)
            assert len(get(ports, "/instances")) == 4
    assert {one.StudyInstanceUID for one in back.values()} == {answers.STUDY}
    assert back["SR"].PatientName == "Doe^Jane"
    groups = answers.groups_of(back["SR"])
    assert len(groups) == 14
    assert {group["Source of Measurement"] for group in groups} == {answers.INSTANCE}
    assert back["OT"].BurnedInAnnotation == "YES"
