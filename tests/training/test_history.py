"""The history file and the line of an epoch."""

import contextlib
import csv

import pytest

from cxr.report.history import epoch_line, epoch_logger


@pytest.mark.fault("T01")
def test_history_file_is_whole_after_every_epoch_and_after_a_resume(tmp_path):
    log = epoch_logger(tmp_path / "logs")
    rows = []
    for epoch in (1, 2, 3):
        rows.append({"epoch": epoch, "loss": 0.5 / epoch, "val_mean_auroc": None if epoch == 1 else 0.75})
        if epoch == 3:
            log = epoch_logger(tmp_path / "logs")  # as in another process
        with contextlib.suppress(KeyError):  # TensorBoard, where it is installed, wants the other columns
            log(rows)
        table = list(csv.reader((tmp_path / "logs" / "history.csv").read_text().splitlines()))
        assert table[0] == ["epoch", "loss", "val_mean_auroc"]
        assert [row[0] for row in table[1:]] == [str(k) for k in range(1, epoch + 1)]
    assert table[1:3] == [["1", "0.5", ""], ["2", "0.25", "0.75"]]


@pytest.mark.fault("T65")
def test_a_run_beside_another_leaves_its_records_alone(tmp_path, caplog):
    """Its first epoch would else throw the other's curves away, and their histories take turns."""
    row = {"epoch": 1, "loss": 0.5, "val_loss": 0.25, "val_mean_auroc": 0.75, "learning_rate": 0.1}
    folder = tmp_path / "logs"
    first, second = epoch_logger(folder), epoch_logger(folder)
    first([row])
    before = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    second([row | {"loss": 9}])
    second([row | {"loss": 9}, row | {"epoch": 2, "loss": 8}])
    assert {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()} == before
    assert "9" not in (folder / "history.csv").read_text()
    (told,) = [record.getMessage() for record in caplog.records]
    assert f"{folder}: another run is writing there. Wait for it to end, or choose another folder." in told
    assert "The training goes on without it." in told
    del first
    second([row | {"loss": 9}])
    assert "9" in (folder / "history.csv").read_text()


def test_epoch_line_states_an_undefined_score_as_such():
    row = {"epoch": 2, "phase": "all", "loss": 0.5, "val_loss": 0.25, "num_defined": 0, "best": True}
    assert epoch_line(row | {"val_mean_auroc": None}, 9) == (
        "epoch   2/9 (all)  loss 0.5000  val loss 0.2500  val mean AUROC n/a over 0 findings  best"
    )
    assert "val mean AUROC 0.750 over" in epoch_line(row | {"val_mean_auroc": 0.75}, 9)
