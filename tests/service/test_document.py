"""The OpenAPI document: valid, complete, and (in conftest.py) what every answer of these tests is held to."""

from __future__ import annotations

import re

import jsonschema
import pytest
from fastapi.openapi.models import OpenAPI

from bandits.errors import InvalidNameError
from bandits.types import valid_name

ROUTES = {
    ("post", "/route"),
    ("post", "/feedback"),
    ("get", "/decisions/{decision_id}"),
    ("get", "/snapshots"),
    ("get", "/budgets"),
    ("get", "/domains"),
    ("post", "/v1/chat/completions"),
    ("get", "/v1/models"),
    ("get", "/v1/models/{model}"),
    ("get", "/keys"),
    ("post", "/keys"),
    ("post", "/keys/{prefix}/renewal"),
    ("delete", "/keys/{prefix}"),
    ("post", "/pilot/run"),
    ("get", "/pilot/run"),
    ("get", "/pilot/runs/{run_id}"),
    ("get", "/pilot/runs/{run_id}/events"),
    ("delete", "/pilot/runs/{run_id}"),
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
}


NAMED = [("RouteBody", "workspace"), ("RouteBody", "domain"), ("KeyBody", "name")]
PARAMETERS = [
    ("/budgets", "get", "workspace"),
    ("/snapshots", "get", "domain"),
    ("/pilot/run", "post", "workspace"),
    ("/v1/chat/completions", "post", "x-pilotage-workspace"),
]


@pytest.fixture
def document(shared) -> dict:
    """As a stranger gets it over HTTP."""
    return shared.stranger.get("/openapi.json").json()


def nodes(value: object):
    """Every object inside a document."""
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(child)


def operations(document: dict) -> dict:
    return {(method, path): op for path, item in document["paths"].items() for method, op in item.items()}


def test_the_document_is_openapi(document):
    """Its shape, its schemas (as JSON Schema 2020-12), its references, its names."""
    OpenAPI.model_validate(document)
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for node in nodes(document):
        if "$ref" in node:
            kind, name = re.fullmatch(r"#/components/(\w+)/([\w.-]+)", node["$ref"]).groups()
            assert name in document["components"][kind]
    for kind, parts in document["components"].items():
        assert all(re.fullmatch(r"[\w.-]+", name) for name in parts), kind
    ids = [operation["operationId"] for operation in operations(document).values()]
    assert len(set(ids)) == len(ids)


def test_every_route_is_described(document):
    """Summary, text, tag, description of each field of a body that is sent; no schema of the framework's own errors."""
    assert operations(document).keys() == ROUTES
    for operation in operations(document).values():
        assert operation["summary"]
        assert operation["description"]
        assert operation["tags"]
    assert not {"HTTPValidationError", "ValidationError"} & document["components"]["schemas"].keys()
    assert all(schema["description"] for schema in document["components"]["schemas"].values())


def test_every_error_is_documented_with_an_example(document):
    """Bodies of the one kind; and the routes that need a key say so."""
    for (_, path), operation in operations(document).items():
        statuses = {int(status) for status in operation["responses"] if int(status) >= 400}
        wanted = {"/healthz": set(), "/readyz": {401, 503}}.get(path, {401, 403, 422, 503})
        assert wanted <= statuses
        assert ("security" in operation) is (path not in ("/healthz", "/readyz"))
        for status in statuses:
            content = operation["responses"][str(status)]["content"]["application/json"]
            assert content["schema"] == {"$ref": "#/components/schemas/ErrorBody"}
            jsonschema.validate(content["example"], content["schema"] | {"components": document["components"]})
            assert content["example"]["error"]["message"]


def test_the_examples_of_bodies_are_good_bodies(document):
    """Each fits its own schema."""
    for name in ("RouteBody", "FeedbackBody", "PilotBody"):
        schema = document["components"]["schemas"][name]
        assert schema["additionalProperties"] is False
        assert schema["examples"]
        for example in schema["examples"]:
            jsonschema.validate(example, schema | {"components": document["components"]})


def test_the_limits_of_a_body_are_documented(document):
    """What the service refuses, a reader of the document can know."""
    schemas = document["components"]["schemas"]
    prompt, quality = (
        next(one for one in schemas[body]["properties"][field]["anyOf"] if one["type"] != "null")
        for body, field in (("RouteBody", "prompt"), ("FeedbackBody", "quality"))
    )
    assert (prompt["minLength"], prompt["maxLength"]) == (1, 100_000)
    assert (quality["minimum"], quality["maximum"]) == (0.0, 1.0)


def test_what_a_name_may_be_is_documented(document):
    """Of workspaces, domains and keys, in bodies, queries and headers: as it is held to."""
    schemas, told = document["components"]["schemas"], set()
    told |= {schemas[body]["properties"][field]["pattern"] for body, field in NAMED}
    for path, method, name in PARAMETERS:
        (one,) = [p for p in document["paths"][path][method]["parameters"] if p["name"] == name]
        told |= {part["pattern"] for part in one["schema"].get("anyOf", [one["schema"]]) if part["type"] == "string"}
    (pattern,) = told
    for name in ("a", "0-_", "a" * 63, "", "-a", "A", "a" * 64, "ä", "a b"):
        try:
            fits = valid_name(name, "name") == name
        except InvalidNameError:
            fits = False
        assert fits is bool(re.search(pattern, name))
