"""Uploads to answers: who is let in, and what each file of a request is answered with. Knows nothing of HTTP."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from cxr.imaging.limits import ImageError
from cxr.inference.explanation import Explanation, explain
from cxr.site.answer import build_answer, draw_pictures
from cxr.site.decoding_pool import Decoder
from cxr.site.errors import SiteError, problem_details_of
from cxr.site.middleware import FileRecord, RequestRecord
from cxr.site.model_slot import ModelSlot
from cxr.site.uploads import Upload

if TYPE_CHECKING:
    from cxr.inference.predictor import Predictor

MAX_ADMITTED = 12  # requests that are worked on or wait for it; the server has threads to spare for all others


class Service:
    """Answer requests with one model and one decoder; safe to call from many threads, and without memory of them."""

    def __init__(self, model: ModelSlot, decoder: Decoder) -> None:
        self.model = model
        self._decoder = decoder
        self._places = threading.BoundedSemaphore(MAX_ADMITTED)

    def require_ready(self) -> "Predictor":
        """Return the predictor where files could be answered now. Raises: SiteError model_... or decode_down."""
        predictor = self.model.require()
        if not self._decoder.ready():
            raise SiteError("decode_down")
        return predictor

    @contextmanager
    def admitted(self) -> Iterator["Predictor"]:
        """Let a request in, before any of its body is looked at. Raises: SiteError model_... or busy."""
        predictor = self.model.require()
        if not self._places.acquire(blocking=False):
            raise SiteError("busy")
        try:
            yield predictor
        finally:
            self._places.release()

    def results_for_programs(
        self, predictor: "Predictor", uploads: Sequence[Upload], record: RequestRecord
    ) -> list[dict[str, object]]:
        """Answer each file; a file that cannot be used gets problem details, a single one raises.

        Raises: ImageError, SiteError.
        """
        results = []
        for upload in uploads:
            try:
                results.append(self._answer(predictor, upload, record)[2])
            except (ImageError, SiteError) as error:
                if len(uploads) == 1:
                    raise
                results.append({"file": upload.name} | problem_details_of(error))
        return results

    def results_for_page(
        self, predictor: "Predictor", uploads: Sequence[Upload], record: RequestRecord, *, overlays: bool
    ) -> list[dict[str, object]]:
        """Answer each file with what result.html shows; errors as in `results_for_programs`."""
        results = []
        for number, upload in enumerate(uploads, 1):
            result = {"number": number, "name": upload.name, "labels": upload.labels, "error": None}
            try:
                radiograph, explanation, result["answer"] = self._answer(predictor, upload, record)
            except (ImageError, SiteError) as error:
                if len(uploads) == 1:
                    raise
                nothing = {"answer": None, "radiograph": None, "overlays": [], "thumbnail": None}
                result |= nothing | {"error": problem_details_of(error)}
            else:
                with record.files[-1].stage("draw"):
                    result |= draw_pictures(
                        radiograph, predictor.info, explanation, overlays=overlays, thumbnail=len(uploads) > 1
                    )
            results.append(result)
        return results

    def _answer(
        self, predictor: "Predictor", upload: Upload, record: RequestRecord
    ) -> tuple[np.ndarray, Explanation, dict[str, object]]:
        """Decode and explain one file: radiograph, explanation, and the answer in JSON's types."""
        file = FileRecord(len(upload.data))
        record.files.append(file)
        try:
            with file.stage("decode"):
                picture = self._decoder.decode(upload.data)
        except (ImageError, SiteError) as error:
            file.code = error.code
            raise
        file.type, file.dims = picture.file_type, picture.radiograph.shape[::-1]
        with file.stage("model"):
            explanation = explain(predictor, picture.radiograph, maps_required=False)
        answer = build_answer(predictor.info, explanation, picture)
        return picture.radiograph, explanation, {"file": upload.name} | answer
