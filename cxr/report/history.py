"""The history of a run while it goes on: a line, a CSV that is whole after every epoch, and TensorBoard's log."""

import contextlib
import csv
import importlib.util
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr.system.atomic_files import describe_error, replacing, sole_use
from cxr.training.recipe import Recipe

logger = logging.getLogger(__name__)

SCALARS = ("loss", "val_loss", "val_mean_auroc", "learning_rate")  # what TensorBoard shows


@dataclass(frozen=True)
class History:
    """A finished run: its recipe, and one row per epoch."""

    recipe: Recipe
    rows: list[dict[str, Any]]


def write_history(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Write one line per epoch, from the first on: a resumed run leaves neither gap nor double."""
    text = io.StringIO()
    rows = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n")
    rows.writeheader()
    rows.writerows(history)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temp:
        temp.write_text(text.getvalue(), encoding="utf-8")


def epoch_logger(folder: Path) -> Callable[[Sequence[dict[str, Any]]], None]:
    """Return a function that records a growing history in `folder`: history.csv, and TensorBoard's files if it can.

    A folder that cannot be written, or that another run records in, costs a warning and the records, not the run: the
    history is in the checkpoint too. The folder is held for as long as the function is.
    """
    writer, warned, held = None, False, contextlib.ExitStack()
    is_held = False

    def log(history: Sequence[dict[str, Any]]) -> None:
        nonlocal warned
        try:
            record(history)
        except OSError as error:
            if not warned:
                logger.warning("%s The training goes on without it.", describe_error(error))
            warned = True

    def record(history: Sequence[dict[str, Any]]) -> None:
        nonlocal writer, is_held
        if not is_held:
            held.enter_context(sole_use(folder))
            is_held = True
        write_history(history, folder / "history.csv")
        if importlib.util.find_spec("tensorboard") is None:
            return
        if len(history) == 1:  # a new run: another run's curves do not belong beside its own
            for old in (folder / "tensorboard").glob("events.out.*"):
                old.unlink()
        if writer is None:
            from tensorboard.summary import Writer

            writer = Writer(str(folder / "tensorboard"))
        for name in SCALARS:
            if history[-1][name] is not None:
                writer.add_scalar(name, history[-1][name], step=history[-1]["epoch"])
        writer.flush()

    return log


def epoch_line(row: dict[str, Any], num_epochs: int) -> str:
    """Describe an epoch in a line."""
    auroc = "n/a" if row["val_mean_auroc"] is None else f"{row['val_mean_auroc']:.3f}"
    line = f"epoch {row['epoch']:3d}/{num_epochs} ({row['phase']})  loss {row['loss']:.4f}"
    line += f"  val loss {row['val_loss']:.4f}  val mean AUROC {auroc} over {row['num_defined']} findings"
    return f"{line}  best" if row["best"] else line
