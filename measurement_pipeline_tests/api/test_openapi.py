"""The description of the API serves client generators, and messages are for people: codes, names, servers, formats in words."""

import re

import httpx
import pytest

from measurement_pipeline.api.errors import ErrorCode
from measurement_pipeline_tests.api.conftest import JOBS, Front
from measurement_pipeline_tests.api.test_reads import known, track
from measurement_pipeline_tests.intake.conftest import isrcs


def test_every_operation_has_a_name_of_its_own_that_a_generator_can_use(front: Front):
    described = httpx.get(f"{front.url}/openapi.json").json()
    named = [operation["operationId"] for path in described["paths"].values() for operation in path.values()]
    assert sorted(named) == [
        "create_measurement_job",
        "estimate_measurement_job",
        "get_album_measurements",
        "get_catalog_measurements",
        "get_health",
        "get_measurement_job",
        "get_readiness",
        "get_track_measurements",
        "list_measurement_jobs",
        "withdraw_measurement_job",
    ]
    assert described["servers"] == [{"url": "/", "description": "The server that this description came from."}]


def test_each_form_of_a_scope_is_a_schema_with_a_name(front: Front):
    schemas = httpx.get(f"{front.url}/openapi.json").json()["components"]["schemas"]
    forms = schemas["MeasurementJobRequest"]["properties"]["scope"]["oneOf"]
    assert forms == [{"$ref": f"#/components/schemas/{name}"} for name in ("IsrcScope", "AlbumScope", "CatalogScope")]
    assert schemas["IsrcScope"]["required"] == ["isrcs"]


def test_the_codes_of_errors_are_described_and_are_a_contract(front: Front):
    schemas = httpx.get(f"{front.url}/openapi.json").json()["components"]["schemas"]
    assert "code" in schemas["Refused"]["required"]
    assert set(schemas["ErrorCode"]["enum"]) == {code.value for code in ErrorCode}
    # New ones may be added; none of these may vanish or be renamed.
    assert set(schemas["ErrorCode"]["enum"]) >= {
        "invalid_request", "unauthenticated", "card_required", "not_found", "method_not_allowed", "body_timeout",
        "idempotency_key_reused", "job_withdrawn", "job_finished", "body_too_large", "rate_limited", "capture_cap_reached",
        "job_failed", "internal_error", "database_unavailable", "timeout", "job_locked", "payment_unknown",
        "token_keys_unavailable", "captures_disabled",
    }  # fmt: skip


def test_every_refusal_has_its_code(front: Front):
    client, unpaid = front.client(), front.client(card=False)
    known(front, client)
    one = {"isrcs": isrcs(1)}
    first = client.ask(one, key="k").json()["id"]
    client.delete(f"{JOBS}/{first}")
    found = {
        code: answer.json()["code"]
        for code, answer in {
            "invalid_request": client.ask({}),
            "unauthenticated": httpx.get(front.url + JOBS),
            "card_required": unpaid.ask(one),
            "not_found": client.get("/nothing"),
            "method_not_allowed": client.put(JOBS),
            "idempotency_key_reused": client.ask({"isrcs": isrcs(2)}, key="k"),
            "job_withdrawn": client.ask(one, key="k"),
            "body_too_large": client.post(JOBS, content=b" " * (1024 * 1024 + 1)),
        }.items()
    }
    assert {code for code, answered in found.items() if code != answered} == set(), found


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_asked_with_head_too(front: Front, method: str, path: str):
    answer = httpx.request(method, front.url + path)
    assert answer.status_code == 200
    assert (answer.content == b"") == (method == "HEAD")


def test_the_address_itself_leads_to_the_page_of_the_routes(front: Front):
    page = httpx.get(front.url + "/")
    assert page.headers["content-type"].startswith("text/html")
    for address in re.findall(r'href="([^"]+)"', page.text):
        assert httpx.get(front.url + address).status_code == 200
    assert 'href="/docs"' in page.text


def test_no_message_shows_a_regular_expression(front: Front):
    client = front.client()
    known(front, client)
    answers = [
        client.get(track(isrcs(1)[0]), params={"aggregate": "run_rate", "window": "1y"}),
        client.get(track(isrcs(1)[0]), params={"from": "x"}),
        client.get(JOBS, params={"limit": "x", "cursor": "?"}),
        client.post(JOBS, json={"source": "x"}, headers={"Idempotency-Key": "two words"}),
        client.ask({"isrcs": ["x"]}),
        client.ask({"album_ids": ["?"]}, source="current"),
        client.ask({"catalog_id": "x"}),
    ]
    for answer in answers:
        assert answer.status_code == 400
        assert not re.search(r"[\[\]^$\\]|\{\d", answer.json()["error"]), answer.json()
