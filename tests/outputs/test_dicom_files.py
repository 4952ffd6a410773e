"""gradcam.py --dicom-out: which files are written, what is said where none can be, and that they are never scored."""

import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import dicom_answers as answers
import numpy as np
import pydicom
import pytest
import radiographs as files
from numpy.testing import assert_array_equal
from served_model import served_predictor

import gradcam
from cxr.heatmaps.explanation import explain
from cxr.imaging.radiograph import decode_radiograph

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run_main(monkeypatch, tmp_path):
    monkeypatch.setattr("cxr.inference.predictor.Predictor", lambda path, **options: served_predictor())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gradcam, "_outline_model", lambda args: None)
    Path("in/b").mkdir(parents=True)
    return gradcam.main


def written(folder="results") -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def test_each_dicom_radiograph_gets_its_objects_with_the_numbers_of_the_table(run_main, capsys):
    data = answers.patient_dicom()
    Path("in/x.dcm").write_bytes(data)
    Path("in/b/x.dcm").write_bytes(answers.patient_dicom(files.radiograph(seed=1), SOPInstanceUID="1.2.3"))
    assert run_main(["in", "--top", "0", "--dicom-out", "results"]) == 0
    assert written() == ["b/x-capture.dcm", "b/x-report.dcm", "x-capture.dcm", "x-report.dcm"]
    answer = explain(served_predictor(), decode_radiograph(data))
    groups = answers.groups_of(pydicom.dcmread("results/x-report.dcm"))
    read = np.array([group["Probability"] for group in groups], np.float32)
    assert_array_equal(read, np.sort(answer.probabilities)[::-1])
    assert "DICOM capture -> results/x-capture.dcm" in capsys.readouterr().out


def test_credible_outlines_become_a_segmentation(run_main, monkeypatch):
    model = SimpleNamespace(info=SimpleNamespace(digest="0"), outline=lambda radiograph: answers.outlines())
    monkeypatch.setattr(gradcam, "_outline_model", lambda args: model)
    Path("in/x.dcm").write_bytes(answers.patient_dicom())
    assert run_main(["in", "--top", "0", "--dicom-out", "results"]) == 0
    assert written() == ["x-capture.dcm", "x-report.dcm", "x-segmentation.dcm"]


@pytest.mark.fault("I73")
def test_results_of_runs_with_tables_of_their_own_do_not_replace_each_other(run_main, monkeypatch, capsys):
    model = SimpleNamespace(info=SimpleNamespace(digest="0"), outline=lambda radiograph: answers.outlines())
    monkeypatch.setattr(gradcam, "_outline_model", lambda args: model)
    Path("in/x.dcm").write_bytes(answers.patient_dicom(SOPInstanceUID="1.2.34"))
    Path("in/b/x.dcm").write_bytes(answers.patient_dicom(files.radiograph(seed=1), SOPInstanceUID="1.2.3"))
    assert run_main(["in/x.dcm", "--top", "0", "--out", "one", "--dicom-out", "results"]) == 0
    first = {name: Path("results", name).read_bytes() for name in written()}
    assert len(first) == 3
    second = [f"x-{what}-2.dcm" for what in ("capture", "report", "segmentation")]
    for out in ("two", "three"):  # the second time its own results are replaced
        assert run_main(["in/b/x.dcm", "--top", "0", "--out", out, "--dicom-out", "results"]) == 0
        assert "results/x-capture.dcm is not known to be of this radiograph and stays." in capsys.readouterr().out
        assert written() == sorted([*first, *second])
        assert all(Path("results", name).read_bytes() == data for name, data in first.items())


def test_files_without_identifiers_are_answered_and_said(run_main, capsys):
    Path("in/x.png").write_bytes(files.png(files.radiograph()))
    Path("in/y.dcm").write_bytes(files.dicom(files.radiograph()))
    assert run_main(["in", "--top", "0", "--dicom-out", "results"]) == 0
    out = capsys.readouterr().out
    assert "No DICOM results: Only DICOM files have the identifiers" in out
    assert "No DICOM results: This DICOM file has no Study Instance UID, and none is invented." in out
    assert "2 of 2 files" in out
    assert not Path("results").exists()


@pytest.mark.fault("O05")
@pytest.mark.parametrize("change", ["gone", "another"])
def test_a_file_that_changed_behind_its_answer_has_no_results(run_main, monkeypatch, capsys, change):
    film = Path("in/x.dcm")
    film.write_bytes(answers.patient_dicom())
    real = gradcam.explain

    def explain_and_change(*arguments, **options):
        film.unlink()
        if change == "another":
            film.write_bytes(answers.patient_dicom(files.radiograph(70, 80), PatientID="008"))
        return real(*arguments, **options)

    monkeypatch.setattr(gradcam, "explain", explain_and_change)
    assert run_main(["in", "--top", "0", "--dicom-out", "results"]) == 0
    said = {"gone": "the file cannot be read again: No such file", "another": "The file is another one now"}
    assert f"No DICOM results: {said[change]}" in capsys.readouterr().out
    assert not Path("results").exists()


@pytest.mark.fault("O07")
@pytest.mark.parametrize("syntax", [files.EXPLICIT, files.IMPLICIT])
@pytest.mark.parametrize("pattern", ["study", "study/*.dcm"])
def test_own_results_are_not_scored_even_from_an_archive(run_main, capsys, syntax, pattern):
    """Archives write group 2 anew and may change the transfer syntax."""
    Path("study").mkdir()
    Path("study/film.dcm").write_bytes(answers.patient_dicom())
    for what, result in answers.objects_for(answers.patient_dicom()).items():
        dataset = pydicom.dcmread(io.BytesIO(result))
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.file_meta.ImplementationVersionName = "ARCHIVE"
        dataset.save_as(f"study/{what}.dcm", enforce_file_format=True)
    assert run_main([pattern, "--top", "0", "--dicom-out", "results"]) == 0
    out = capsys.readouterr().out
    assert "DICOM results of this program (3)" in out
    assert "1 of 1 files" in out


@pytest.mark.fault("O07")
def test_the_folder_of_the_results_is_left_out(run_main, capsys):
    Path("in/x.dcm").write_bytes(answers.patient_dicom())
    for _ in range(2):
        assert run_main(["in", "--top", "0", "--dicom-out", "in/results"]) == 0
        assert "1 of 1 files" in capsys.readouterr().out


@pytest.mark.fault("O08")
def test_without_highdicom_one_line_says_how_to_install_it(run_main, monkeypatch, capsys):
    Path("in/x.dcm").write_bytes(answers.patient_dicom())
    monkeypatch.setattr(gradcam, "can_write_dicom", lambda: False)
    assert run_main(["in", "--dicom-out", "results"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert run_main(["in", "--top", "0"]) == 0


@pytest.mark.fault("O08")
def test_nothing_imports_highdicom_before_a_result_is_made():
    code = "import app, gradcam, sys; sys.exit('highdicom' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
