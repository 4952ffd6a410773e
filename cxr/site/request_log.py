"""One log line per request, as JSON, without anything of the picture: no name, no pixel, no value of a header.

The route is the rule that matched, never the path that was asked for.
"""

import json
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

logger = logging.getLogger("cxr.requests")


@dataclass
class FileRecord:
    """What is logged of one file: its size in bytes, type, (width, height), milliseconds per stage, error code."""

    num_bytes: int
    type: str = ""
    dims: tuple[int, int] | None = None
    code: str = ""
    ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage, a failing one too."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.ms[name] = round(1000 * (time.perf_counter() - start), 1)


@dataclass
class RequestRecord:
    """What is logged of one request."""

    request_id: str
    start: float = field(default_factory=time.perf_counter)
    route: str | None = None
    code: str = ""
    files: list[FileRecord] = field(default_factory=list)

    def write(self, *, method: str, status: int, num_bytes: int) -> None:
        record = {
            "id": self.request_id,
            "method": method,
            "route": self.route,
            "status": status,
            "bytes": num_bytes,
            "ms": round(1000 * (time.perf_counter() - self.start), 1),
        }
        if self.code:
            record["code"] = self.code
        if self.files:
            record["files"] = [{key: value for key, value in vars(file).items() if value} for file in self.files]
        logger.info(json.dumps(record))


def set_up_logging() -> None:
    """Log to the standard error, one line a record, and keep what libraries' warnings quote out of it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a line per waiting request says nothing new
    warnings.showwarning = _log_warning


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Log where a warning was raised, not its text, which may quote the file."""
    logging.getLogger("py.warnings").warning("%s at %s:%d", category.__name__, Path(filename).name, lineno)
