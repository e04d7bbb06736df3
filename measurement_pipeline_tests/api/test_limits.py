"""What one client may take, what is said when something is away, and how it ends."""

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
from measurement_pipeline_tests.api.conftest import JOBS, Front, Open, listening
from measurement_pipeline_tests.intake.conftest import isrcs


def test_each_account_has_its_own_allowance_and_is_told_when_it_has_more(open_front: Open):
    front = open_front(requests_per_minute=2)
    client, other = front.client(), front.client()
    assert [client.get(JOBS).status_code for _ in range(3)] == [200, 200, 429]
    refused = client.get(JOBS)
    assert 1 <= int(refused.headers["Retry-After"]) <= 30
    assert refused.json() == {
        "status": "error",
        "code": "rate_limited",
        "error": "Too many requests of this account: 2 a minute are allowed",
    }
    assert other.get(JOBS).status_code == 200


def test_an_allowance_fills_steadily_and_no_further_than_a_minute():
    clock = [0.0]
    allowance = RateLimiter(60, now=lambda: clock[0])
    account = uuid4()
    assert [allowance.acquire(account) for _ in range(60)] == [None] * 60
    assert allowance.acquire(account) == 1.0
    clock[0] = 0.5
    assert allowance.acquire(account) == 0.5
    clock[0] = 1.0
    assert allowance.acquire(account) is None
    clock[0] = 10_000.0
    assert [allowance.acquire(account) for _ in range(61)].count(None) == 60


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_long_is_a_413(front: Front, announced: bool):
    client = front.client()
    body = b'"' + b"x" * MAX_REQUEST_BYTES + b'"'
    content = body if announced else (body[at : at + 65_536] for at in range(0, len(body), 65_536))
    answer = client.post(JOBS, content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["status"]) == (413, "error")


def test_a_body_that_does_not_come_is_a_408(open_front: Open):
    front = open_front(body_within_seconds=0.2)
    host, port = front.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=120) as line:
        line.sendall(f"POST {JOBS} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{{".encode())
        answer = line.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"status": "error"' in answer


def test_pages_of_other_origins_may_call_it_only_where_that_is_set(open_front: Open):
    asks = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    closed, opened = open_front(), open_front(cors_origins=["https://app.example"])
    assert "access-control-allow-origin" not in httpx.get(f"{closed.url}/healthz", headers=asks).headers
    assert httpx.options(f"{closed.url}{JOBS}", headers=asks).status_code == 405
    allowed = httpx.options(f"{opened.url}{JOBS}", headers=asks)
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, "https://app.example")
    other = httpx.options(f"{opened.url}{JOBS}", headers={**asks, "Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


def test_where_the_database_is_away_it_lives_and_is_not_ready_and_neither_says_yes_nor_no(open_front: Open):
    front = open_front(database_url="postgresql://nobody@127.0.0.1:1/nothing", database_within_seconds=0.3)
    assert httpx.get(f"{front.url}/healthz").json() == {"status": "success"}
    for answer in (
        httpx.get(f"{front.url}/readyz"),
        httpx.post(front.url + JOBS, json={}, headers={"x-api-key": "mp_aaaaaaaa_" + "a" * 43}),
    ):
        assert (answer.status_code, answer.json()["error"]) == (503, DATABASE_UNAVAILABLE)
        assert int(answer.headers["Retry-After"]) > 0


def test_it_is_ready_once_the_database_answers(front: Front):
    assert httpx.get(f"{front.url}/readyz").status_code == 200


def test_connections_that_were_cut_cost_no_request(front: Front):
    client = front.client()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: client.get(JOBS), range(16)))
    front.table.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname = current_database()"
    )
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: client.get(JOBS).status_code, range(16)))
    assert set(answers) == {200}


def test_a_read_that_takes_too_long_is_given_up(open_front: Open):
    front = open_front(read_within_seconds=0.3)
    client = front.client()
    front.table.catalogue(isrcs(1), account=client.account)
    with connect(front.desk.database_url) as connection, connection.transaction():
        connection.execute("lock table song_measurements in access exclusive mode")
        answer = client.get(f"/api/research/tracks/{isrcs(1)[0]}/measurements")
    assert (answer.status_code, answer.json()["error"]) == (503, READ_TIMEOUT)
    assert client.get(f"/api/research/tracks/{isrcs(1)[0]}/measurements").status_code == 200


def test_nothing_that_a_client_asks_about_its_jobs_waits_for_a_lock_for_good(open_front: Open):
    front = open_front(read_within_seconds=0.3)
    client = front.client()
    job = client.ask({"isrcs": isrcs(1)}).json()["id"]
    body = {"source": "historical", "scope": {"isrcs": isrcs(1)}}
    with connect(front.desk.database_url) as connection, connection.transaction():
        connection.execute("lock table measurement_jobs, songstats_backfill_queue in access exclusive mode")
        for method, path in (("GET", ""), ("GET", f"/{job}"), ("DELETE", f"/{job}"), ("POST", "/estimate")):
            answer = client.request(method, JOBS + path, json=body if method == "POST" else None)
            expected = JOB_LOCKED if method == "DELETE" else READ_TIMEOUT
            assert (answer.status_code, answer.json()["error"]) == (503, expected), path
    assert client.get(f"{JOBS}/{job}").json()["state"] == "accepted", "a withdrawal that was given up changed nothing"


def test_a_request_that_was_taken_before_an_answer_took_too_long_is_not_said_to_have_changed_nothing(open_front: Open):
    front = open_front(read_within_seconds=1.0, answer_within_seconds=1.0)
    client = front.client()
    client.ask({"isrcs": isrcs(1)})
    with connect(front.desk.database_url) as connection, connection.transaction():
        # What the answer is read from, and intake is not.
        connection.execute("lock table playcount_snapshots in access exclusive mode")
        answer = client.ask({"isrcs": isrcs(2)})
    assert (answer.status_code, answer.json()["error"]) == (503, DATABASE_UNAVAILABLE)


def test_an_intake_that_waits_for_a_lock_keeps_nothing_from_ending(front: Front):
    client = front.client()
    client.ask({"isrcs": isrcs(1)})
    with connect(front.desk.database_url) as connection:
        with connection.transaction():
            connection.execute("lock table measurement_job_songs in access exclusive mode")
            with listening(replace(front.desk, answer_within_seconds=0.5)) as url:
                body = {"source": "historical", "scope": {"isrcs": isrcs(2)}}
                answer = httpx.post(url + JOBS, json=body, headers={"x-api-key": client.key}, timeout=120)
                assert answer.json()["state"] == "queued"
        row = connection.execute("select state from measurement_jobs where id = %s", [answer.json()["id"]]).fetchone()
    assert row == {"state": "queued"}


def test_a_body_that_was_cut_off_is_no_request(front: Front):
    client = front.client()
    body = b'{"source": "historical", "scope": {"isrcs": ["' + isrcs(1)[0].encode() + b'"]}}'
    where = httpx.URL(front.url)
    with socket.create_connection((where.host, where.port or 80)) as line:
        line.sendall(
            f"POST {JOBS} HTTP/1.1\r\nhost: x\r\nx-api-key: {client.key}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body) + 100}\r\n\r\n".encode()
            + body
        )
    with connect(front.desk.database_url) as connection:
        assert client.ask({"isrcs": isrcs(1)}).status_code == 202
        assert connection.execute("select count(*) as n from measurement_jobs").fetchall() == [{"n": 1}]


def test_a_defect_is_a_500_with_an_id_that_the_log_has_beside_its_traceback(
    open_front: Open, caplog: pytest.LogCaptureFixture
):
    def decide(_account: object) -> Decision:
        raise ZeroDivisionError("a defect")

    front = open_front(decide=decide, cors_origins=("https://app.example",))
    headers = {"Origin": "https://app.example", "x-request-id": "mine"}
    body = {"source": "historical", "scope": {"isrcs": isrcs(1)}}
    answer = front.client().post(JOBS, json=body, headers=headers)
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "mine")
    assert answer.json()["error"].endswith("Tell us its id: mine")
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    (record,) = (one for one in caplog.records if one.exc_info)
    assert "mine" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_it_finishes_what_it_accepted_before_it_ends(front: Front):
    account = front.client().account
    begun, go_on = threading.Event(), threading.Event()

    def decide(_account: object) -> Decision:
        begun.set()
        go_on.wait(120)
        return Decision(PaymentVerdict.ALLOWED, "a card")

    key = front.client(account).key
    with ThreadPoolExecutor(1) as threads:
        with listening(replace(front.desk, decide=decide)) as url:
            waiting = threads.submit(
                httpx.post, url + JOBS, json={"source": "historical", "scope": {"isrcs": isrcs(2)}},
                headers={"x-api-key": key}, timeout=120,
            )  # fmt: skip
            assert begun.wait(120)
            threading.Timer(0.3, go_on.set).start()
        answer = waiting.result()
    assert (answer.status_code, answer.json()["enqueued"]) == (202, 2)
    assert front.table.queue() == dict.fromkeys(isrcs(2), "pending")


def test_a_slash_too_many_is_an_unknown_address_and_leads_nowhere(front: Front):
    answer = front.client().get(f"{JOBS}/", headers={"Host": "evil.example"})
    assert (answer.status_code, "location" in answer.headers) == (404, False)


def test_an_unknown_address_and_method_are_refused_like_everything_else(front: Front):
    missing, wrong = httpx.get(f"{front.url}/nothing"), httpx.put(front.url + JOBS)
    assert (missing.status_code, missing.json()["status"]) == (404, "error")
    assert (wrong.status_code, wrong.json()["status"]) == (405, "error")
    assert wrong.headers["Allow"]
