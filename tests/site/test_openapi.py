"""static/openapi.json against what the site does: its limits, its errors, and every field of real answers."""

import json

import pytest
from site_tools import ROOT, png, quick_client, upload

from cxr.network.model_info import DISCLAIMER
from cxr.site.errors import ERRORS, MAX_FILES, MAX_REQUEST_MIB

DOCUMENT = json.loads((ROOT / "static" / "openapi.json").read_text(encoding="utf-8"))
SCHEMAS = DOCUMENT["components"]["schemas"]
HOW = "Correct static/openapi.json."


@pytest.fixture(scope="module")
def client():
    return quick_client()


def resolved(schema: dict) -> dict:
    return SCHEMAS[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema


def undocumented(value: object, schema: dict, path: str = "") -> list[str]:
    """Return the fields of an answer that its schema does not know."""
    schema = resolved(schema)
    if isinstance(value, list):
        return [one for item in value for one in undocumented(item, schema.get("items", {}), f"{path}[]")]
    if not isinstance(value, dict) or "properties" not in schema:
        branches = [undocumented(value, one, path) for one in schema.get("anyOf", ())]
        return min(branches, key=len, default=[])
    unknown = [f"{path}.{name}" for name in value if name not in schema["properties"]]
    known = {name: one for name, one in value.items() if name in schema["properties"]}
    return unknown + [
        one for name, item in known.items() for one in undocumented(item, schema["properties"][name], f"{path}.{name}")
    ]


def test_document_knows_every_error_under_its_status():
    assert SCHEMAS["ProblemDetails"]["properties"]["code"]["enum"] == sorted(ERRORS), HOW
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            answers = {int(status): one for status, one in operation["responses"].items() if status != "200"}
            for status, answer in answers.items():
                codes = sorted(code for code, kind in ERRORS.items() if kind.status == status)
                assert answer["description"] == f"Problem details; code: {', '.join(codes)}", (path, method, HOW)
    predict = DOCUMENT["paths"]["/api/predict"]["post"]["responses"]
    assert {int(status) for status in predict} - {200} == {kind.status for kind in ERRORS.values()}, HOW


def test_document_states_the_limits_of_a_request():
    predict = DOCUMENT["paths"]["/api/predict"]["post"]
    files = predict["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]["file"]
    assert files["maxItems"] == MAX_FILES, HOW
    assert f"up to {MAX_FILES} times and {MAX_REQUEST_MIB} MiB in all" in predict["description"], HOW
    assert DOCUMENT["info"]["description"].startswith(DISCLAIMER), HOW


def test_answers_have_no_field_that_the_document_does_not_know(client):
    answer = upload(client, png(), b"text", path="/api/predict").json
    assert undocumented(answer, SCHEMAS["Prediction"]) == [], HOW
    problem = upload(client, b"text", path="/api/predict").json
    assert undocumented(problem, SCHEMAS["ProblemDetails"]) == [], HOW


def test_the_comparison_notices_an_unknown_field(client):
    answer = upload(client, png(), path="/api/predict").json
    answer["results"][0]["findings"][3]["certainty"] = 1
    answer["model"]["owner"] = "x"
    found = undocumented(answer, SCHEMAS["Prediction"])
    assert found == [".results[].findings[].certainty", ".model.owner"]


def test_the_site_serves_the_file_as_it_is(client):
    assert client.get("/api/openapi.json").json == DOCUMENT
