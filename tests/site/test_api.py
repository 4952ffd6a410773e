"""The programming interface: answers, problem details, and a document that describes both."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from quick_site import FINDINGS, StandIn, expected_probabilities
from site_tools import FORM, ROOT, form, png, quick_client, running_site, upload

import app as site
from cxr.imaging.radiograph import decode_radiograph
from cxr.site.answer import describe_model
from cxr.site.errors import ERRORS, code_of_status, problem_details

PAGE = (ROOT / "docs" / "site.md").read_text(encoding="utf-8")
DOCUMENT = json.loads((ROOT / "static" / "openapi.json").read_text(encoding="utf-8"))


@pytest.fixture
def client():
    return quick_client()


def reject_constant(name):
    raise AssertionError(f"{name} is no JSON")


def strict_json(response):
    return json.loads(response.data, parse_constant=reject_constant)


def validate(document, schema_name):
    """Hold a JSON value against the OpenAPI document's own schema, with a validator that is not ours."""
    from jsonschema import Draft202012Validator

    schema = {"$ref": f"#/components/schemas/{schema_name}", "components": DOCUMENT["components"]}
    Draft202012Validator(schema).validate(document)


def test_predict_answers_with_every_number_of_the_model(client):
    response = upload(client, ("a.png", png(1)), path="/api/predict")
    assert (response.status_code, response.content_type) == (200, "application/json")
    found = strict_json(response)
    validate(found, "Prediction")
    (answer,) = found["results"]
    radiograph = decode_radiograph(png(1))
    probabilities = expected_probabilities(radiograph)
    logits = np.log(probabilities / (1 - probabilities))
    findings = answer["findings"]
    assert [one["name"] for one in findings] == list(FINDINGS)
    np.testing.assert_allclose([one["probability"] for one in findings], probabilities, atol=1e-5)
    np.testing.assert_allclose([one["logit"] for one in findings], logits, atol=1e-4)
    calibrated = 1 / (1 + np.exp(-(0.5 * logits - 1.0)))
    np.testing.assert_allclose([one["calibrated_probability"] for one in findings], calibrated, atol=1e-5)
    np.testing.assert_allclose([one["chosen_threshold"] for one in findings], 0.1 + 0.05 * np.arange(14), atol=1e-9)
    assert [one["above"] for one in findings] == [bool(one >= 0.5) for one in probabilities]
    for k, one in enumerate(findings):
        heatmap = np.array(one["heatmap"])
        assert heatmap.shape == (2, 2)
        assert one["peak"] == heatmap.max()
        # The stand-in's kernel is the identity: the signed map would add up to the logit.
        signed = StandIn().predict(site_input(radiograph))[2][0, :, :, k] / 4
        np.testing.assert_allclose(heatmap, np.maximum(signed, 0), atol=1e-5)
    assert found["model"]["digest"] == StandIn.info.digest


def give_probabilities(monkeypatch, *values):
    """Have the stand-in answer with these probabilities of its first findings."""
    plain = StandIn.predict

    def predict(self, model_inputs):
        found = plain(self, model_inputs)
        probabilities = found.probabilities.copy()
        probabilities[0, : len(values)] = np.float32(values)
        return found._replace(probabilities=probabilities)

    monkeypatch.setattr(StandIn, "predict", predict)


@pytest.mark.fault("H74")
def test_decisions_are_the_models_and_not_those_of_rounded_numbers(client, monkeypatch):
    """With six digits 0.4999998 would be written 0.5, and does not reach it."""
    give_probabilities(monkeypatch, 0.4999998, 0.1499999)
    (answer,) = strict_json(upload(client, png(1), path="/api/predict"))["results"]
    first, second = answer["findings"][:2]
    assert (first["probability"], first["above"], first["above_chosen"]) == (0.4999998, False, True)
    assert (second["probability"], round(second["chosen_threshold"], 9)) == (0.1499999, 0.15)
    assert not second["above_chosen"]
    assert "below\n              0.5000000" in upload(client, png(1)).text


@pytest.mark.fault("H74")
def test_overlays_and_table_have_one_order_however_close_the_probabilities_are(client, monkeypatch):
    """A page without script knows an overlay by its place: the wrong one would show another finding's heat."""
    give_probabilities(monkeypatch, 0.9999996, 0.9999999, 0.9999998)
    page = upload(client, png(1)).text
    rows = re.findall(r'value="(\d+)"[^>]*> <span>([^<]+)</span></label>', page)
    drawn = re.findall(r'data-rank="(\d+)"[^>]*evidence for ([^"]+)"', page)
    assert drawn == [("1", "Cardiomegaly"), ("2", "Effusion"), ("3", "Atelectasis")]
    assert [row for row in rows if int(row[0]) > 0][:3] == drawn


def site_input(radiograph):
    from cxr.imaging.radiograph import to_model_input

    return to_model_input(radiograph, 64)[np.newaxis]


def test_predict_answers_several_files_in_order(client):
    response = upload(client, ("a.png", png(0)), ("b.txt", b"text"), ("c.png", png(2)), path="/api/predict")
    assert response.status_code == 200
    found = strict_json(response)
    validate(found, "Prediction")
    first, refused, last = found["results"]
    for answer, seed in ((first, 0), (last, 2)):
        expected = expected_probabilities(decode_radiograph(png(seed)))
        np.testing.assert_allclose([one["probability"] for one in answer["findings"]], expected, atol=1e-5)
    assert (refused["file"], refused["code"], refused["status"]) == ("b.txt", "type", 415)
    validate(refused, "ProblemDetails")


@pytest.mark.fault("H18")
@pytest.mark.parametrize(
    ("files", "code"),
    [
        ((), "no_file"),
        ((b"text",), "type"),
        ((b"",), "empty"),
        ((png()[:200],), "damaged"),
        ((b"x",) * 9, "too_many_files"),
    ],
)
def test_errors_are_problem_documents_with_a_stable_code(client, files, code):
    response = upload(client, *files, path="/api/predict")
    kind = ERRORS[code]
    assert (response.status_code, response.content_type) == (kind.status, "application/problem+json")
    document = strict_json(response)
    validate(document, "ProblemDetails")
    assert (document["code"], document["status"], document["title"]) == (code, kind.status, kind.title)
    assert document["request_id"] == response.headers["X-Request-Id"]


@pytest.mark.fault("H18")
@pytest.mark.parametrize(
    ("path", "accept", "json_wanted"),
    [
        ("/api/nothing", "text/html", True),
        ("/nothing", "application/json", True),
        ("/nothing", "text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("/nothing", "*/*", False),
        ("/nothing", None, False),
    ],
)
def test_the_header_accept_is_honoured_in_errors(client, path, accept, json_wanted):
    response = client.get(path, headers={"Accept": accept} if accept else {})
    assert response.status_code == 404
    assert (response.content_type == "application/problem+json") == json_wanted


@pytest.mark.fault("H18")
def test_page_and_program_get_the_same_error(client):
    page, program = upload(client, b"text"), upload(client, b"text", path="/api/predict")
    assert page.status_code == program.status_code
    assert program.json["title"] in page.text
    assert program.json["detail"] in page.text


def test_every_error_of_the_table_can_be_written():
    for code, kind in ERRORS.items():
        document = problem_details(code)
        validate(document, "ProblemDetails")
        assert 400 <= kind.status < 600
        assert (kind.status == 503) == (kind.retry_after is not None)
        assert document["detail"].endswith(".")
    for status in (400, 403, 404, 405, 413, 431, 500, 501, 503):
        assert ERRORS[code_of_status(status)].status in (status, 500)


def test_model_says_what_the_file_says(client):
    found = strict_json(client.get("/api/model"))
    validate(found, "Model")
    assert found == describe_model(StandIn.info, StandIn.engine)
    assert found["findings"] == list(FINDINGS)


def test_document_is_valid_openapi_31(client):
    from openapi_spec_validator import validate as validate_specification

    document = strict_json(client.get("/api/openapi.json"))
    assert document["openapi"].startswith("3.1")
    validate_specification(document)
    broken = json.loads(json.dumps(document))
    del broken["paths"]["/api/predict"]["post"]["responses"]
    broken["info"].pop("title")
    with pytest.raises(Exception, match="title"):
        validate_specification(broken)  # the check can fail


def test_document_lists_the_routes_that_exist(client):
    rules = {
        (rule.rule, method.lower())
        for rule in client.application.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if rule.rule.startswith("/api/") or rule.rule in ("/healthz", "/readyz")
    }
    paths = DOCUMENT["paths"]
    assert {(path, method) for path, methods in paths.items() for method in methods} == rules


def test_the_readable_page_names_routes_and_codes(client):
    page = client.get("/api")
    assert page.status_code == 200
    for words in ("/api/predict", "/api/dicom", "/api/model", "openapi.json", "too_many_scans"):
        assert words in page.text


def test_samples_can_be_asked_for_by_name(client):
    name = next(iter(client.application.samples))
    response = client.post("/api/predict", data=form(fields=[("sample", name)]), content_type=FORM)
    assert response.json["results"][0]["file"] == name


def block_of_page(language, marker):
    """The code block of a language in docs/site.md that holds the marker."""
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    (block,) = [one for one in blocks if marker in one]
    return block


def test_the_examples_of_the_page_run():
    program, command = block_of_page("python", "api/predict"), block_of_page("bash", "api/predict")
    assert len(program.strip().splitlines()) <= 10
    with running_site() as server:
        address = f"127.0.0.1:{server.port}"
        runs = [[sys.executable, "-c", program.replace("127.0.0.1:5000", address)]]
        if subprocess.run(["which", "curl"], capture_output=True, check=False).returncode == 0:
            runs.append(["bash", "-c", command.replace("127.0.0.1:5000", address)])
        for run in runs:
            done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
            assert done.returncode == 0, done.stderr
            assert "Hernia" in done.stdout


def test_the_client_of_these_tests_is_the_sites(client):
    assert isinstance(client.application, site.Site)
