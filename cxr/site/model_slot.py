"""The model of the running site: loaded once, in the background, while the site already answers.

A running site keeps the model that it has in memory, whatever happens to the file; a new one is read at the next start.
"""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.inference.backend import BackendError, choose_inference_backend, load_keras
from cxr.network.model_info import ModelFileError
from cxr.site.errors import SiteError
from cxr.system.hdf5_guard import MemoryShortError

if TYPE_CHECKING:
    from cxr.anatomy.outline_model import OutlineModel
    from cxr.inference.predictor import Predictor

logger = logging.getLogger(__name__)


def _load_predictor(path: str | os.PathLike, precision: str) -> "Predictor":
    choose_inference_backend()
    load_keras()  # which takes seconds: the site listens meanwhile
    from cxr.inference.predictor import Predictor

    return Predictor(path, precision=precision, side_by_side=True)


def _load_outline_model(path: Path) -> "OutlineModel":
    from cxr.anatomy.outline_model import OutlineModel

    return OutlineModel(path)


class ModelSlot:
    """A place for one predictor, and for the model of lungs and heart beside it.

    Attributes:
        state: "loading", "ready", "missing" (no file) or "refused" (a file that cannot be used; the log says why),
            "no_backend" (nothing that could compute; the log says why) or "no_memory" (too little to load it).
        predictor: None unless ready. It has answered its self-check picture by then, so it is warm.
        outline_model: None unless ready, and where none was named, or its file is missing or cannot be used: answers go
            out without outlines then.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        precision: str = "f32",
        anatomy: Path | None = None,
        load: Callable[[str | os.PathLike, str], "Predictor"] = _load_predictor,
        load_outlines: Callable[[Path], "OutlineModel"] = _load_outline_model,
    ) -> None:
        self.state = "loading"
        self.predictor: Predictor | None = None
        self.outline_model: OutlineModel | None = None
        self.name = Path(path).stem  # by which visitors and programs choose it, where there are several
        self._path, self._precision, self._load = Path(path), precision, load
        self._anatomy, self._load_outlines = anatomy, load_outlines
        self._lock, self._loading_process = threading.Lock(), 0

    def load(self) -> None:
        """Load now. What is no fault of the file is raised, and the state is "refused" all the same."""
        state = "refused"
        try:
            if not self._path.exists():
                state = "missing"
                logger.error(
                    "%s: no such file. Train a model with main_train.py, or name one with --model-path.", self._path
                )
                return
            self.predictor = self._load(self._path, self._precision)
            self.outline_model = self._outline_model()
            state = "ready"
            logger.info("Model %s ready on %s", self.predictor.info.digest[:12], self.predictor.engine)
        except ModelFileError as error:
            logger.error("No model: %s", error)
        except BackendError as error:
            state = "no_backend"
            logger.error("No model: %s", error)
        except (MemoryShortError, MemoryError) as error:
            state = "no_memory"
            logger.error("No model: %s", str(error) or "not enough memory")
        finally:
            self.state = state

    def _outline_model(self) -> "OutlineModel | None":
        """Load the model of lungs and heart, where there is one; the site does without it."""
        if self._anatomy is None:
            return None
        if not self._anatomy.exists():
            logger.info("No outlines of lungs and heart: %s: no such file", self._anatomy)
            return None
        try:
            return self._load_outlines(self._anatomy)
        except (BackendError, MemoryError, MemoryShortError, ModelFileError) as error:
            logger.error("No outlines of lungs and heart: %s", str(error) or "not enough memory")
            return None

    def load_once_in_background(self) -> None:
        """Load, at the first call in this process: a server that forks takes no loading thread along."""
        with self._lock:
            first, self._loading_process = self._loading_process != os.getpid(), os.getpid()
        if first:
            self.load_in_background()

    def load_in_background(self) -> threading.Thread:
        thread = threading.Thread(target=self.load, name="model", daemon=True)
        thread.start()
        return thread

    def require(self) -> "Predictor":
        """Return the predictor. Raises: SiteError model_loading, model_missing, model_refused, model_no_backend or
        model_no_memory."""
        if self.state != "ready" or self.predictor is None:
            raise SiteError(f"model_{self.state}")
        return self.predictor


def load_in_turn(slots: Sequence[ModelSlot]) -> threading.Thread:
    """Load models in the background, one after the other: loading takes more memory than a loaded model."""

    def load_all() -> None:
        for slot in slots:
            slot.load_in_background().join()  # a thread each: a fault in one does not keep the next from loading

    thread = threading.Thread(target=load_all, name="models", daemon=True)
    thread.start()
    return thread
