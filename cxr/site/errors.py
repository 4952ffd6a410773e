"""The one table of what can go wrong with a request: code -> HTTP status, title and what to do.

Pages, JSON problem details (RFC 9457) and tests read it; the codes are stable, the words may change.
"""

from dataclasses import dataclass

from cxr.imaging.limits import ERROR_STATUS, MIN_SIDE, ImageError

MAX_REQUEST_BYTES = 32 * 1024 * 1024  # a 16-bit DICOM of 16 megapixels
MAX_FILES = 8  # of one request
MAX_REQUEST_MIB = MAX_REQUEST_BYTES // 1024**2


@dataclass(frozen=True)
class ErrorKind:
    """One line of the table.

    Attributes: retry_after, seconds after which the same request may succeed; None where it will not.
    """

    status: int
    title: str
    detail: str
    retry_after: int | None = None


ERRORS = {
    "bad_request": ErrorKind(400, "The request cannot be used", "Open the start page and send the form again."),
    "wrong_host": ErrorKind(
        400,
        "The site does not go by this name",
        "Open it under the address that it printed at its start, or start it with this name as --trusted-host.",
    ),
    "no_file": ErrorKind(
        400,
        "No file was sent",
        "Choose one or several PNG, JPEG or DICOM files; the form field is called `file`. An upload that was cut short "
        "arrives without a file, too.",
    ),
    "one_file": ErrorKind(400, "One file at a time", "DICOM results are made for one DICOM file. Send it alone."),
    "too_many_files": ErrorKind(400, "Too many files at once", f"At most {MAX_FILES} files are read. Send fewer."),
    "unknown_sample": ErrorKind(400, "No such sample", "Choose one of the samples on the start page."),
    "unknown_model": ErrorKind(400, "No such model", "Name one of the models that the site was started with."),
    "other_site": ErrorKind(403, "Sent from another site", "Open this site itself and choose the picture there."),
    "not_found": ErrorKind(404, "No such page", "The start page leads to everything that there is."),
    "method": ErrorKind(405, "Nothing to show here", "Results are not stored. Send the radiograph again."),
    "too_slow": ErrorKind(
        408,
        "The request came in too slowly",
        "At least 32 KiB a second are expected. Send fewer or smaller files, or use a better connection.",
    ),
    "request_too_large": ErrorKind(
        413,
        "The request is too large",
        f"Up to {MAX_REQUEST_MIB} MiB and {MAX_FILES} files are read at once. Send fewer files, or save them smaller.",
    ),
    "headers_too_large": ErrorKind(431, "The headers are too large", "Open the start page and try again."),
    "internal": ErrorKind(
        500, "Something went wrong here", "The fault is the site's, not your file's. It has been logged."
    ),
    "busy": ErrorKind(503, "The site is busy", "Other pictures are being worked on. Send yours again in a moment.", 2),
    "model_loading": ErrorKind(
        503, "The model is being loaded", "That takes a few seconds after the start. Send the picture again then.", 5
    ),
    "model_missing": ErrorKind(
        503,
        "No model is loaded",
        "There is no model file yet. Train one with `python main_train.py`, then start the site again.",
        60,
    ),
    "model_refused": ErrorKind(
        503,
        "No model is loaded",
        "The model file was found but refused; the server's log says why. Restore the file, or train a new one with "
        "`python main_train.py`, then start the site again.",
        60,
    ),
    "model_no_backend": ErrorKind(
        503,
        "No model is loaded",
        "What the model needs to compute with is not installed, or KERAS_BACKEND names something else; the log of the "
        "server says more. The model file is not at fault. Install openvino, and start the site again.",
        60,
    ),
    "model_no_memory": ErrorKind(
        503,
        "No model is loaded",
        "There was not enough memory to load the model; its file is not at fault. Make room, and start the site again.",
        60,
    ),
    "no_highdicom": ErrorKind(
        503,
        "No DICOM results here",
        "The site's computer lacks the package `highdicom`. Install it (pip install highdicom), and start the site "
        "again.",
        60,
    ),
    "decode_down": ErrorKind(
        503, "Pictures cannot be read", "The program that reads them does not start; the server's log says why.", 5
    ),
    "decode_busy": ErrorKind(503, "The site is busy", "Too many pictures are being read. Send yours again later.", 2),
    "decode_time": ErrorKind(
        503, "Reading the file took too long", "Send it again, or save it anew as a plain PNG or JPEG.", 2
    ),
    "no_identifiers": ErrorKind(
        422,
        "No DICOM results for this file",
        "They join the study of a DICOM file, whose identifiers this file does not have. Send the archive's original.",
    ),
    "decode_crash": ErrorKind(
        422, "The picture cannot be used", "The file broke the program that reads it. Save it anew as a PNG or JPEG."
    ),
    "decode_memory": ErrorKind(
        422, "The picture cannot be used", "The file needs too much memory to read. Save it smaller or as a plain PNG."
    ),
}
_OF_STATUS = {  # the code of a status that no code of the site's own stands behind
    400: "bad_request",
    403: "other_site",
    404: "not_found",
    405: "method",
    408: "too_slow",
    413: "request_too_large",
    431: "headers_too_large",
    503: "busy",
}
_IMAGE_TITLES = {415: "Not a file that can be read", 422: "The picture cannot be used"}
_IMAGE_DETAIL = f"Choose the original radiograph as PNG, JPEG or DICOM, at least {MIN_SIDE} pixels on each side."
ERRORS |= {code: ErrorKind(status, _IMAGE_TITLES[status], _IMAGE_DETAIL) for code, status in ERROR_STATUS.items()}


class SiteError(Exception):
    """A request, or one file of it, that cannot be answered.

    Attributes:
        code: a key of ERRORS.
        detail: what is known about this very case, for whoever sent it; may be empty.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(ERRORS[code].title)
        self.code, self.detail = code, detail


def code_of_status(status: int) -> str:
    """Return the code for an HTTP status that the framework or the server gave."""
    return _OF_STATUS.get(status, "internal" if status >= 500 else "bad_request")


def problem_details(code: str, detail: str = "", request_id: str = "") -> dict[str, object]:
    """Describe an error as problem details (RFC 9457).

    Args:
        detail: what is known about this very case; the table's sentence by default.
    """
    kind = ERRORS[code]
    document = {
        "type": f"/api#{code}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail or kind.detail,
        "code": code,
    }
    return document | ({"request_id": request_id} if request_id else {})


def problem_details_of(error: SiteError | ImageError, request_id: str = "") -> dict[str, object]:
    """Describe an error of a file or a request; an ImageError says itself what is wrong with the file."""
    return problem_details(error.code, str(error) if isinstance(error, ImageError) else error.detail, request_id)
