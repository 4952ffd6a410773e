"""Every source in its own layout: prepared, checked, trained on, served. A small network stands in for DenseNet121."""

import shlex
import signal
from pathlib import Path

import data_sources
import pytest
from site_tools import answers_of, png, shared_decoder, text_of, upload
from small_network import build_small_network

import app
import main_train
from cxr.site.model_slot import ModelSlot
from tools import prepare_data


def nih_files(folder: Path) -> list[object]:
    """30 images of 15 patients, unpacked as the archives are, with lists and a box."""
    labels = ("Effusion|Mass", "No Finding", "Hernia")
    names = [f"{patient:08}_{number:03}.png" for patient in range(15) for number in range(2)]
    rows = [f"{name},{labels[k % 3]},0,{int(name[:8])}" for k, name in enumerate(names)]
    data_sources.write_table(folder / "entries.csv", "Image Index,Finding Labels,Follow-up #,Patient ID", rows)
    (folder / "train_val.txt").write_text("\n".join(names[:20]))
    (folder / "test.txt").write_text("\n".join(names[20:]))
    boxes = [f"{names[21]},Effusion,100,100,300,300,,,"]
    data_sources.write_table(folder / "boxes.csv", "Image Index,Finding Label,Bbox [x,y,w,h],,,", boxes)
    for k, name in enumerate(names):
        data_sources.write_picture(folder / "pictures" / f"images_{k % 2 + 1:03}" / "images" / name)
    files = {"entries": "entries.csv", "train-val-list": "train_val.txt", "test-list": "test.txt", "boxes": "boxes.csv"}
    named = [word for flag, name in files.items() for word in (f"--{flag}", folder / name)]
    return [*named, "--archives", folder / "pictures"]


def table_files(folder: Path) -> list[object]:
    for number in range(20):
        data_sources.write_picture(folder / f"x{number}.png")
    table = data_sources.any_table(folder / "t.csv")
    return [table, "--image-column", "file", "--label-column", "what", "--image-dir", folder]


SOURCES = {
    "nih": nih_files,
    "chexpert": lambda folder: [data_sources.chexpert_files(folder), "--image-dir", folder],
    "mimic-cxr-jpg": lambda folder: [data_sources.mimic_files(folder), "--image-dir", folder / "files"],
    "vindr": lambda folder: [data_sources.vindr_files(folder, with_test=True), "--image-dir", folder],
    "rsna": lambda folder: [data_sources.rsna_files(folder), "--image-dir", folder / "stage_2_train_images"],
    "padchest": lambda folder: [data_sources.padchest_file(folder), "--image-dir", folder / "pictures"],
    "folders": lambda folder: [data_sources.class_folders(folder)],
    "table": table_files,
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project of which the script believes that it is its own."""
    monkeypatch.setattr(main_train, "PROJECT_DIR", tmp_path)
    monkeypatch.setattr(
        "cxr.network.densenet.build_network",
        lambda findings, size, momentum=0.99, precision="float32": build_small_network(findings, size),
    )
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


@pytest.mark.fault("C78")
@pytest.mark.parametrize(
    "source", [pytest.param(name, marks=() if name == "rsna" else pytest.mark.slow) for name in SOURCES]
)
def test_a_source_is_prepared_checked_trained_on_and_served(project, capsys, source):
    folder = project / "source"
    arguments = SOURCES[source](folder)
    assert prepare_data.main([source, *map(str, arguments), "--out", str(project / "out")]) == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1].removeprefix("Next: python main_train.py"))
    assert main_train.main(words) == 0
    assert "0 faults" in capsys.readouterr().out
    training = ["--weights", "none", "--image-size", "32", "--epochs", "1", "--batch-size", "4"]
    model = project / "model.h5"
    words.remove("--check")
    assert main_train.main([*words, *training, "--model-path", str(model)]) == 0
    report = next((project / "reports").glob("*/report.html")).read_text()
    unknown_patients = source in ("vindr", "rsna", "folders", "table")
    assert ("The tables name no patients" in report) is unknown_patients
    assert ("Localisation" in report or "Peak in box" in report) is (source in ("nih", "vindr", "rsna"))

    slot = ModelSlot(model)
    slot.load()
    assert slot.predictor.info.patients_known is not unknown_patients
    client = app.create_app(slot, shared_decoder()).test_client()
    (answer,) = answers_of(upload(client, png()))
    assert {one["name"] for one in answer["findings"]} == set(slot.predictor.info.findings)
    assert ("the tables name no patients" in text_of(client.get("/model"))) is unknown_patients
