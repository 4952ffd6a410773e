"""Uploads to answers: what a request brings, who is let in, what each file is answered with. Knows nothing of HTTP."""

import hashlib
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxr.decoding.pool import Decoder, DecodingError
from cxr.dicom_out.instance import Answer
from cxr.dicom_out.objects import can_write_dicom, dicom_objects, to_archive
from cxr.dicom_out.source import SourceError, read_source
from cxr.heatmaps.explanation import Explanation, explain
from cxr.imaging.limits import ImageError
from cxr.imaging.radiograph import DecodedPicture
from cxr.site.answer import build_answer
from cxr.site.errors import SiteError, problem_details_of
from cxr.site.middleware import FileRecord, RequestRecord
from cxr.site.model_slot import ModelSlot

ROOT = Path(__file__).resolve().parents[2]
MAX_NAME = 60  # characters that a page shows of a file name
# Radiographs of the shipped test split with one finding, or none: name -> SHA-256 of the file, and its labels. The
# model has not learned from them. Their content tells them from a patient's film of the same name.
SAMPLES = {
    "00000054_000.png": ("6939317fdd4f3b25be2c0233f6929fda6629ec5407841abe61e2dd80e05319ff", ("Cardiomegaly",)),
    "00000173_000.png": ("ab04789cd8e322c2cbf3fb43ead928b6af79e8b0cd10ebbc60e730878f8fc2c4", ("Effusion",)),
    "00000178_001.png": ("e1c9cb25e56787beceb7bdc70e43faee177423e024697939cdb4b4592121dcc4", ("Pneumothorax",)),
    "00000096_000.png": ("a48e6142f488f625c0bf1ae1394bd840f51549c989eee051a738691c32f18804", ("Edema",)),
    "00000011_001.png": ("ddddbfc21eb8781ae523e6e88c2ae8dc7e04da4b2c10556d7ae0a0ca0072b5b8", ("Hernia",)),
    "00000003_000.png": ("d1d49ee26566f5c0ce94342b05e637934ff0e98f309a3a6e5769dac2f225e1ac", ()),
}
MAX_ADMITTED = 12  # requests that are worked on or wait for it; the server has threads to spare for all others
# Requests that are worked on at once, from reading the form to the finished page: what a request takes beside its body
# (a copy of its files, a radiograph of up to 36 MB, a page of 9 MB several times over while it is written) is taken so
# many times at most. As many forward passes run side by side; more requests at work answer no more in a second.
MAX_AT_WORK = 4


@dataclass(frozen=True, eq=False)
class Upload:
    """One file of a request.

    Attributes:
        name: cleaned, for the answer alone; never part of a path, never logged. May be empty.
        labels: the true findings, where it is a shipped sample.
    """

    name: str
    data: bytes
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Answered:
    """One file of a request with its answer, or with what is wrong with it.

    Attributes:
        file: what is logged of it.
        answer: in JSON's types; None beside an error.
        radiograph: uint8 (height, width).
        error: problem details; None beside an answer.
    """

    upload: Upload
    file: FileRecord
    answer: dict[str, object] | None = None
    radiograph: np.ndarray | None = None
    explanation: Explanation | None = None
    error: dict[str, object] | None = None


def clean_name(name: str) -> str:
    """Make a file name fit to be shown: its last part, without control, format and surrogate characters, shortened.

    Format characters can turn the text around or hide a part of it (Unicode, general categories Cc, Cf, Cs, Co, Cn).
    """
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    spaced = (" " if one.isspace() else one for one in last)
    plain = " ".join("".join(one for one in spaced if unicodedata.category(one)[0] != "C").split())
    if plain in (".", ".."):
        return ""
    if len(plain) <= MAX_NAME:
        return plain
    tail = 15  # shows the extension
    return f"{plain[: MAX_NAME - tail - 1]}…{plain[-tail:]}"


def load_samples(root: Path = ROOT) -> dict[str, Upload]:
    """Read the shipped sample radiographs that exist and are what they were: name -> Upload."""
    samples = {}
    for name, (digest, labels) in SAMPLES.items():
        path = root / "images" / name
        data = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(data).hexdigest() == digest:
            samples[name] = Upload(name, data, labels)
    return samples


if TYPE_CHECKING:
    from cxr.anatomy.outline_model import OutlineModel
    from cxr.inference.predictor import Predictor


class Service:
    """Answer requests with the models and one decoder; safe to call from many threads, and without memory of them."""

    def __init__(self, model: ModelSlot, decoder: Decoder, further: Sequence[ModelSlot] = ()) -> None:
        self.slots = (model, *further)
        self._decoder = decoder
        self._dicom_turn = threading.Lock()
        self._places = threading.BoundedSemaphore(MAX_ADMITTED)
        self._at_work = threading.BoundedSemaphore(MAX_AT_WORK)

    @property
    def model(self) -> ModelSlot:
        """The model that answers where none is named: the first that is ready, or else the first."""
        return next((slot for slot in self.slots if slot.state == "ready"), self.slots[0])

    @property
    def outline_model(self) -> "OutlineModel | None":
        """The model of lungs and heart, one for all; None where there is none."""
        return next((slot.outline_model for slot in self.slots if slot.outline_model), None)

    def named(self, name: str) -> "Predictor":
        """Return the predictor of a model by name. Raises: SiteError unknown_model or model_...."""
        for slot in self.slots:
            if slot.name == name:
                return slot.require()
        raise SiteError("unknown_model", f"Known here: {', '.join(slot.name for slot in self.slots)}.")

    def ready(self) -> dict[str, "Predictor"]:
        """Return every model that can answer now, by name."""
        return {slot.name: slot.predictor for slot in self.slots if slot.state == "ready" and slot.predictor}

    def require_ready(self) -> "Predictor":
        """Return the predictor where files could be answered now. Raises: SiteError model_... or decode_down."""
        predictor = self.model.require()
        if not self._decoder.ready():
            raise SiteError("decode_down")
        return predictor

    @contextmanager
    def admitted(self) -> Iterator["Predictor"]:
        """Let a request in, before any of its body is looked at, and wait for its turn.

        Raises: SiteError model_... or busy.
        """
        predictor = self.model.require()
        if not self._places.acquire(blocking=False):
            raise SiteError("busy")
        try:
            with self._at_work:
                yield predictor
        finally:
            self._places.release()

    def answers(self, predictor: "Predictor", uploads: Sequence[Upload], record: RequestRecord) -> Iterator[Answered]:
        """Answer each file when its turn comes; one that cannot be used gets problem details, a single one raises.

        Raises: ImageError, SiteError.
        """
        for upload in uploads:
            try:
                picture, explanation = self._explain(predictor, upload, record)
            except (ImageError, SiteError) as error:
                if len(uploads) == 1:
                    raise
                yield Answered(upload, record.files[-1], error=problem_details_of(error))
            else:
                answer = {"file": upload.name} | build_answer(predictor.info, explanation, picture)
                yield Answered(upload, record.files[-1], answer, picture.radiograph, explanation)

    def dicom_archive(self, predictor: "Predictor", upload: Upload, record: RequestRecord) -> bytes:
        """Answer one file with a ZIP archive of DICOM objects.

        Raises: ImageError, SiteError; no_identifiers where the file is no DICOM file of a patient's study.
        """
        if not can_write_dicom():
            raise SiteError("no_highdicom")
        picture, explanation = self._explain(predictor, upload, record)
        try:
            answer = Answer(read_source(upload.data), predictor.info, explanation, picture.notices)
        except SourceError as error:
            record.files[-1].code = "no_identifiers"
            raise SiteError("no_identifiers", str(error)) from None
        # One at a time: of 36 megapixels they take 0.5 GB.
        with self._dicom_turn, record.files[-1].stage("draw"):
            return to_archive(dicom_objects(answer, picture.radiograph))

    def _explain(
        self, predictor: "Predictor", upload: Upload, record: RequestRecord
    ) -> tuple[DecodedPicture, Explanation]:
        """Decode and explain one file."""
        file = FileRecord(len(upload.data))
        record.files.append(file)
        try:
            with file.stage("decode"):
                picture = self._decode(upload.data)
        except (ImageError, SiteError) as error:
            file.code = error.code
            raise
        file.type, file.dims = picture.file_type, picture.radiograph.shape[::-1]
        with file.stage("model"):
            outlines = self.outline_model
            return picture, explain(predictor, picture.radiograph, outline_model=outlines, maps_required=False)

    def _decode(self, data: bytes) -> DecodedPicture:
        try:
            return self._decoder.decode(data)
        except DecodingError as error:
            raise SiteError(error.code) from None
