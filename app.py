"""The microsite: upload a chest X-ray, see what the model says and where it looked.

    python app.py                                       # http://127.0.0.1:5000
    python app.py --model-path other.h5 --port 8080     # another model file, another port
    python app.py --model-path a.h5 --model-path b.h5   # several models, chosen on the result page

Owns the routes. An upload is read into memory, answered, and forgotten: nothing is stored.
"""

import argparse
import functools
import json
import socket
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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
from cxr.heatmaps.overlay import OPACITY
from cxr.imaging.limits import ImageError
from cxr.inference.sentences import exact, percent, probability_by, threshold, threshold_beside
from cxr.network.model_info import DISCLAIMER, ModelInfo
from cxr.site.answer import describe_model, legend, model_identity
from cxr.site.errors import (
    ERRORS,
    MAX_FILES,
    MAX_REQUEST_BYTES,
    SiteError,
    code_of_status,
    problem_details,
    problem_details_of,
)
from cxr.site.limits import (
    LOCAL_HOSTS,
    SHARED_PATH,
    explain_other_site,
    host_is_trusted,
    host_of_user,
    page_origin,
    sent_by_another_site,
    trusted_hosts,
    url_prefix,
    wants_json,
)
from cxr.site.middleware import HEADERS, InMemoryRequest, Middleware, RequestRecord, set_up_logging, static_path
from cxr.site.model_slot import ModelSlot, load_in_turn
from cxr.site.server import serve
from cxr.site.service import Service, Upload, clean_name, load_samples
from gradcam import ANATOMY_PATH, MODEL_PATH

if TYPE_CHECKING:
    from cxr.inference.predictor import Predictor

DICOM_TYPE = "application/dicom"  # RFC 3240
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
        self.logger.error("Request %s failed", request.environ["cxr.record"].request_id, exc_info=exc_info)


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
    app.register_error_handler(SiteError, lambda error: _error_response(problem_details_of(error)))
    app.register_error_handler(ImageError, lambda error: _error_response(problem_details_of(error)))
    app.register_error_handler(HTTPException, _http_error)
    return app


# Pages


def index() -> str:
    return render_template("index.html", samples=_samples(), error=None)


def predict() -> str:
    """Answer for the files of the form, each with its own result or its own error, by every model or the one named."""
    with site.service.admitted() as predictor:
        uploads, asked = _uploads(), _asked_model()
        models = {asked: site.service.named(asked)} if asked else site.service.ready()
        overlays = request.form.get("script") != "1"  # else the page draws them from the grids
        if len(models) > 1:
            return _page_of_several(uploads, models, overlays=overlays)
        predictor = next(iter(models.values()), predictor)
        results = site.service.results_for_page(predictor, uploads, _record(), overlays=overlays)
    return _result_page(results, [predictor.info])


def _page_of_several(uploads: Sequence[Upload], models: Mapping[str, "Predictor"], *, overlays: bool) -> str:
    """Answer by each model in turn; every answer is written with the thresholds and the card of its own model."""
    results = []
    for name, predictor in models.items():
        for result in site.service.results_for_page(predictor, uploads, _record(), overlays=overlays, alone=False):
            result |= {"model": name, "number": len(results) + 1, "name": f"{result['name'] or 'Radiograph'} · {name}"}
            text = render_template("one_result.html", result=result, many=True, info=predictor.info)
            result["html"] = Markup(text)  # noqa: S704 - a template's, which has escaped what it shows
            results.append(result)
    return _result_page(results, [predictor.info for predictor in models.values()])


def _result_page(results: Sequence[dict[str, object]], infos: Sequence[ModelInfo]) -> str:
    models = infos if len(infos) > 1 else []
    page = render_template("result.html", results=results, legend=site.legend, info=infos[0], models=models)
    for result in results:  # a template's context and macros hold each other until a garbage collection
        result.clear()  # so that the pictures do not stay with them
    return page


def dicom_results() -> Response:
    """Answer for one DICOM file with DICOM objects for its study, as a ZIP archive."""
    with site.service.admitted() as predictor:
        upload, asked = _dicom_upload(), _asked_model()
        predictor = site.service.named(asked) if asked else predictor
        archive = site.service.dicom_archive(predictor, upload, _record())
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
        results = site.service.results_for_programs(predictor, uploads, _record())
    return _json({"results": results, "model": model_identity(predictor.info, predictor.engine)})


def api_model() -> Response:
    asked = request.args.get("model")
    predictor = site.service.named(asked) if asked else site.service.model.require()
    return _json(describe_model(predictor.info, predictor.engine))


def api_document() -> Response:
    return _json(site.openapi)


def healthz() -> Response:
    return _json({"status": "ok"})


def readyz() -> Response:
    predictor = site.service.require_ready()
    return _json({"status": "ready", "model": predictor.info.digest[:12], "engine": predictor.engine})


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


def _samples() -> list[dict[str, object]]:
    return [
        {"name": name, "src": f"{request.script_root}/samples/{name}", "labels": list(upload.labels)}
        for name, upload in site.samples.items()
    ]


def _record() -> RequestRecord:
    return request.environ["cxr.record"]


def _look_at_request() -> None:
    """Note the route for the log, and refuse what was meant for another site or sent by one."""
    _record().route = request.url_rule.rule if request.url_rule else None
    host, origin = request.headers.get("Host"), request.headers.get("Origin")
    if not host_is_trusted(host, site.trusted_hosts):
        raise SiteError("wrong_host")
    if request.path.startswith(SHARED_PATH) and origin in site.allowed_origins:
        return
    if request.method == "POST" and sent_by_another_site(request.headers.get("Sec-Fetch-Site"), origin, host):
        raise SiteError("other_site", explain_other_site(origin, host))


def _json(document: dict[str, object], status: int = 200, mimetype: str = "application/json") -> Response:
    return Response(json.dumps(document, allow_nan=False), status, mimetype=mimetype)


def _http_error(error: HTTPException) -> Response:
    code = code_of_status(error.code or 500)
    if code == "internal":
        document = problem_details(code, f"{ERRORS[code].detail} Its number in the log: {_record().request_id}.")
    else:
        document = problem_details(code)
    response = _error_response(document | {"status": error.code or 500})
    response.headers.update({name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")})
    return response


def _error_response(document: dict[str, object]) -> Response:
    """Write an error as a page or as problem details (RFC 9457)."""
    record = _record()
    record.code, status = document["code"], document["status"]
    accepted = request.accept_mimetypes
    if wants_json(request.path, accepted["application/json"], accepted["text/html"]):
        response = _json(document | {"request_id": record.request_id}, status, "application/problem+json")
    elif status == 400 and request.endpoint == "predict":
        response = Response(render_template("index.html", samples=_samples(), error=document), status)
    else:
        texts = {name: document[name] for name in ("status", "title", "detail")}
        response = Response(render_template("error.html", **texts), status)
    if ERRORS[document["code"]].retry_after:
        response.headers["Retry-After"] = str(ERRORS[document["code"]].retry_after)
    return response


def server_error_page(app: Site, status: int, prefix: str = "") -> tuple[list[tuple[str, str]], bytes]:
    """Return headers and page for what the server refuses before the site sees it."""
    record = RequestRecord()
    own = {"Cache-Control": "no-store", "X-Request-Id": record.request_id}
    with app.test_request_context(base_url=f"http://localhost{prefix}", environ_overrides={"cxr.record": record}):
        response = _error_response(problem_details(code_of_status(status)) | {"status": status})
        record.write(method="", status=status, num_bytes=0)
        return [*response.headers, *HEADERS.items(), *own.items()], response.data


def _argument(parse: Callable[[str], str | int]) -> Callable[[str], str | int]:
    """Let the command line repeat the words of a ValueError."""

    def parse_argument(text: str) -> str | int:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_argument


def _num_proxies(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 10:
        raise ValueError(f"Expected how many proxies stand before the site, 1 to 9, received {text!r}.")
    return int(text)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Serve the microsite. A prototype for education, not for clinical use."
    )
    parser.add_argument(
        "--model-path",
        type=Path,
        action="append",
        metavar="FILE",
        help="(default: model/chest_xray_densenet_model.h5); may be repeated: each picture is then answered by every "
        "model, and each further one takes about 290 MB of memory",
    )
    parser.add_argument(
        "--anatomy",
        type=_anatomy,
        default=ANATOMY_PATH,
        metavar="FILE",
        help="model that outlines lungs and heart, or none (default: model/anatomy.h5; without that file the site does "
        "without outlines)",
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
    parser.add_argument(
        "--trusted-host",
        action="append",
        metavar="NAME",
        default=[],
        type=_argument(host_of_user),
        help="name under which visitors may address the site, beside this machine's own; may be repeated (default: "
        "none with a local --host, else any)",
    )
    parser.add_argument(
        "--url-prefix",
        default="",
        type=_argument(url_prefix),
        metavar="PATH",
        help="path below which a proxy shows the site, such as /cxr (default: none)",
    )
    parser.add_argument(
        "--behind-proxy",
        nargs="?",
        type=_argument(_num_proxies),
        default=0,
        const=1,
        metavar="N",
        help="heed the headers X-Forwarded-For, -Proto, -Host and -Prefix, to which each of N proxies adds one value "
        "(N: 1 unless given; default: these headers are ignored)",
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        metavar="URL",
        default=[],
        type=_argument(page_origin),
        help="origin such as https://app.example.org whose pages may use the interface for programs; may be repeated "
        "(default: none)",
    )
    args = parser.parse_args(argv)
    names = [path.stem for path in args.model_path or ()]
    if len(set(names)) < len(names):
        parser.error("argument --model-path: expected files of different names, by which a model is chosen")
    return args


def _anatomy(text: str) -> Path | None:
    """Read --anatomy."""
    return None if text == "none" else Path(text)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
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
