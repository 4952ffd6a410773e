"""The columns of predictions.csv: what each of them says of an answer, and cells that no program acts on."""

from collections.abc import Sequence

from cxr.heatmaps.explanation import Explanation
from cxr.network.model_info import ModelInfo

# Each once per finding. The site's table (static/downloads.js) has all of them.
COLUMNS = (
    *("probability", "calibrated", "decision", "threshold", "chosen_decision", "chosen_threshold"),
    *("logit", "peak", "zone"),
)
ABOUT = ("Input check", "Input check value", "Notices", "Model")  # of the radiograph as a whole
PASSED, FAILED, UNCHECKED = "ok", "unlike the training radiographs", "not available"
# What a spreadsheet takes for a formula, also in full width, and the quote that guards it here.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20", "'")


def table_header(findings: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Return the header: the image, each column for all findings, and what is said of the radiograph as a whole."""
    names = [one if column == "probability" else f"{one} {column}" for column in columns for one in findings]
    return [harmless(name) for name in ("Image", *names, *ABOUT)]


def table_row(
    name: str, info: ModelInfo, answer: Explanation, notices: Sequence[str], columns: Sequence[str]
) -> list[str]:
    """Return one row under `table_header`; cells that have no value are empty."""
    cells = [cell for column in columns for cell in _cells_of(column, info, answer)]
    verdict = UNCHECKED if answer.input_check is None else FAILED if answer.fails_input_check else PASSED
    value = "" if answer.input_check is None else f"{answer.input_check:.4g}"
    return [harmless(name), *cells, verdict, value, " ".join(notices), info.digest]


def _cells_of(column: str, info: ModelInfo, answer: Explanation) -> list[str]:
    """Return one column's cells, one per finding; empty ones where the model file holds nothing for them."""
    empty = [""] * len(info.findings)
    # Where no threshold could be chosen on the validation split, the default rule decides.
    chosen = info.thresholds or (None,) * len(info.findings)
    rules = [info.threshold if one is None else one for one in chosen]
    if column == "calibrated" and answer.calibrated is None:
        return empty
    if column == "peak" and answer.heatmaps is None:
        return empty
    if column == "zone":
        return ["" if place is None else place.words for place in answer.places]
    cells = {
        "probability": lambda: [f"{one:.6f}" for one in answer.probabilities],
        "calibrated": lambda: [f"{one:.6f}" for one in answer.calibrated],
        "decision": lambda: [str(int(one >= info.threshold)) for one in answer.probabilities],
        "threshold": lambda: [f"{info.threshold:.6g}"] * len(info.findings),
        "chosen_decision": lambda: [
            str(int(one >= rule)) for one, rule in zip(answer.probabilities, rules, strict=True)
        ],
        "chosen_threshold": lambda: ["" if one is None else f"{one:.6g}" for one in chosen],
        "logit": lambda: [f"{one:.6g}" for one in answer.logits],
        "peak": lambda: [f"{one.max():.6g}" for one in answer.heatmaps],
    }
    return cells[column]()


def harmless(text: str) -> str:
    """Keep a spreadsheet from running a cell; texts that differ stay different."""
    acted_on = text.startswith(FORMULA_STARTS) or text.lstrip().startswith(FORMULA_STARTS)  # some drop blanks first
    return f"'{text}" if acted_on else text


def csv_line(cells: Sequence[str]) -> str:
    """Join cells (RFC 4180); one that a program might split at another separator is quoted too."""
    return ",".join(_quoted(cell) for cell in cells) + "\r\n"


def _quoted(cell: str) -> str:
    if any(mark in cell for mark in ',;"\t\r\n|'):
        return '"' + cell.replace('"', '""') + '"'
    return cell
