"""How answers and errors are written: as JSON, as a page, or as problem details (RFC 9457)."""

import json

from flask import Flask, Response, render_template, request
from werkzeug.exceptions import HTTPException

from cxr.site.errors import ERRORS, code_of_status, problem_details
from cxr.site.limits import wants_json
from cxr.site.middleware import HEADERS, RequestRecord


def json_response(document: dict[str, object], status: int = 200, mimetype: str = "application/json") -> Response:
    return Response(json.dumps(document, allow_nan=False), status, mimetype=mimetype)


def http_error_response(error: HTTPException) -> Response:
    """Write an error that the framework found."""
    code = code_of_status(error.code or 500)
    if code == "internal":
        document = problem_details(code, f"{ERRORS[code].detail} Its number in the log: {request.record.request_id}.")
    else:
        document = problem_details(code)
    response = error_response(document | {"status": error.code or 500})
    response.headers.update({name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")})
    return response


def error_response(document: dict[str, object]) -> Response:
    """Write an error as a page or as problem details (RFC 9457)."""
    record = request.record
    record.code, status = document["code"], document["status"]
    accepted = request.accept_mimetypes
    if wants_json(request.path, accepted["application/json"], accepted["text/html"]):
        response = json_response(document | {"request_id": record.request_id}, status, "application/problem+json")
    elif status == 400 and request.endpoint == "predict":
        response = Response(render_template("index.html", error=document), status)
    else:
        texts = {name: document[name] for name in ("status", "title", "detail")}
        response = Response(render_template("error.html", **texts), status)
    if ERRORS[document["code"]].retry_after:
        response.headers["Retry-After"] = str(ERRORS[document["code"]].retry_after)
    return response


def server_error_page(app: Flask, status: int, prefix: str = "") -> tuple[list[tuple[str, str]], bytes]:
    """Return headers and page for what the server refuses before the site sees it."""
    record = RequestRecord()
    own = {"Cache-Control": "no-store", "X-Request-Id": record.request_id}
    with app.test_request_context(base_url=f"http://localhost{prefix}", environ_overrides={"cxr.record": record}):
        response = error_response(problem_details(code_of_status(status)) | {"status": status})
        record.write(method="", status=status, num_bytes=0)
        return [*response.headers, *HEADERS.items(), *own.items()], response.data
