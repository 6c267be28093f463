"""The OpenAPI document: what the running gateway serves is what is checked in, and it covers the notifier's streams."""

import re
from typing import Any

import httpx
import pytest

from contracts import api, catalogue, problems
from contracts.problems import ProblemKind
from tests.contract.documents import Document, document, references, resolved
from tests.support.sori import Sori

PUBLIC = {
    ("post", "/tokens/{token_id}/upload-audio"),
    ("get", "/tokens/analysis-result/{job_id}"),
    ("get", "/tokens/analysis-progress/{job_id}"),
    ("get", "/jobs"),
    ("get", "/jobs/{job_id}"),
    ("delete", "/jobs/{job_id}"),
    ("post", "/jobs/{job_id}/retry"),
    ("get", "/jobs/{job_id}/audio"),
    ("post", "/jobs/{job_id}/links"),
    ("get", "/jobs/{job_id}/links"),
    ("delete", "/jobs/{job_id}/links/{link_id}"),
    ("get", "/shared/{secret}"),
    ("get", "/shared/{secret}/audio"),
    ("post", "/tokens"),
    ("get", "/tokens"),
    ("get", "/tokens/{token_id}"),
    ("put", "/tokens/{token_id}"),
    ("delete", "/tokens/{token_id}"),
    ("post", "/tokens/{token_id}/view"),
    ("put", "/tokens/{token_id}/reference-audio"),
    ("get", "/tokens/{token_id}/reference-audio"),
    ("post", "/scripts"),
    ("get", "/scripts"),
    ("get", "/scripts/token/{token_id}"),
    ("get", "/scripts/{script_id}"),
    ("put", "/scripts/{script_id}"),
    ("delete", "/scripts/{script_id}"),
    ("post", "/actors"),
    ("get", "/actors"),
    ("get", "/actors/search/{name}"),
    ("get", "/actors/{actor_id}"),
    ("put", "/actors/{actor_id}"),
    ("delete", "/actors/{actor_id}"),
    ("get", "/actors/{actor_id}/tokens"),
    ("post", "/tokens/webhook/analysis-complete"),
    ("post", "/webhook/analysis-complete"),
    ("post", "/auth/session"),
    ("delete", "/auth/session"),
    ("post", "/auth/tickets"),
    ("post", "/auth/google-login"),
    ("get", "/me"),
    ("delete", "/me"),
    ("get", "/me/scores"),
    ("get", "/me/export"),
    ("get", "/health"),
    ("get", "/health/live"),
    ("get", "/health/ready"),
}
KINDS = {
    kind.code: kind
    for kind in [*vars(problems).values(), *problems.REFERENCE_REJECTIONS.values()]
    if isinstance(kind, ProblemKind)
}


@pytest.fixture
def openapi() -> Document:
    return document("openapi/openapi.json")


def operations(openapi: Document) -> dict[tuple[str, str], Document]:
    return {(method, path): call for path, calls in openapi["paths"].items() for method, call in calls.items()}


async def test_the_gateway_serves_the_document_that_is_checked_in(sori: Sori, openapi: Document) -> None:
    served = await sori.client.get(f"{sori.url}/openapi.json")
    assert served.status_code == 200
    assert served.json() == openapi


async def test_the_documentation_needs_nothing_from_elsewhere(sori: Sori) -> None:
    page = await sori.client.get(f"{sori.url}/docs")
    assert page.status_code == 200
    needed = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert needed
    for address in needed:
        assert not re.match(r"(https?:)?//", address), address
        part = await sori.client.get(httpx.URL(f"{sori.url}/docs").join(address))
        assert part.status_code == 200, address


def test_every_public_call_is_there_and_no_other(openapi: Document) -> None:
    assert openapi["openapi"].startswith("3.1")
    assert set(operations(openapi)) == PUBLIC


def test_every_reference_leads_somewhere(openapi: Document) -> None:
    for reference in references(openapi):
        assert resolved(reference, openapi) is not None


def test_calls_have_ids_of_their_own_and_say_what_they_do(openapi: Document) -> None:
    calls = operations(openapi).values()
    ids = [call["operationId"] for call in calls]
    assert len(set(ids)) == len(ids)
    assert all(call["summary"] for call in calls)


def test_every_error_is_a_problem_of_the_contract_with_an_example(openapi: Document) -> None:
    seen = set()
    for (_, path), call in operations(openapi).items():
        for status, answer in call["responses"].items():
            if int(status) < 400 or path.startswith("/health"):
                continue
            (content_type,) = answer["content"]
            assert content_type == problems.CONTENT_TYPE, (path, status)
            for code, example in answer["content"][content_type]["examples"].items():
                assert example["value"] == KINDS[code].body("en").model_dump()
                assert KINDS[code].status == int(status)
                seen.add(code)
    assert seen >= {"file_missing", "upload_too_large", "job_not_found", "signature_invalid", "webhook_not_json"}


def test_no_header_is_an_array(openapi: Document) -> None:
    """Generators of clients drop a call that has one."""
    parameters = [one for call in operations(openapi).values() for one in call.get("parameters", [])]
    named = {one["name"].lower() for one in parameters if one["in"] == "header"}
    assert named >= {"if-match", "range", "idempotency-key"}
    for one in parameters:
        if one["in"] == "header":
            assert "array" not in str(one["schema"]), one


@pytest.mark.parametrize("path", ["/tokens/webhook/analysis-complete", "/webhook/analysis-complete"])
def test_the_webhook_shows_every_shape_and_what_its_address_carries(openapi: Document, path: str) -> None:
    call = operations(openapi)["post", path]
    shapes = call["requestBody"]["content"]["application/json"]["examples"]
    assert {example["value"]["status"] for example in shapes.values()} == {
        "success",
        "completed",
        "failed",
        "processing",
    }
    assert len(shapes) == 5
    assert {parameter["name"] for parameter in call["parameters"]} >= {"job_id", "attempt", "signature"}


def test_the_stream_is_described_with_how_to_resume_it(openapi: Document) -> None:
    call = operations(openapi)["get", api.PROGRESS_PATH]
    assert "text/event-stream" in call["responses"]["200"]["content"]
    assert {"200", "204", "404", "503"} <= set(call["responses"])
    by_name: dict[str, Any] = {parameter["name"]: parameter for parameter in call["parameters"]}
    assert by_name["Last-Event-ID"]["in"] == "header"
    assert by_name["job_id"]["in"] == "path"


@pytest.mark.parametrize("name", ["TokenBody", "ScriptBody", "ActorBody"])
def test_a_body_of_the_catalogue_is_described_with_examples_that_it_takes(openapi: Document, name: str) -> None:
    schema = openapi["components"]["schemas"][name]
    assert schema["additionalProperties"] is False
    example = {field: values["examples"][0] for field, values in schema["properties"].items() if "examples" in values}
    assert set(schema["required"]) <= example.keys()
    assert getattr(catalogue, name).model_validate(example)


def test_every_row_has_its_id_by_that_name(openapi: Document) -> None:
    for name in ("Token", "TokenDetails", "Script", "Actor", "Views"):
        assert openapi["components"]["schemas"][name]["properties"]["id"]["type"] == "integer"
        assert "_id" not in openapi["components"]["schemas"][name]["properties"]


@pytest.mark.parametrize("path", ["/tokens/{token_id}", "/scripts/{script_id}", "/actors/{actor_id}"])
def test_changes_of_rows_say_that_they_take_a_precondition(openapi: Document, path: str) -> None:
    for method in ("put", "delete"):
        call = operations(openapi)[method, path]
        assert "if-match" in {parameter["name"] for parameter in call["parameters"]}
        assert "412" in call["responses"]


def test_states_are_described_as_they_are_sent(openapi: Document) -> None:
    state = openapi["components"]["schemas"]["JobState"]
    assert set(state["properties"]) == set(api.JobState.model_fields)
    assert not {"s3_url", "result", "error"} & set(state["required"])
