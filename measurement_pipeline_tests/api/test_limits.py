"""Limits for clients, behaviour during outages, and shutdown."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import httpx
import pytest

from measurement_pipeline.api.errors import DATABASE_UNAVAILABLE, READ_TIMEOUT
from measurement_pipeline.api.jobs import JOB_LOCKED
from measurement_pipeline.api.limits import RateLimiter
from measurement_pipeline.domain.measurement_job import MAX_REQUEST_BYTES
from measurement_pipeline.domain.payment import Decision, PaymentVerdict
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.api.conftest import JOBS, RunningApi, StartApi, serve
from measurement_pipeline_tests.intake.conftest import isrcs


def test_each_account_has_its_own_rate_limit_with_retry_after(start_api: StartApi):
    api = start_api(requests_per_minute=2)
    client, other = api.client(), api.client()
    assert [client.get(JOBS).status_code for _ in range(3)] == [200, 200, 429]
    response = client.get(JOBS)
    assert 1 <= int(response.headers["Retry-After"]) <= 30
    assert response.json()["code"] == "rate_limited"
    assert "2 per minute" in response.json()["error"]
    assert other.get(JOBS).status_code == 200


def test_a_bucket_refills_continuously_up_to_one_minute():
    clock = [0.0]
    limiter = RateLimiter(60, now=lambda: clock[0])
    account = uuid4()
    assert [limiter.acquire(account) for _ in range(60)] == [None] * 60
    assert limiter.acquire(account) == 1.0
    clock[0] = 0.5
    assert limiter.acquire(account) == 0.5
    clock[0] = 1.0
    assert limiter.acquire(account) is None
    clock[0] = 10_000.0
    assert [limiter.acquire(account) for _ in range(61)].count(None) == 60


@pytest.mark.parametrize("has_content_length", [True, False])
def test_a_body_that_is_too_large_is_a_413(api: RunningApi, has_content_length: bool):
    client = api.client()
    body = b'"' + b"x" * MAX_REQUEST_BYTES + b'"'
    content = body if has_content_length else (body[at : at + 65_536] for at in range(0, len(body), 65_536))
    answer = client.post(JOBS, content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["status"]) == (413, "error")


def test_a_body_that_does_not_arrive_is_a_408(start_api: StartApi):
    api = start_api(body_within_seconds=0.2)
    host, port = api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=120) as line:
        line.sendall(f"POST {JOBS} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{{".encode())
        answer = line.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"status": "error"' in answer


def test_other_origins_are_allowed_only_if_configured(start_api: StartApi):
    asks = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    closed, opened = start_api(), start_api(cors_origins=["https://app.example"])
    assert "access-control-allow-origin" not in httpx.get(f"{closed.url}/healthz", headers=asks).headers
    assert httpx.options(f"{closed.url}{JOBS}", headers=asks).status_code == 405
    allowed = httpx.options(f"{opened.url}{JOBS}", headers=asks)
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, "https://app.example")
    other = httpx.options(f"{opened.url}{JOBS}", headers={**asks, "Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


def test_without_a_database_the_api_is_alive_but_not_ready_and_answers_503(start_api: StartApi):
    api = start_api(database_url="postgresql://user@127.0.0.1:1/nothing", database_within_seconds=0.3)
    assert httpx.get(f"{api.url}/healthz").json() == {"status": "success"}
    for answer in (
        httpx.get(f"{api.url}/readyz"),
        httpx.post(api.url + JOBS, json={}, headers={"x-api-key": "mp_aaaaaaaa_" + "a" * 43}),
    ):
        assert (answer.status_code, answer.json()["error"]) == (503, DATABASE_UNAVAILABLE)
        assert int(answer.headers["Retry-After"]) > 0


def test_the_api_is_ready_when_the_database_answers(api: RunningApi):
    assert httpx.get(f"{api.url}/readyz").status_code == 200


def test_terminated_connections_fail_no_request(api: RunningApi):
    client = api.client()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: client.get(JOBS), range(16)))
    api.table.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname = current_database()"
    )
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: client.get(JOBS).status_code, range(16)))
    assert set(answers) == {200}


def test_a_read_that_takes_too_long_is_cancelled(start_api: StartApi):
    api = start_api(read_within_seconds=0.3)
    client = api.client()
    api.table.catalogue(isrcs(1), account=client.account)
    with connect(api.config.database_url) as connection, connection.transaction():
        connection.execute("lock table song_measurements in access exclusive mode")
        answer = client.get(f"/api/research/tracks/{isrcs(1)[0]}/measurements")
    assert (answer.status_code, answer.json()["error"]) == (503, READ_TIMEOUT)
    assert client.get(f"/api/research/tracks/{isrcs(1)[0]}/measurements").status_code == 200


def test_requests_about_jobs_do_not_wait_for_a_lock_without_limit(start_api: StartApi):
    api = start_api(read_within_seconds=0.3)
    client = api.client()
    job = client.submit({"isrcs": isrcs(1)}).json()["id"]
    body = {"source": "historical", "scope": {"isrcs": isrcs(1)}}
    with connect(api.config.database_url) as connection, connection.transaction():
        connection.execute("lock table measurement_jobs, songstats_backfill_queue in access exclusive mode")
        for method, path in (("GET", ""), ("GET", f"/{job}"), ("DELETE", f"/{job}"), ("POST", "/estimate")):
            answer = client.request(method, JOBS + path, json=body if method == "POST" else None)
            expected = JOB_LOCKED if method == "DELETE" else READ_TIMEOUT
            assert (answer.status_code, answer.json()["error"]) == (503, expected), path
    assert client.get(f"{JOBS}/{job}").json()["state"] == "accepted", "a withdrawal that timed out changed nothing"


def test_a_timeout_after_the_insert_does_not_claim_that_nothing_changed(start_api: StartApi):
    api = start_api(read_within_seconds=1.0, answer_within_seconds=1.0)
    client = api.client()
    client.submit({"isrcs": isrcs(1)})
    with connect(api.config.database_url) as connection, connection.transaction():
        # The response reads this table, processing does not.
        connection.execute("lock table playcount_snapshots in access exclusive mode")
        answer = client.submit({"isrcs": isrcs(2)})
    assert (answer.status_code, answer.json()["error"]) == (503, DATABASE_UNAVAILABLE)


def test_an_intake_that_waits_for_a_lock_does_not_delay_shutdown(api: RunningApi):
    client = api.client()
    client.submit({"isrcs": isrcs(1)})
    with connect(api.config.database_url) as connection:
        with connection.transaction():
            connection.execute("lock table measurement_job_songs in access exclusive mode")
            with serve(replace(api.config, answer_within_seconds=0.5)) as url:
                body = {"source": "historical", "scope": {"isrcs": isrcs(2)}}
                answer = httpx.post(url + JOBS, json=body, headers={"x-api-key": client.key}, timeout=120)
                assert answer.json()["state"] == "queued"
        row = connection.execute("select state from measurement_jobs where id = %s", [answer.json()["id"]]).fetchone()
    assert row == {"state": "queued"}


def test_an_incomplete_body_is_not_a_request(api: RunningApi):
    client = api.client()
    body = b'{"source": "historical", "scope": {"isrcs": ["' + isrcs(1)[0].encode() + b'"]}}'
    where = httpx.URL(api.url)
    with socket.create_connection((where.host, where.port or 80)) as line:
        line.sendall(
            f"POST {JOBS} HTTP/1.1\r\nhost: x\r\nx-api-key: {client.key}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body) + 100}\r\n\r\n".encode()
            + body
        )
    with connect(api.config.database_url) as connection:
        assert client.submit({"isrcs": isrcs(1)}).status_code == 202
        assert connection.execute("select count(*) as n from measurement_jobs").fetchall() == [{"n": 1}]


def test_an_unexpected_error_is_a_500_with_the_request_id_of_the_logged_traceback(
    start_api: StartApi, caplog: pytest.LogCaptureFixture
):
    def decide(_account: object) -> Decision:
        raise ZeroDivisionError("a defect")

    api = start_api(decide=decide, cors_origins=("https://app.example",))
    headers = {"Origin": "https://app.example", "x-request-id": "mine"}
    body = {"source": "historical", "scope": {"isrcs": isrcs(1)}}
    answer = api.client().post(JOBS, json=body, headers=headers)
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "mine")
    assert answer.json()["error"].endswith("request id: mine")
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    (record,) = (one for one in caplog.records if one.exc_info)
    assert "mine" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_shutdown_waits_for_accepted_requests(api: RunningApi):
    account = api.client().account
    started, go_on = threading.Event(), threading.Event()

    def decide(_account: object) -> Decision:
        started.set()
        go_on.wait(120)
        return Decision(PaymentVerdict.ALLOWED, "a card")

    key = api.client(account).key
    with ThreadPoolExecutor(1) as threads:
        with serve(replace(api.config, decide=decide)) as url:
            future = threads.submit(
                httpx.post, url + JOBS, json={"source": "historical", "scope": {"isrcs": isrcs(2)}},
                headers={"x-api-key": key}, timeout=120,
            )  # fmt: skip
            assert started.wait(120)
            threading.Timer(0.3, go_on.set).start()
        answer = future.result()
    assert (answer.status_code, answer.json()["enqueued"]) == (202, 2)
    assert api.table.queue() == dict.fromkeys(isrcs(2), "pending")


def test_a_trailing_slash_is_not_redirected(api: RunningApi):
    answer = api.client().get(f"{JOBS}/", headers={"Host": "evil.example"})
    assert (answer.status_code, "location" in answer.headers) == (404, False)


def test_an_unknown_address_and_method_get_the_usual_error_body(api: RunningApi):
    missing, wrong = httpx.get(f"{api.url}/nothing"), httpx.put(api.url + JOBS)
    assert (missing.status_code, missing.json()["status"]) == (404, "error")
    assert (wrong.status_code, wrong.json()["status"]) == (405, "error")
    assert wrong.headers["Allow"]
