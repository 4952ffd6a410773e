"""The microsite: upload a chest X-ray, see what the model says and where it looked.

    python app.py                                       # http://127.0.0.1:5000
    python app.py --model-path other.h5 --port 8080     # another model file, another port

Owns routes, upload checks and headers. An upload is read into memory, answered, and forgotten: nothing is stored.
"""

import argparse
import base64
import importlib.util
import io
import logging
import os
import socket
import sys
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path

import numpy as np
import waitress
from flask import Flask, Request, Response, abort, render_template, request
from werkzeug.exceptions import HTTPException

if __name__ == "__main__":  # before Keras is imported; a user's own setting wins
    os.environ.setdefault("KERAS_BACKEND", "openvino" if importlib.util.find_spec("openvino") else "tensorflow")

from cxr.images import ImageError, decode_with_notices
from cxr.modelinfo import DISCLAIMER, ModelFileError, ModelInfo
from cxr.overlay import draw_legend, encode_jpeg, encode_png, fit_for_display, overlay_heatmap
from cxr.predictor import Predictor
from gradcam import MODEL_PATH, UNUSUAL_TEXT, Explanation, describe_heatmap, explain, rank_findings

MAX_UPLOAD_BYTES = 32 * 1024 * 1024  # a 16-bit DICOM of 16 megapixels
MAX_FORM_PARTS = 16
NUM_OVERLAYS = 3
LOCAL_HOSTS = ["127.0.0.1", "localhost", "[::1]"]
MAX_DISPLAY_SIDE = 1024  # pixels; larger pictures are shrunk for the page, never for the model

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}

# Status -> heading and what to do; where a view gives a better sentence, that one is shown.
ERROR_TEXTS = {
    400: ("The request cannot be used", "Go back, choose one PNG, JPEG or DICOM file and send it again."),
    403: ("Sent from another site", "Open this site itself and choose the picture there."),
    404: ("No such page", "The site has one page, which takes a radiograph."),
    405: ("Nothing to show here", "Results are not stored. Send the radiograph again from the start page."),
    413: ("The file is too large", f"Files of up to {MAX_UPLOAD_BYTES // 1024**2} MiB are read. Save it smaller."),
    415: ("Not a file that can be read", "Save the radiograph as PNG, JPEG or DICOM."),
    422: ("The picture cannot be used", "Choose the original radiograph."),
    500: ("Something went wrong here", "The fault is the site's, not your file's. It has been logged."),
    503: ("No model is loaded", "The site cannot answer before it has a trained model."),
}


class InMemoryRequest(Request):
    """A request whose uploads never touch the disk; the default spools what is over 500 kB."""

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> io.BytesIO:
        return io.BytesIO()


def create_app(
    model_path: str | os.PathLike = MODEL_PATH, *, precision: str = "f32", trusted_hosts: Sequence[str] | None = None
) -> Flask:
    """Load the model and build the site; without a usable model it starts all the same and says what is missing.

    Args:
        precision: of OpenVINO, "f32" or "bf16".
        trusted_hosts: host names that requests may be addressed to; None for any.
    """
    app = Flask(__name__)
    app.request_class = InMemoryRequest
    app.config.update(
        MAX_CONTENT_LENGTH=MAX_UPLOAD_BYTES, MAX_FORM_PARTS=MAX_FORM_PARTS, TRUSTED_HOSTS=trusted_hosts or None
    )
    app.jinja_env.globals.update(disclaimer=DISCLAIMER, max_upload_mib=MAX_UPLOAD_BYTES // 1024**2)
    app.jinja_env.filters["spoken"] = lambda finding: finding.replace("_", " ")
    predictor = _load_predictor(app, model_path, precision)
    app.jinja_env.globals.update(info=predictor.info if predictor else None, model_exists=Path(model_path).exists())

    @app.get("/")
    def index() -> str:
        return render_template("index.html")

    @app.post("/predict")
    def predict() -> str:
        """Answer for the field `file`: 400 without it, 415 and 422 for what is no usable radiograph, 503 no model."""
        if predictor is None:
            abort(503)
        uploads = [upload for upload in request.files.getlist("file") if upload.filename]
        if len(uploads) != 1:
            abort(400)
        radiograph, notices, _ = decode_with_notices(uploads[0].read())
        answer = explain(predictor, radiograph)
        return render_template("result.html", **_result(radiograph, answer, list(notices), predictor.info))

    app.before_request(_refuse_other_sites)
    app.after_request(_add_headers)
    app.register_error_handler(ImageError, _image_error_page)
    app.register_error_handler(HTTPException, _error_page)
    return app


def _load_predictor(app: Flask, model_path: str | os.PathLike, precision: str) -> Predictor | None:
    try:
        return Predictor(model_path, precision=precision)
    except ModelFileError as error:
        app.logger.error("No model: %s", error)
        return None


def _result(radiograph: np.ndarray, answer: Explanation, notices: list[str], info: ModelInfo) -> dict[str, object]:
    """Collect what result.html shows."""
    if answer.unusual:
        notices.insert(0, UNUSUAL_TEXT)
    ranking = rank_findings(answer.probabilities)
    shown = fit_for_display(radiograph, MAX_DISPLAY_SIDE)
    return {
        "notices": notices,
        "size": shown.shape,
        "radiograph": _data_uri(encode_jpeg(shown), "jpeg"),
        "legend": _data_uri(encode_png(draw_legend(12, 192)), "png"),
        "findings": [
            {
                "name": info.findings[k],
                "probability": float(answer.probabilities[k]),
                "text": _probability_text(float(answer.probabilities[k]), info.threshold),
                "threshold": info.threshold,
                "above": bool(answer.probabilities[k] >= info.threshold),
            }
            for k in ranking
        ],
        "overlays": [
            {
                "finding": info.findings[k],
                "picture": _data_uri(encode_jpeg(overlay_heatmap(shown, answer.heatmaps[k])), "jpeg"),
                "empty": not answer.heatmaps[k].any(),
                "scale": describe_heatmap(answer.heatmaps[k], float(answer.logits[k])),
            }
            for k in ranking[:NUM_OVERLAYS]
        ],
    }


def _probability_text(probability: float, threshold: float) -> str:
    """Write two digits, or three where two would not show on which side of the threshold it lies."""
    return f"{probability:.3f}" if abs(probability - threshold) < 0.005 else f"{probability:.2f}"


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _refuse_other_sites() -> None:
    """Refuse forms that another site's page sends to this one (Fetch Metadata, W3C)."""
    if request.method == "POST" and request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        abort(403)


def _add_headers(response: Response) -> Response:
    response.headers.update(HEADERS)
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    return response


def _image_error_page(error: ImageError) -> tuple[str, int]:
    return _render_error(error.status, str(error)), error.status


def _error_page(error: HTTPException) -> Response:
    response = error.get_response()  # keeps Allow and the like
    status = response.status_code
    response.set_data(_render_error(status, ""))
    response.content_type = "text/html; charset=utf-8"
    return response


def _render_error(status: int, message: str) -> str:
    heading, advice = ERROR_TEXTS.get(status, (HTTPStatus(status).phrase, "Go back to the start page and try again."))
    return render_template("error.html", status=status, heading=heading, message=message or advice)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Serve the microsite. A prototype for education, not for clinical use."
    )
    parser.add_argument(
        "--model-path",
        type=Path,
        default=MODEL_PATH,
        metavar="FILE",
        help="(default: model/chest_xray_densenet_model.h5)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: %(default)s, which only this machine can reach)",
    )
    parser.add_argument("--port", type=int, default=5000, help="(default: %(default)s)")
    parser.add_argument(
        "--precision", choices=("f32", "bf16"), default="f32", help="of OpenVINO (default: %(default)s)"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:  # before the model is loaded, which takes seconds; early visitors wait in the socket's queue
        family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
        listener = socket.create_server((args.host, args.port), family=family)
    except (OSError, OverflowError) as error:
        print(f"Cannot listen on {args.host}:{args.port}: {error}. Choose another --host or --port.", file=sys.stderr)
        return 3
    trusted_hosts = LOCAL_HOSTS if args.host in LOCAL_HOSTS or args.host == "::1" else None
    app = create_app(args.model_path, precision=args.precision, trusted_hosts=trusted_hosts)
    server = waitress.create_server(
        app,
        sockets=[listener],
        threads=8,
        ident=None,  # no version banner
        max_request_body_size=MAX_UPLOAD_BYTES + 2**20,  # a little more, so that the app itself says 413
        inbuf_overflow=MAX_UPLOAD_BYTES + 2**21,  # uploads stay in memory; larger ones would be spooled to disk
        connection_limit=40,  # times the limit above: at most 1.3 GB
    )
    print(f"Listening on http://{args.host}:{listener.getsockname()[1]}", flush=True)
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
