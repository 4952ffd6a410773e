"""What gradcam.py expects of everything that writes a kind of output, and how such a writer puts a file in place."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from cxr.heatmaps.explanation import Explanation
from cxr.imaging.radiograph import DecodedPicture
from cxr.inference.picture_files import OutputNames
from cxr.system.atomic_files import replacing

# An answer -> positions of the findings that a run shows of it, in the order in which they are shown.
Choice = Callable[[Explanation], Sequence[int]]


class AnswerWriter(Protocol):
    """Writes one kind of output for every radiograph of a run, in the files' order.

    A picture's row of predictions.csv is written after its outputs and says that they are there. A run that was killed
    goes on behind the last row, so a picture may be added that left outputs already: they are replaced.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def add(self, name: str, file: Path, picture: DecodedPicture, answer: Explanation) -> Sequence[str]:
        """Write what this kind of output holds of one radiograph.

        Args:
            name: of the radiograph in predictions.csv; no two of a run are equal.
            file: where it was read from.
        Returns:
            Lines to print about it.
        Raises:
            OSError: it cannot be written.
        """


class WithoutEnd:
    """A writer whose files are whole as soon as they are added: nothing is left to do at the end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def claim_beside(
    outputs: OutputNames, is_of_another: Callable[[Path], bool], name: str, what: str = "", suffix: str = ".png"
) -> tuple[Path, list[str]]:
    """Claim a name for an output in a folder where runs with other tables may have left theirs.

    Args:
        is_of_another: whether a file that is there belongs to another radiograph, or does not say to which.
    Returns:
        The path, and a line for each file that had the name and stays.
    """
    lines = []
    while (path := outputs.claim(name, what, suffix)).exists() and is_of_another(path):
        lines.append(f"{path} is not known to be of this radiograph and stays.")
    return path, lines


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, with its folder: a full disk leaves no cut one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, durable=False) as temp:
        temp.write_bytes(data)
