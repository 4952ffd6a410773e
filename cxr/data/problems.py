"""Faults and warnings of the data: their records, and how text of a user's file is quoted in them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

NUM_LISTED = 20  # problems of one kind that are kept and printed per file; the others are only counted


class LabelError(ValueError):
    """Report label data, or a choice of how to read it, that the user can correct."""


@dataclass(frozen=True)
class DataProblem:
    """Record one thing that is wrong (a fault) or odd (a warning) in the data."""

    severity: str
    kind: str
    file: str
    line: int | None
    column: str | None
    message: str

    def __str__(self) -> str:
        line = f" line {self.line}" if self.line else ""
        column = f"{',' if line else ''} column {shown(self.column)}" if self.column else ""
        return f"{self.file}{line}{column}: {self.message}"


@dataclass
class DataProblems:
    """Collect problems: the first `NUM_LISTED` of a kind per file in full, the others as a count."""

    listed: list[DataProblem] = field(default_factory=list)
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def fault(self, kind: str, file: str, message: str, line: int | None = None, column: str | None = None) -> None:
        """Record something that must be corrected before training."""
        self._add("fault", kind, file, line, column, message)

    def warning(self, kind: str, file: str, message: str, line: int | None = None, column: str | None = None) -> None:
        """Record something that the user should know but that does not stop a run."""
        self._add("warning", kind, file, line, column, message)

    def count_fault(self, kind: str, file: str, number: int) -> None:
        """Count faults of a kind of which as many as are listed are recorded already."""
        if number:
            self.counts[("fault", kind, file)] += number

    def has_fault(self, file: str) -> bool:
        """Whether something that must be corrected is recorded of a file."""
        return any(severity == "fault" and of == file for severity, _, of in self.counts)

    def _add(self, severity: str, kind: str, file: str, line: int | None, column: str | None, message: str) -> None:
        group = (severity, kind, file)
        self.counts[group] += 1
        if self.counts[group] <= NUM_LISTED:
            self.listed.append(DataProblem(severity, kind, file, line, column, message))


def shown(text: str, max_chars: int = 40) -> str:
    """Quote text of a file for a message: shortened, and what a terminal would act on escaped, but no back-slash."""
    return repr(text if len(text) <= max_chars else text[: max_chars - 3] + "...").replace("\\\\", "\\")


def listed_names(names: Sequence[str]) -> str:
    """Join names for a message, the first `NUM_LISTED` of them."""
    more = f" and {len(names) - NUM_LISTED} more" if len(names) > NUM_LISTED else ""
    return (", ".join(shown(name) for name in names[:NUM_LISTED]) or "none") + more
