"""The microsite: upload a chest X-ray, see what the model says and where it looked.

    python app.py                                       # http://127.0.0.1:5000
    python app.py --model-path other.h5 --port 8080     # another model file, another port
    python app.py --model-path a.h5 --model-path b.h5   # several models, chosen on the result page

Owns the routes and the pictures of the pages. An upload is read into memory, answered, and forgotten: nothing is
stored.
"""

import contextlib
import functools
import json
import socket
import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from flask import Flask, Response, abort, current_app, render_template, request, send_from_directory
from markupsafe import Markup
from werkzeug.exceptions import HTTPException

from cxr.inference.backend import BackendError, choose_inference_backend
from cxr.system.process import (
    end_at_once_on_signals,
    hold_standard_descriptors,
    keep_freed_memory_small,
    leave,
    remove_exports,
)
from cxr.system.terminal import fail, say

if __name__ == "__main__":
    hold_standard_descriptors()
    end_at_once_on_signals()
    try:
        choose_inference_backend()
    except BackendError as error:
        sys.exit(fail(error, 2))

from cxr.data.columns import display_name
from cxr.decoding.pool import Decoder
from cxr.heatmaps.boxes_from_heatmaps import HEAT_SHARE
from cxr.heatmaps.colormap import inferno
from cxr.heatmaps.explanation import Explanation, common_peak, rank_findings
from cxr.heatmaps.overlay import OPACITY, encode_jpeg, fit_for_display
from cxr.imaging.limits import ImageError
from cxr.metrics.number_text import exact, percent, probability_by, threshold, threshold_beside
from cxr.network.model_info import DISCLAIMER, ModelInfo
from cxr.site.answer import data_uri, describe_model, legend, model_identity
from cxr.site.arguments import parse_args
from cxr.site.errors import MAX_FILES, MAX_REQUEST_BYTES, SiteError, problem_details_of
from cxr.site.limits import (
    LOCAL_HOSTS,
    SHARED_PATH,
    explain_other_site,
    host_is_trusted,
    host_of_user,
    page_origin,
    sent_by_another_site,
    trusted_hosts,
)
from cxr.site.middleware import InMemoryRequest, Middleware, set_up_logging, static_path
from cxr.site.model_slot import ModelSlot, load_in_turn
from cxr.site.responses import error_response, http_error_response, json_response, server_error_page
from cxr.site.server import serve
from cxr.site.service import Answered, Service, Upload, clean_name, load_samples
from gradcam import ANATOMY_PATH, MODEL_PATH, overlay_heatmap

if TYPE_CHECKING:
    from cxr.inference.predictor import Predictor

DICOM_TYPE = "application/dicom"  # RFC 3240
NUM_OVERLAYS = 3  # drawn here, for pages without script
MAX_DISPLAY_SIDE = 1024  # pixels; larger pictures are shrunk for the page, never for the model
THUMBNAIL_SIDE = 160  # pixels
OPENAPI_PATH = Path(__file__).resolve().parent / "static" / "openapi.json"  # the programming interface, described


class Site(Flask):
    """The Flask application with what its routes need."""

    request_class = InMemoryRequest

    def __init__(
        self,
        model: ModelSlot,
        decoder: Decoder,
        trusted_hosts: Collection[str] | None,
        further_models: Sequence[ModelSlot] = (),
        *,
        num_proxies: int = 0,
        allowed_origins: Collection[str] = (),
    ) -> None:
        super().__init__(__name__)
        self.trusted_hosts, self.allowed_origins = trusted_hosts, allowed_origins
        self.debug = False  # FLASK_DEBUG would show tracebacks to visitors
        self.service = Service(model, decoder, further_models)
        self.samples, self.legend = load_samples(), legend()
        self.openapi = json.loads(OPENAPI_PATH.read_text(encoding="utf-8"))
        self.wsgi_app = Middleware(self.wsgi_app, num_proxies=num_proxies, allowed_origins=allowed_origins)

    def send_static_file(self, filename: str) -> Response:
        """Serve without an entity tag: Werkzeug makes it of the path, in UTF-8, which not every folder has."""
        return send_from_directory(
            self.static_folder, filename, etag=False, max_age=self.get_send_file_max_age(filename)
        )

    def log_exception(self, exc_info: tuple) -> None:
        self.logger.error("Request %s failed", request.record.request_id, exc_info=exc_info)


site: Site = current_app  # type: ignore[assignment]  # of the request that is being answered


def create_app(
    model: ModelSlot | None = None,
    decoder: Decoder | None = None,
    *,
    trusted_hosts: Collection[str] | None = LOCAL_HOSTS,
    further_models: Sequence[ModelSlot] = (),
    num_proxies: int = 0,
    allowed_origins: Collection[str] = (),
) -> Site:
    """Build the site.

    Args:
        model: by default the shipped model file, loaded from the first request on: a WSGI server may fork until then.
        decoder: by default two child processes, started when they are needed.
        trusted_hosts: hosts that requests may be addressed to, without ports; None for any.
        further_models: those that answer beside the first one.
        num_proxies: how many proxies stand before the site, whose forwarded headers are then heeded.
        allowed_origins: such as https://app.example.org, whose pages may use the interface for programs.
    """
    decoder, lazily = decoder or Decoder(start=False), model is None
    model = model or ModelSlot(MODEL_PATH, anatomy=ANATOMY_PATH)
    hosts = None if trusted_hosts is None else frozenset(map(host_of_user, trusted_hosts))
    origins = frozenset(map(page_origin, allowed_origins))
    app = Site(model, decoder, hosts, further_models, num_proxies=num_proxies, allowed_origins=origins)
    app.config.update(MAX_CONTENT_LENGTH=MAX_REQUEST_BYTES)
    app.jinja_env.globals.update(
        disclaimer=DISCLAIMER,
        max_upload_mib=MAX_REQUEST_BYTES // 1024**2,
        max_files=MAX_FILES,
        colours=inferno().tolist(),
        opacity=OPACITY,
        heat_share=HEAT_SHARE,
        samples=app.samples,
        static_url=lambda name: request.script_root + static_path(app.static_folder, name),
    )
    app.jinja_env.filters |= {"spoken": display_name, "exact": exact, "written": probability_by, "percent": percent}
    app.jinja_env.filters |= {"threshold": threshold, "beside": threshold_beside}
    app.context_processor(_model_context)
    for rule, view, methods in ROUTES:
        app.add_url_rule(rule, view.__name__, view, methods=methods)
    if lazily:
        app.before_request(model.load_once_in_background)
    app.before_request(_look_at_request)
    app.register_error_handler(SiteError, lambda error: error_response(problem_details_of(error)))
    app.register_error_handler(ImageError, lambda error: error_response(problem_details_of(error)))
    app.register_error_handler(HTTPException, http_error_response)
    return app


# Pages


def index() -> str:
    return render_template("index.html", error=None)


def predict() -> bytes:
    """Answer for the files of the form, each with its own result or its own error, by every model or the one named."""
    with site.service.admitted() as predictor:
        uploads, asked = _uploads(), _asked_model()
        models = {asked: site.service.named(asked)} if asked else site.service.ready()
        overlays = request.form.get("script") != "1"  # else the page draws them from the grids
        if len(models) > 1:
            return _page_of_several(uploads, models, overlays=overlays)
        predictor = next(iter(models.values()), predictor)
        results = _results(predictor, uploads, overlays=overlays, thumbnails=len(uploads) > 1)
        return _result_page(results, [predictor.info])


def _page_of_several(uploads: Sequence[Upload], models: Mapping[str, "Predictor"], *, overlays: bool) -> bytes:
    """Answer by each model in turn; every answer is written with the thresholds and the card of its own model."""
    results = []
    for name, predictor in models.items():
        for result in _results(predictor, uploads, overlays=overlays, thumbnails=True):
            result |= {"model": name, "number": len(results) + 1, "name": f"{result['name'] or 'Radiograph'} · {name}"}
            text = render_template("one_result.html", result=result, many=True, info=predictor.info)
            result["html"] = Markup(text)  # noqa: S704 - a template's, which has escaped what it shows
            results.append(result)
    return _result_page(results, [predictor.info for predictor in models.values()])


def _results(
    predictor: "Predictor", uploads: Sequence[Upload], *, overlays: bool, thumbnails: bool
) -> list[dict[str, object]]:
    """Answer each file with what result.html shows of it."""
    results = []
    for number, one in enumerate(site.service.answers(predictor, uploads, request.record), 1):
        result = {"number": number, "name": one.upload.name, "labels": one.upload.labels}
        result |= {"answer": one.answer, "error": one.error}
        with one.file.stage("draw") if one.answer else contextlib.nullcontext():
            results.append(result | _pictures(one, predictor.info, overlays=overlays, thumbnail=thumbnails))
    return results


def _pictures(one: Answered, info: ModelInfo, *, overlays: bool, thumbnail: bool) -> dict[str, object]:
    """Draw what the page shows of one file, as data URIs."""
    if one.radiograph is None:
        return {"radiograph": None, "thumbnail": None, "overlays": []}
    shown = fit_for_display(one.radiograph, MAX_DISPLAY_SIDE)
    return {
        "radiograph": data_uri(encode_jpeg(shown), "jpeg"),
        "size": list(shown.shape),
        "thumbnail": data_uri(encode_jpeg(fit_for_display(shown, THUMBNAIL_SIDE)), "jpeg") if thumbnail else None,
        "overlays": _overlays(shown, one.explanation, info) if overlays else [],
    }


def _overlays(radiograph: np.ndarray, explanation: Explanation, info: ModelInfo) -> list[dict[str, object]]:
    """Draw the heatmaps of the most probable findings over the radiograph, for a page without script."""
    if explanation.heatmaps is None:
        return []
    peak = common_peak(explanation.heatmaps)
    return [
        {
            "finding": info.findings[k],
            "picture": data_uri(encode_jpeg(overlay_heatmap(radiograph, explanation.heatmaps[k], peak=peak)), "jpeg"),
            "empty": not explanation.heatmaps[k].any(),
        }
        for k in rank_findings(explanation.probabilities)[:NUM_OVERLAYS]
    ]


def _result_page(results: Sequence[dict[str, object]], infos: Sequence[ModelInfo]) -> bytes:
    models = infos if len(infos) > 1 else []
    page = render_template("result.html", results=results, legend=site.legend, info=infos[0], models=models)
    for result in results:  # a template's context and macros hold each other until a garbage collection
        result.clear()  # so that the pictures do not stay with them
    return page.encode()  # half of the text's size, and the text goes before the next request's turn


def dicom_results() -> Response:
    """Answer for one DICOM file with DICOM objects for its study, as a ZIP archive."""
    with site.service.admitted() as predictor:
        upload, asked = _dicom_upload(), _asked_model()
        predictor = site.service.named(asked) if asked else predictor
        archive = site.service.dicom_archive(predictor, upload, request.record)
    headers = {"Content-Disposition": 'attachment; filename="dicom-results.zip"'}
    return Response(archive, mimetype="application/zip", headers=headers)


def model_card() -> str:
    asked = request.args.get("model")
    slot = site.service.model
    predictor = site.service.named(asked) if asked else slot.predictor
    if predictor is None:
        return render_template("model.html", card=None, names=[])
    names = [slot.name for slot in site.service.slots] if len(site.service.slots) > 1 else []
    card = describe_model(predictor.info, predictor.engine)
    return render_template("model.html", card=card, info=predictor.info, names=names, chosen=asked or slot.name)


def sample(name: str) -> Response:
    if name not in site.samples:
        abort(404)
    return Response(site.samples[name].data, mimetype="image/png")


def api_page() -> str:
    return render_template("api.html", document=site.openapi)


# For programs


def api_predict() -> Response:
    with site.service.admitted() as predictor:
        uploads, asked = _uploads(), _asked_model()
        predictor = site.service.named(asked) if asked else predictor
        results = [
            one.answer or {"file": one.upload.name} | one.error
            for one in site.service.answers(predictor, uploads, request.record)
        ]
        return json_response({"results": results, "model": model_identity(predictor.info, predictor.engine)})


def api_model() -> Response:
    asked = request.args.get("model")
    predictor = site.service.named(asked) if asked else site.service.model.require()
    return json_response(describe_model(predictor.info, predictor.engine))


def api_document() -> Response:
    return json_response(site.openapi)


def healthz() -> Response:
    return json_response({"status": "ok"})


def readyz() -> Response:
    predictor = site.service.require_ready()
    return json_response({"status": "ready", "model": predictor.info.digest[:12], "engine": predictor.engine})


ROUTES = (
    ("/", index, ["GET"]),
    ("/predict", index, ["GET"]),  # a result that is reloaded from the address bar
    ("/predict", predict, ["POST"]),
    ("/dicom", dicom_results, ["POST"]),
    ("/model", model_card, ["GET"]),
    ("/samples/<name>", sample, ["GET"]),
    ("/api", api_page, ["GET"]),
    ("/api/predict", api_predict, ["POST"]),
    ("/api/dicom", dicom_results, ["POST"]),
    ("/api/model", api_model, ["GET"]),
    ("/api/openapi.json", api_document, ["GET"]),
    ("/healthz", healthz, ["GET"]),
    ("/readyz", readyz, ["GET"]),
)


# Parts of the routes


def _uploads() -> list[Upload]:
    """Return the files of the request, or the sample that it names. Raises: SiteError."""
    files = [file for file in request.files.getlist("file") if file.filename]
    if len(files) > MAX_FILES:
        raise SiteError("too_many_files")
    if files:
        uploads = [Upload(clean_name(file.filename), file.read()) for file in files]
        for file in files:
            file.close()  # a rendered page holds its request until a garbage collection
        return uploads
    if "sample" not in request.form:
        raise SiteError("no_file")
    if request.form["sample"] not in site.samples:
        raise SiteError("unknown_sample")
    return [site.samples[request.form["sample"]]]


def _dicom_upload() -> Upload:
    """Return the one file of the request: of the form, or the body itself. Raises: SiteError."""
    if request.mimetype == DICOM_TYPE:
        return Upload("", request.get_data(cache=False))
    uploads = _uploads()
    if len(uploads) > 1:
        raise SiteError("one_file")
    return uploads[0]


def _asked_model() -> str:
    """Return the name of the model that is to answer; empty where none is named."""
    return request.form.get("model") or request.args.get("model") or ""


def _model_context() -> dict[str, object]:
    """Return what every page says of the model that answers where none is named."""
    slot = site.service.model
    return {"model_state": slot.state, "info": slot.predictor.info if slot.predictor else None}


def _look_at_request() -> None:
    """Note the route for the log, and refuse what was meant for another site or sent by one."""
    request.record.route = request.url_rule.rule if request.url_rule else None
    host, origin = request.headers.get("Host"), request.headers.get("Origin")
    if not host_is_trusted(host, site.trusted_hosts):
        raise SiteError("wrong_host")
    if request.path.startswith(SHARED_PATH) and origin in site.allowed_origins:
        return
    if request.method == "POST" and sent_by_another_site(request.headers.get("Sec-Fetch-Site"), origin, host):
        raise SiteError("other_site", explain_other_site(origin, host))


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv, anatomy=ANATOMY_PATH)
    keep_freed_memory_small()
    set_up_logging()
    try:
        family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
        listener = socket.create_server((args.host, args.port), family=family)
    except (OSError, OverflowError, UnicodeError) as error:  # the last of names such as a..b
        print(f"Cannot listen on {args.host}:{args.port}: {error}. Choose another --host or --port.", file=sys.stderr)
        return 3
    trusted = trusted_hosts(args.host, listener.getsockname()[0], args.trusted_host)
    decoder = Decoder()  # first: small processes, started while this one is small
    first, *others = args.model_path or [MODEL_PATH]
    slots = [ModelSlot(first, precision=args.precision, anatomy=args.anatomy)]
    slots += [ModelSlot(path, precision=args.precision) for path in others]
    app = create_app(
        slots[0],
        decoder,
        trusted_hosts=trusted,
        further_models=slots[1:],
        num_proxies=args.behind_proxy,
        allowed_origins=args.allow_origin,
    )
    address = f"[{args.host}]" if family == socket.AF_INET6 else args.host

    def started() -> None:
        # In a thread: a terminal that was stopped (Ctrl-S) would keep the site from starting.
        line = f"Listening on http://{address}:{listener.getsockname()[1]}"
        threading.Thread(target=say, args=(line,), name="terminal", daemon=True).start()
        load_in_turn(slots)

    error_page = functools.partial(server_error_page, app, prefix=args.url_prefix)
    behind = {"url_prefix": args.url_prefix, "forwarded_headers": args.behind_proxy > 0}
    serve(app, listener, error_page, started=started, **behind)
    decoder.close()
    return 0


if __name__ == "__main__":
    leave(main(), remove_exports)  # the model may still be loading
