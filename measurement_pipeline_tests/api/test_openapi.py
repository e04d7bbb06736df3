"""The OpenAPI description works for client generators: ids, error codes, named schemas. Messages are readable for people."""

import re
from itertools import product

import httpx

from measurement_pipeline.api.errors import ErrorCode
from measurement_pipeline_tests.api.conftest import JOBS, RunningApi
from measurement_pipeline_tests.api.test_reads import create_catalog, track
from measurement_pipeline_tests.intake.conftest import isrcs


def test_every_operation_has_a_unique_id_for_client_generators(api: RunningApi):
    described = httpx.get(f"{api.url}/openapi.json").json()
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
    assert described["servers"] == [{"url": "/", "description": "The server that sent this description."}]


def test_each_form_of_a_scope_is_a_named_schema(api: RunningApi):
    schemas = httpx.get(f"{api.url}/openapi.json").json()["components"]["schemas"]
    forms = schemas["MeasurementJobRequest"]["properties"]["scope"]["oneOf"]
    assert forms == [{"$ref": f"#/components/schemas/{name}"} for name in ("IsrcScope", "AlbumScope", "CatalogScope")]
    assert schemas["IsrcScope"]["required"] == ["isrcs"]


def test_the_error_codes_are_described_and_are_a_contract(api: RunningApi):
    schemas = httpx.get(f"{api.url}/openapi.json").json()["components"]["schemas"]
    assert "code" in schemas["ErrorResponse"]["required"]
    assert set(schemas["ErrorCode"]["enum"]) == {code.value for code in ErrorCode}
    # New codes may be added; none of these may be removed or renamed.
    assert set(schemas["ErrorCode"]["enum"]) >= {
        "invalid_request", "unauthenticated", "card_required", "not_found", "method_not_allowed", "body_timeout",
        "idempotency_key_reused", "job_withdrawn", "job_finished", "body_too_large", "rate_limited", "capture_cap_reached",
        "job_failed", "internal_error", "database_unavailable", "timeout", "job_locked", "payment_unknown",
        "token_keys_unavailable", "captures_disabled",
    }  # fmt: skip


def test_every_error_has_its_code(api: RunningApi):
    client, unpaid = api.client(), api.client(card=False)
    create_catalog(api, client)
    one = {"isrcs": isrcs(1)}
    first = client.submit(one, key="k").json()["id"]
    client.delete(f"{JOBS}/{first}")
    codes = {
        code: answer.json()["code"]
        for code, answer in {
            "invalid_request": client.submit({}),
            "unauthenticated": httpx.get(api.url + JOBS),
            "card_required": unpaid.submit(one),
            "not_found": client.get("/nothing"),
            "method_not_allowed": client.put(JOBS),
            "idempotency_key_reused": client.submit({"isrcs": isrcs(2)}, key="k"),
            "job_withdrawn": client.submit(one, key="k"),
            "body_too_large": client.post(JOBS, content=b" " * (1024 * 1024 + 1)),
        }.items()
    }
    assert {code for code, answered in codes.items() if code != answered} == set(), codes


def test_health_routes_answer_head_requests(api: RunningApi):
    for method, path in product(["GET", "HEAD"], ["/healthz", "/readyz"]):
        answer = httpx.request(method, api.url + path)
        assert answer.status_code == 200, (method, path)
        assert (answer.content == b"") == (method == "HEAD"), (method, path)


def test_the_start_page_links_to_the_documentation(api: RunningApi):
    page = httpx.get(api.url + "/")
    assert page.headers["content-type"].startswith("text/html")
    for address in re.findall(r'href="([^"]+)"', page.text):
        assert httpx.get(api.url + address).status_code == 200
    assert 'href="/docs"' in page.text


def test_no_message_contains_a_regular_expression(api: RunningApi):
    client = api.client()
    create_catalog(api, client)
    answers = [
        client.get(track(isrcs(1)[0]), params={"aggregate": "run_rate", "window": "1y"}),
        client.get(track(isrcs(1)[0]), params={"from": "x"}),
        client.get(JOBS, params={"limit": "x", "cursor": "?"}),
        client.post(JOBS, json={"source": "x"}, headers={"Idempotency-Key": "two words"}),
        client.submit({"isrcs": ["x"]}),
        client.submit({"album_ids": ["?"]}, source="current"),
        client.submit({"catalog_id": "x"}),
    ]
    for answer in answers:
        assert answer.status_code == 400
        assert not re.search(r"[\[\]^$\\]|\{\d", answer.json()["error"]), answer.json()
