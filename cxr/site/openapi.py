"""The OpenAPI 3.1 document of the programming interface. Plain data: nothing is derived from it at run time."""

from cxr.network.model_info import DISCLAIMER
from cxr.site.errors import ERRORS, MAX_FILES, MAX_REQUEST_MIB

VERSION = "1.0.0"
NUMBER_OR_NULL = {"type": ["number", "null"]}
PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}
SENTENCES = {"type": "array", "items": {"type": "string"}}


def build_document() -> dict[str, object]:
    """Describe the four routes for programs, their answers and their errors."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Chest X-ray findings",
            "version": VERSION,
            "description": f"{DISCLAIMER} Files are processed in memory and never stored.",
        },
        "servers": [{"url": "/"}],
        "paths": {
            "/api/predict": {"post": _predict()},
            "/api/model": {"get": _get("getModel", "What the loaded model says about itself", "Model", 503)},
            "/api/openapi.json": {"get": _get("getDocument", "This document", "", 500)},
            "/healthz": {"get": _get("getHealth", "Whether the process answers", "Health", 500)},
            "/readyz": {"get": _get("getReadiness", "Whether the model is loaded and checked", "Health", 503)},
        },
        "components": {"schemas": _schemas()},
    }


def _predict() -> dict[str, object]:
    statuses = sorted({kind.status for kind in ERRORS.values()})
    file = {"type": "string", "contentMediaType": "application/octet-stream"}
    form = {
        "type": "object",
        "properties": {"file": {"type": "array", "items": file, "minItems": 1, "maxItems": MAX_FILES}},
        "required": ["file"],
    }
    return {
        "operationId": "predict",
        "summary": "Probabilities and heatmaps for one or several radiographs",
        "description": f"PNG, JPEG or DICOM; the form field `file` may be repeated, up to {MAX_FILES} times and "
        f"{MAX_REQUEST_MIB} MiB in all. One file that cannot be used is answered with its problem document and status; "
        "of several files, each has an answer or a problem document of its own, in the order of the request.",
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}},
        "responses": {"200": _response("One result per file", "Prediction"), **_problems(statuses)},
    }


def _get(operation_id: str, summary: str, schema: str, failure: int) -> dict[str, object]:
    responses = {"200": _response(summary, schema), **_problems([failure])}
    return {"operationId": operation_id, "summary": summary, "responses": responses}


def _response(description: str, schema: str) -> dict[str, object]:
    body = _ref(schema) if schema else {"type": "object"}
    return {"description": description, "content": {"application/json": {"schema": body}}}


def _problems(statuses: list[int]) -> dict[str, object]:
    found = {}
    for status in statuses:
        codes = sorted(code for code, kind in ERRORS.items() if kind.status == status)
        found[str(status)] = {
            "description": f"Problem document; code: {', '.join(codes)}",
            "content": {"application/problem+json": {"schema": _ref("Problem")}},
        }
    return found


def _schemas() -> dict[str, object]:
    problem = _object(
        {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": {"type": "string", "enum": sorted(ERRORS), "description": "stable"},
        },
        {"request_id": {"type": "string"}, "file": {"type": "string"}},
    )
    identity = {
        "digest": {"type": "string", "description": "SHA-256 over configuration and weights"},
        "created": {"type": "string"},
        "image_size": {"type": "integer"},
        "engine": {"type": "string"},
    }
    return {
        "Problem": problem,
        "Prediction": _object(
            {
                "results": {"type": "array", "items": {"anyOf": [_ref("Answer"), _ref("Problem")]}},
                "model": _object(identity | {"num_findings": {"type": "integer"}}),
            }
        ),
        "Answer": _answer(),
        "Finding": _finding(),
        "Model": _object(identity | {"findings": SENTENCES, "threshold": PROBABILITY}),
        "Health": _object({"status": {"type": "string"}}),
    }


def _answer() -> dict[str, object]:
    check = {
        "distance": NUMBER_OR_NULL
        | {"description": "how unlike the training radiographs; 1 is the limit, above it `unusual` is true"},
        "unusual": {"type": "boolean"},
        "text": {"type": "string"},
    }
    return _object(
        {
            "file": {"type": "string", "description": "the file's name, cleaned and shortened"},
            "type": {"type": "string", "enum": ["png", "jpeg", "dicom"]},
            "width": {"type": "integer"},
            "height": {"type": "integer"},
            "notices": SENTENCES,
            "input_check": _object(check),
            "findings": {"type": "array", "items": _ref("Finding")},
            "disclaimer": {"type": "string"},
        }
    )


def _finding() -> dict[str, object]:
    row = {"type": "array", "items": {"type": "number", "minimum": 0}}
    return _object(
        {
            "name": {"type": "string"},
            "probability": PROBABILITY,
            "calibrated_probability": NUMBER_OR_NULL | {"description": "null where the model has no calibration"},
            "logit": {"type": "number"},
            "threshold": PROBABILITY | {"description": "the default rule"},
            "chosen_threshold": NUMBER_OR_NULL | {"description": "chosen on the validation split"},
            "above": {"type": "boolean", "description": "probability >= threshold"},
            "heatmap": {
                "type": ["array", "null"],
                "items": row,
                "description": "Grad-CAM: what each cell of the radiograph adds to the logit; null where it failed",
            },
            "peak": NUMBER_OR_NULL | {"description": "largest value of the heatmap"},
            "scale": {"type": "string"},
        }
    )


def _object(properties: dict[str, object], optional: dict[str, object] | None = None) -> dict[str, object]:
    return {"type": "object", "properties": properties | (optional or {}), "required": list(properties)}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
