"""Write the figures of the model card into docs/models.md, out of the model file: none of them is typed.

python -m tools.model_card            # after a new model: write them
python -m tools.model_card --check    # only compare; exit code 1 where they differ
"""

import argparse
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "openvino")  # of the backends at hand the one that starts the fastest

from cxr.data.columns import display_name
from cxr.network.model_file import read_model_info
from cxr.network.model_info import ModelFileError, ModelInfo

ROOT = Path(__file__).resolve().parent.parent
MODEL_PATH = ROOT / "model" / "chest_xray_densenet_model.h5"
PAGE = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- written by tools/model_card.py: begin -->", "<!-- written by tools/model_card.py: end -->"


def card(info: ModelInfo) -> str:
    """Return the tables of the card as Markdown: what was learned from, each test set, each finding, each view."""
    first = next(iter(info.test_sets), None)
    parts = [_facts(info), _sources(info), _test_sets(info)]
    for name, results in info.test_sets.items():
        parts.append(_findings(info, name, results))
        if name == first and results.get("views"):
            parts.append(_views(info, name, results["views"]))
    return "\n\n".join(part for part in parts if part)


def _facts(info: ModelInfo) -> str:
    settings = info.settings
    recipe = ", ".join(f"{display_name(name)} {settings[name]}" for name in RECIPE if settings.get(name))
    rows = [
        ("Input", f"{info.image_size} x {info.image_size} pixels, grey, the whole radiograph resized"),
        ("Start", info.weights_origin),
        ("Recipe", recipe if settings.get("epochs") else "not trained further"),
        ("Saved", f"{info.created[:10]} by Keras {info.keras_version}, SHA-256 `{info.digest[:16]}`"),
    ]
    return _table(("", ""), rows)


RECIPE = (
    "epochs",
    "batch_size",
    "learning_rate",
    "loss",
    "weight_decay",
    "augmentation",
    "mixup",
    "box_weight",
    "seed",
    "teachers",
)


def _sources(info: ModelInfo) -> str:
    rows = [
        (source.name or "all", source.description or "n/a", _count(source.num_images), _count(source.num_patients))
        for source in info.sources
    ]
    return _table(("Learned from", "What they are", "Radiographs", "Patients"), rows)


def _test_sets(info: ModelInfo) -> str:
    rows = []
    for name, results in info.test_sets.items():
        pointing = results.get("pointing")
        rows.append(
            (
                f"{name}: {results.get('description') or 'n/a'}",
                f"{_count(results.get('num_images'))} ({_count(results.get('num_patients'))})",
                _interval(results.get("mean_auroc"), results.get("mean_auroc_interval")),
                f"{_number(results.get('calibration_error'), 3)}, "
                f"{_number(results.get('calibration_error_calibrated'), 3)} calibrated",
                f"{_number(pointing['in_box'])} of {pointing['num_cases']}, random maps "
                f"{_number(pointing['random_in_box'])}"
                if pointing
                else "n/a",
            )
        )
    head = ("Tested on", "Radiographs (patients)", "Mean AUROC", "Expected calibration error", "Heatmap peaks in a box")
    return _table(head, rows)


def _findings(info: ModelInfo, name: str, results: Mapping[str, Any]) -> str:
    head = (f"On {name}", "Positives", "AUROC", "Average precision", "Sensitivity and specificity at 0.5",
            "At the chosen threshold")  # fmt: skip
    thresholds = info.thresholds or (None,) * len(info.findings)
    rows = []
    for finding, threshold in zip(info.findings, thresholds, strict=True):
        value = {key: (results.get(key) or {}).get(finding) for key in COLUMNS}
        at_chosen = f"{_number(value['sensitivity_chosen'])}, {_number(value['specificity_chosen'])}"
        rows.append(
            (
                display_name(finding),
                _count(value["positives"]),
                _interval(value["auroc"], value["auroc_intervals"]),
                _number(value["average_precision"]),
                f"{_number(value['sensitivity'])}, {_number(value['specificity'])}",
                f"{at_chosen} at {_number(threshold)}" if results.get("sensitivity_chosen") else "n/a",
            )
        )
    return _table(head, rows)


COLUMNS = ("positives", "auroc", "auroc_intervals", "average_precision", "sensitivity", "specificity",
           "sensitivity_chosen", "specificity_chosen")  # fmt: skip


def _views(info: ModelInfo, name: str, views: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [("Mean of the findings that are defined",
             *(_interval(part["mean_auroc"], part["mean_auroc_interval"]) for part in views.values()))]  # fmt: skip
    for finding in info.findings:
        rows.append((display_name(finding), *(_number(part["auroc"][finding]) for part in views.values())))
    head = [f"{view} ({_count(part['num_images'])} radiographs)" for view, part in views.items()]
    return _table((f"AUROC on {name} by view", *head), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)])


def _number(value: float | None, digits: int = 2) -> str:
    return "n/a" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _count(value: int | None) -> str:
    return "n/a" if value is None else f"{value:,}"


def _interval(value: float | None, limits: Sequence[float | None] | None) -> str:
    if value is None or not limits or limits[0] is None:
        return _number(value)
    return f"{_number(value)} ({_number(limits[0])} to {_number(limits[1])})"


def with_card(page: str, tables: str) -> str:
    """Return the page with the tables between its two marks.

    Raises:
        ValueError: the page does not have each mark once, in order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in after:
        raise ValueError(f"expected the lines {BEGIN!r} and {END!r} once each, in this order.")
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model-path", type=Path, default=MODEL_PATH, metavar="FILE", help="(default: the shipped one)"
    )
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help="(default: docs/models.md)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where the page differs")
    args = parser.parse_args(argv)
    try:
        page = args.page.read_text(encoding="utf-8")
        written = with_card(page, card(read_model_info(args.model_path)))
    except (ModelFileError, OSError, ValueError) as error:
        print(f"{args.page}: {error}" if isinstance(error, ValueError) else error, file=sys.stderr)
        return 2
    if args.check:
        print(f"{args.page}: {'as the model file says' if written == page else 'differs; run it without --check'}")
        return int(written != page)
    args.page.write_text(written, encoding="utf-8")
    print(f"{args.page}: written from {args.model_path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
