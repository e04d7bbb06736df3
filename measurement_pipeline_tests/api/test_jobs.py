"""Measurement jobs over HTTP: create, errors, idempotency, concurrency, show, list, withdraw, estimate."""

import json
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest
from psycopg import sql

from measurement_pipeline.api import submit
from measurement_pipeline.api.jobs import JOB_WITHDRAWN
from measurement_pipeline.domain.capture import NO_CAPTURES
from measurement_pipeline.domain.measurement_job import (
    BAD_SCOPE,
    BAD_SOURCE,
    MAX_REQUEST_BYTES,
    NOTHING_RESOLVED,
    TOO_LARGE,
    UNKNOWN_CATALOG,
)
from measurement_pipeline.domain.payment import Decision, PaymentState, PaymentVerdict
from measurement_pipeline.intake.process import check_payments, load_batch, process_batch
from measurement_pipeline.postgres import capture_series, conninfo, measurement_jobs, payment_decisions
from measurement_pipeline.postgres.database import Connection, connect
from measurement_pipeline_tests.api.conftest import JOBS, RunningApi, StartApi
from measurement_pipeline_tests.capture_limits import capture_limits
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.intake.conftest import isrcs

ALBUM = "0ETFjACtuP2ADo6LFhL6HN"


# --- create -------------------------------------------------------------------------------------------------------------


def test_a_historical_request_is_enqueued_before_the_response(api: RunningApi):
    client = api.client()
    answer = client.submit({"isrcs": isrcs(3)})
    assert answer.status_code == 202, answer.text
    job = answer.json()["id"]
    assert answer.json() == {
        "status": "success",
        "source": "historical",
        "id": job,
        "state": "accepted",
        "enqueued": 3,
        "skipped": 0,
        "links": {"self": f"{JOBS}/{job}"},
    }
    assert answer.headers["Location"] == f"{JOBS}/{job}"
    assert api.table.queue() == dict.fromkeys(isrcs(3), "pending")
    assert api.table.job(UUID(job))["account"] == client.account


def test_a_current_request_returns_its_cost_and_a_repeat_costs_nothing(api: RunningApi):
    client = api.client(card=False)
    first, second = (client.submit({"album_ids": [ALBUM]}, source="current").json() for _ in range(2))
    assert first == {
        "status": "success",
        "source": "current",
        "id": first["id"],
        "state": "accepted",
        "album_count": 1,
        "estimated_cost_usd": 0.003,
        "reused": False,
        "links": {"self": f"{JOBS}/{first['id']}"},
    }
    assert (second["estimated_cost_usd"], second["reused"]) == (0, True)
    assert second["id"] != first["id"]


def test_a_stored_recording_is_skipped_and_the_job_is_done(api: RunningApi):
    (song,) = isrcs(1)
    api.table.sql("insert into songs (isrc) values (%s)", song)
    api.table.measured(song, 10, source="songstats")
    body = api.client().submit({"isrcs": [song]}).json()
    assert (body["state"], body["enqueued"], body["skipped"]) == ("done", 0, 1)


@pytest.mark.parametrize(("card", "first", "second"), [(True, 2, 1), (False, 2, 2)])
def test_a_request_reads_the_payment_state_once_and_again_only_before_asking_stripe(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch, card: bool, first: int, second: int
):
    reads: list[list[UUID]] = []
    load_states = payment_decisions.load_states

    def count(connection: Connection, accounts: Iterable[UUID]) -> dict[UUID, PaymentState]:
        reads.append(list(accounts))
        return load_states(connection, reads[-1])

    monkeypatch.setattr(payment_decisions, "load_states", count)
    client = api.client(card=card)
    for expected in (first, second):
        reads.clear()
        client.submit({"isrcs": isrcs(1)})
        assert reads == [[client.account]] * expected


# --- errors -------------------------------------------------------------------------------------------------------------


def test_without_a_card_nothing_is_enqueued_until_a_card_is_saved(api: RunningApi):
    client = api.client(card=False)
    answer = client.submit({"isrcs": isrcs(2)})
    body = answer.json()
    assert answer.status_code == 402
    assert set(body) == {"status", "code", "error", "id", "state", "checkoutUrl"}
    assert (body["status"], body["state"]) == ("error", "payment_required")
    assert body["error"].startswith("No card is on file for this account.")
    assert body["checkoutUrl"].startswith("http")
    assert api.table.queue() == {}
    api.sandbox.card(str(client.account))
    batch = load_batch(api.config.database_url, unpaid=True)
    process_batch(api.config.database_url, batch, check_payments(batch, api.config.decide), run="reclaim")
    assert client.get(f"{JOBS}/{body['id']}").json()["state"] == "accepted"


def test_another_accounts_catalogue_is_an_error_and_no_card_is_requested(api: RunningApi):
    answer = api.client(card=False).submit({"catalog_id": str(uuid4())})
    assert (answer.status_code, answer.json()["error"]) == (400, UNKNOWN_CATALOG)


def test_a_capture_over_the_monthly_cap_is_a_429_until_the_month_ends(start_api: StartApi):
    client = start_api(capture_limits=capture_limits("0.002")).client()
    answer = client.submit({"album_ids": [ALBUM]}, source="current")
    assert answer.status_code == 429
    assert answer.json()["error"].startswith("The monthly cap of captures is reached: $0.00")
    assert 1 <= int(answer.headers["Retry-After"]) <= 31 * 86_400


def test_a_capture_larger_than_the_cap_asks_for_fewer_albums(start_api: StartApi):
    client = start_api(capture_limits=capture_limits("0.004")).client()
    albums = [ALBUM, "4MUSeRnhpSfkMqREFQ36mC"]
    assert client.submit({"album_ids": albums}, source="current").json()["error"].endswith("so ask for fewer albums")
    assert client.submit({"album_ids": albums[:1]}, source="current").status_code == 202
    assert client.submit({"album_ids": albums[1:]}, source="current").json()["error"].endswith("would cost $0.003")


def test_without_an_answer_from_stripe_no_job_is_inserted(start_api: StartApi):
    api = start_api(
        decide=lambda _: Decision(PaymentVerdict.UNKNOWN, "Stripe could not be reached.", retry_after_seconds=7.2)
    )
    answer = api.client().submit({"isrcs": isrcs(1)}, key="a")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "8")
    assert answer.json()["error"].startswith("Stripe could not be reached.")
    assert api.table.sql("select * from measurement_jobs") == []


def test_without_captures_a_current_request_is_a_503_and_inserts_no_job(start_api: StartApi):
    api = start_api(capture_limits=None)
    for path in (JOBS, f"{JOBS}/estimate"):
        answer = api.client().post(path, json={"source": "current", "scope": {"album_ids": [ALBUM]}})
        assert (answer.status_code, answer.json()["error"]) == (503, NO_CAPTURES)
        assert int(answer.headers["Retry-After"]) > 0
    assert api.table.sql("select * from measurement_jobs") == []


INVALID_BODIES = [
    (b"", "The body must be a JSON object"),
    (b"[]", "The body must be a JSON object"),
    (b"{", "The body is not valid JSON"),
    (b'{"scope": {"isrcs": ["GBUM72501895"]}}', BAD_SOURCE),
    (b'{"source": "historical"}', BAD_SCOPE),
    (b'{"source": "historical", "scope": {"isrcs": ["GBUM72501895"]}, "price": 0}', "Unknown field in the body: 'price'"),
    (b'{"source": "historical", "scope": {"isrcs": [NaN]}}', "Malformed in scope.isrcs"),
    (b'{"source": "current", "scope": {"album_ids": ["a\\u0000b"]}}', "Malformed in scope.album_ids"),
    (b'{"source": "current", "scope": {"album_ids": ["\\ud800"]}}', "Malformed in scope.album_ids"),
    (b'{"source": "current", "scope": ' + b"[" * 100_000, "The body is not valid JSON"),
    (b'{"source": ' + b"9" * 5_000 + b"}", "The body is not valid JSON"),
]  # fmt: skip


def test_an_invalid_body_is_a_400_and_inserts_no_job(api: RunningApi):
    client = api.client()
    for body, expected in INVALID_BODIES:
        answer = client.post(JOBS, content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["status"]) == (400, "error"), body[:80]
        assert expected in answer.json()["error"], body[:80]
    assert api.table.sql("select * from measurement_jobs") == []


def test_a_body_with_another_content_type_is_a_400(api: RunningApi):
    body = b'{"source": "historical", "scope": {"isrcs": ["GBUM72501895"]}}'
    answer = api.client().post(JOBS, content=body, headers={"content-type": "text/plain"})
    assert (answer.status_code, "sent as application/json" in answer.json()["error"]) == (400, True)
    assert api.table.sql("select * from measurement_jobs") == []


def test_a_list_has_at_most_ten_thousand_items(api: RunningApi):
    client = api.client()
    answer = client.submit({"isrcs": isrcs(10_001)})
    assert (answer.status_code, "got 10,001" in answer.json()["error"]) == (400, True)
    assert client.submit({"isrcs": isrcs(10_000)}).json()["enqueued"] == 10_000


def test_a_scope_that_is_too_large_for_the_table_is_a_413_and_inserts_no_job(api: RunningApi):
    body = json.dumps({"source": "historical", "scope": {"album_ids": ["a" * 101] * 10_000}}, separators=(",", ":"))
    assert len(body) < MAX_REQUEST_BYTES
    answer = api.client().post(JOBS, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (413, TOO_LARGE)
    assert api.table.sql("select * from measurement_jobs") == []


def test_the_list_omits_long_scopes_and_the_job_itself_shows_them(api: RunningApi):
    client = api.client()
    short, long = {"isrcs": isrcs(1)}, {"isrcs": isrcs(2_000)}
    requested = {client.submit(scope).json()["id"]: scope for scope in (short, long)}
    listed = {job["id"]: job["scope"] for job in client.get(JOBS).json()["jobs"]}
    assert [listed[job] for job in requested] == [short, None]
    assert [client.get(f"{JOBS}/{job}").json()["scope"] for job in requested] == [short, long]


# --- idempotency --------------------------------------------------------------------------------------------------------


def test_the_same_key_and_body_is_the_same_job_in_any_spelling(api: RunningApi):
    client = api.client()
    first = client.submit({"isrcs": isrcs(2)}, key="k")
    second = client.post(
        JOBS,
        content=f'{{ "scope":{{"isrcs":["{isrcs(2)[0]}",  "{isrcs(2)[1]}"],"album_ids":null}},"source":"historical" }}',
        headers={"content-type": "application/json", "Idempotency-Key": "k"},
    )
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert (
        client.submit({"isrcs": [f"{song[:2]}-{song[2:]}".lower() for song in isrcs(2)]}, key="k").json()
        == first.json()
    )
    assert len(api.table.sql("select * from measurement_jobs")) == 1


def test_two_keys_on_one_request_are_a_400(api: RunningApi):
    body = {"source": "historical", "scope": {"isrcs": isrcs(1)}}
    answer = api.client().post(JOBS, json=body, headers=[("Idempotency-Key", "k"), ("Idempotency-Key", "l")])
    assert (answer.status_code, answer.json()["error"]) == (400, "Idempotency-Key: expected one, got 2")
    assert api.table.sql("select * from measurement_jobs") == []


def test_another_body_with_the_same_key_is_a_409_and_keys_belong_to_accounts(api: RunningApi):
    client, other = api.client(), api.client()
    job = client.submit({"isrcs": isrcs(2)}, key="k").json()["id"]
    answer = client.submit({"isrcs": isrcs(1)}, key="k")
    assert (answer.status_code, answer.json()["error"], answer.json()["id"]) == (409, submit.KEY_REUSED, job)
    assert other.submit({"isrcs": isrcs(1)}, key="k").status_code == 202


def test_a_key_answered_with_402_is_answered_with_202_after_the_card_is_saved(api: RunningApi):
    client = api.client(card=False)
    assert client.submit({"isrcs": isrcs(1)}, key="k").status_code == 402
    api.sandbox.card(str(client.account))
    batch = load_batch(api.config.database_url, unpaid=True)
    process_batch(api.config.database_url, batch, check_payments(batch, api.config.decide), run="reclaim")
    answer = client.submit({"isrcs": isrcs(1)}, key="k")
    assert (answer.status_code, answer.json()["state"], answer.json()["enqueued"]) == (202, "accepted", 1)


def test_a_key_answered_with_429_can_be_used_again(start_api: StartApi):
    api = start_api(capture_limits=capture_limits("0.003"))
    client = api.client()
    other = client.submit({"album_ids": ["4MUSeRnhpSfkMqREFQ36mC"]}, source="current").json()["id"]
    for _ in range(2):
        assert client.submit({"album_ids": [ALBUM]}, source="current", key="k").status_code == 429
    client.delete(f"{JOBS}/{other}")
    first, second = (client.submit({"album_ids": [ALBUM]}, source="current", key="k") for _ in range(2))
    assert (first.status_code, first.json()["state"]) == (202, "accepted")
    assert first.json() == second.json()


def test_concurrent_requests_over_the_cap_each_get_an_answer(start_api: StartApi):
    client = start_api(capture_limits=capture_limits("0.002")).client()
    with ThreadPoolExecutor(30) as threads:
        answers = list(
            threads.map(lambda _: client.submit({"album_ids": [ALBUM]}, source="current", key="k"), range(120))
        )
    # A request that arrives while another is being processed gets the state queued.
    assert {answer.status_code for answer in answers} <= {429, 202}
    assert 429 in {answer.status_code for answer in answers}


def test_the_key_of_a_request_that_expired_unpaid_can_be_used_again(api: RunningApi):
    client = api.client(card=False)
    first = client.submit({"isrcs": isrcs(1)}, key="k").json()["id"]
    api.table.sql("update measurement_jobs set state = 'rejected', created_at = now() - interval '8 days'")
    api.sandbox.card(str(client.account))
    api.table.sql("delete from payment_decisions")
    answer = client.submit({"isrcs": isrcs(1)}, key="k")
    assert (answer.status_code, answer.json()["id"] == first) == (202, False)


def test_the_key_of_a_failed_or_withdrawn_job_returns_an_error(api: RunningApi):
    client = api.client()
    failed = client.submit({"isrcs": isrcs(1)}, key="failed").json()["id"]
    gone = client.submit({"isrcs": isrcs(1)}, key="gone").json()["id"]
    api.table.sql(
        "update measurement_jobs set state = 'failed', status_code = 500, error = 'it broke' where id = %s", failed
    )
    client.delete(f"{JOBS}/{gone}")
    answer = client.submit({"isrcs": isrcs(1)}, key="failed")
    assert (answer.status_code, answer.json()) == (
        500, {"status": "error", "code": "job_failed", "error": "it broke", "id": failed, "state": "failed"},
    )  # fmt: skip
    answer = client.submit({"isrcs": isrcs(1)}, key="gone")
    assert (answer.status_code, answer.json()) == (
        409, {"status": "error", "code": "job_withdrawn", "error": JOB_WITHDRAWN, "id": gone, "state": "withdrawn"},
    )  # fmt: skip


def test_an_idempotency_key_is_1_to_255_printable_characters(api: RunningApi):
    client = api.client()
    for key in ("", "a" * 256, "two words", "caf\u00e9".encode("latin-1")):
        answer = client.post(
            JOBS,
            json={"source": "historical", "scope": {"isrcs": isrcs(1)}},
            headers={"Idempotency-Key": key},  # type: ignore[dict-item]
        )
        assert answer.status_code == 400, key
        assert answer.json()["error"].startswith("Idempotency-Key: expected 1 to 255 printable ASCII characters"), key


def test_sixty_concurrent_requests_with_one_key_are_one_job(api: RunningApi):
    client = api.client()
    with ThreadPoolExecutor(30) as threads:
        answers = list(threads.map(lambda _: client.submit({"isrcs": isrcs(5)}, key="k"), range(60)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert api.table.queue() == dict.fromkeys(isrcs(5), "pending")


def test_concurrent_requests_succeed_with_serializable_transactions(database_url: str, start_api: StartApi):
    name = conninfo.parse(database_url)["dbname"]
    with connect(database_url) as connection:
        serializable = sql.SQL("alter database {} set default_transaction_isolation = serializable")
        connection.execute(serializable.format(sql.Identifier(name)))
    client = start_api().client()
    with ThreadPoolExecutor(40) as threads:
        answers = list(threads.map(lambda _: client.submit({"isrcs": isrcs(5)}), range(40)))
    assert {answer.status_code for answer in answers} == {202}


def test_sixty_concurrent_requests_without_a_key_are_sixty_jobs_and_one_row_per_recording(api: RunningApi):
    client = api.client()
    with ThreadPoolExecutor(30) as threads:
        answers = list(threads.map(lambda _: client.submit({"isrcs": isrcs(5)}), range(60)))
    assert {answer.status_code for answer in answers} == {202}
    assert api.table.queue() == dict.fromkeys(isrcs(5), "pending")
    enqueued = api.table.sql("select sum(enqueued) as n, count(*) as jobs from measurement_jobs")
    assert enqueued == [{"n": 5, "jobs": 60}]


# --- timeouts and concurrency -------------------------------------------------------------------------------------------


def test_if_stripe_is_slow_the_sensors_run_processes_the_request_once(start_api: StartApi):
    answered = threading.Event()

    def decide(_account: UUID) -> Decision:
        answered.wait(120)
        return Decision(PaymentVerdict.ALLOWED, "a card")

    api = start_api(decide=decide, answer_within_seconds=0.3)
    try:
        answer = api.client().submit({"isrcs": isrcs(2)})
        body = answer.json()
        assert (answer.status_code, body["state"], body["enqueued"], body["skipped"]) == (202, "queued", None, None)
        batch = load_batch(api.config.database_url)
        process_batch(
            api.config.database_url,
            batch,
            check_payments(batch, lambda _: Decision(PaymentVerdict.ALLOWED, "a card")),
            run="sensor",
        )
    finally:
        answered.set()
    assert api.table.receipt(UUID(body["id"])) == (2, 2, 0, 0)
    assert api.table.job(UUID(body["id"]))["run_id"] == "sensor"


def test_an_error_after_the_response_is_logged(start_api: StartApi, caplog: pytest.LogCaptureFixture):
    go_on = threading.Event()

    def decide(_account: UUID) -> Decision:
        go_on.wait(120)
        raise ZeroDivisionError("a defect")

    api = start_api(decide=decide, answer_within_seconds=0.3)
    assert api.client().submit({"isrcs": isrcs(1)}).json()["state"] == "queued"
    go_on.set()
    wait_until(lambda: any(one.exc_info for one in caplog.records), what="the failure to be logged")


def test_stripe_is_not_asked_for_a_client_that_has_its_response(start_api: StartApi):
    answered, accounts = threading.Event(), []

    def decide(account: UUID) -> Decision:
        accounts.append(account)
        answered.wait(120)
        return Decision(PaymentVerdict.ALLOWED, "a card")

    api = start_api(decide=decide, answer_within_seconds=1.0)
    clients = [api.client() for _ in range(20)]
    try:
        with ThreadPoolExecutor(20) as threads:
            states = list(threads.map(lambda client: client.submit({"isrcs": isrcs(1)}).json()["state"], clients))
    finally:
        answered.set()
    assert states == ["queued"] * 20
    client = api.client()
    assert client.submit({"isrcs": isrcs(1)}).json()["state"] == "accepted"
    assert len(accounts) <= 8 + 1, "one per thread, and the last"


def test_slow_processing_continues_after_the_response(start_api: StartApi):
    api = start_api(answer_within_seconds=1.0)
    client = api.client()
    client.submit({"isrcs": isrcs(1)})  # so that Stripe is not asked again
    with connect(api.config.database_url) as connection, connection.transaction():
        connection.execute("lock table measurement_job_songs in exclusive mode")
        body = client.submit({"isrcs": isrcs(2)}).json()
        assert (body["state"], body["enqueued"]) == ("queued", None)
    wait_until(
        lambda: client.get(f"{JOBS}/{body['id']}").json()["state"] == "accepted",
        what="the request to be processed",
    )


def test_the_sensors_run_and_the_api_process_each_request_once(api: RunningApi):
    client = api.client()
    stop = threading.Event()

    def sensor() -> None:
        while not stop.is_set():
            batch = load_batch(api.config.database_url)
            process_batch(api.config.database_url, batch, check_payments(batch, api.config.decide), run="sensor")

    with ThreadPoolExecutor(12) as threads:
        run = threads.submit(sensor)
        answers = list(threads.map(lambda n: client.submit({"isrcs": isrcs(3, start=n)}), range(60)))
        stop.set()
        run.result()
    assert {answer.status_code for answer in answers} == {202}
    jobs = api.table.sql("select state, attempts, asked from measurement_jobs")
    assert {(job["state"], job["attempts"], job["asked"]) for job in jobs} == {("accepted", 0, 3)}
    assert api.table.sql("select sum(enqueued) as n from measurement_jobs") == [{"n": 62}]
    assert len(api.table.queue()) == 62


# --- show, list, withdraw, estimate -------------------------------------------------------------------------------------


def test_a_job_is_shown_with_progress_outcomes_and_receipt(api: RunningApi):
    client = api.client()
    job = client.submit({"isrcs": isrcs(4)}).json()["id"]
    for song, outcome in zip(isrcs(3), ("stored", "no_history", "malformed"), strict=True):
        api.table.settle_row(song, outcome)
    api.table.sql(
        "insert into songstats_quota_ledger (song, account, job, run_id, lease, settled_at, billable, reason)"
        " select isrc, %s, %s, 'r', 1, now(), true, 'stored' from songs limit 2",
        client.account,
        job,
    )
    body = client.get(f"{JOBS}/{job}").json()
    assert body["progress"] == {"settled": 3, "asked": 4}
    assert body["outcomes"] == {"stored": 1, "no_history": 1, "rejected": 0, "failed": 1}
    assert body["receipt"] == {"hits": 2, "eur": 0.17}
    assert (body["scope"], body["source"], body["capture"]) == ({"isrcs": isrcs(4)}, "historical", None)
    assert body["paused"] is None


def test_a_job_that_an_operator_paused_says_why_and_until_when(api: RunningApi):
    client = api.client()
    job = client.submit({"isrcs": isrcs(1)}).json()["id"]
    api.table.sql(
        "insert into purchase_pauses (vendor, reason, paused_by, paused_until) values ('songstats', 'why', 'bob', '2999-01-01')"
    )
    assert client.get(f"{JOBS}/{job}").json()["paused"] == {"reason": "why", "until": "2999-01-01T00:00:00Z"}


def test_a_current_job_is_shown_with_its_capture(api: RunningApi):
    client = api.client()
    job = client.submit({"album_ids": [ALBUM]}, source="current").json()["id"]
    capture = client.get(f"{JOBS}/{job}").json()["capture"]
    assert (capture["state"], capture["album_count"], capture["estimated_cost_usd"]) == ("queued", 1, 0.003)


def test_recordings_without_an_album_are_reported_in_the_response_and_the_job(api: RunningApi):
    api.table.sql("insert into songs (isrc) select unnest(%s::text[])", isrcs(2))
    api.table.sql("insert into song_identifiers values (%s, 'spotify', 'album_id', %s)", isrcs(1)[0], ALBUM)
    client = api.client()
    body = client.submit({"isrcs": isrcs(2)}, source="current").json()
    words = "1 of 2 recordings has no known album"
    assert (body["state"], body["album_count"], body["skipped"], body["error"]) == ("accepted", 1, 1, words)
    job_body = client.get(f"{JOBS}/{body['id']}").json()
    assert (job_body["asked"], job_body["skipped"], job_body["error"]) == (2, 1, words)
    assert job_body["progress"] == {"settled": 0, "asked": None}, "a capture is not settled recording by recording"


def test_the_list_is_paginated_newest_first_without_duplicates(api: RunningApi):
    client = api.client()
    jobs = [client.submit({"isrcs": isrcs(1)}).json()["id"] for _ in range(5)]
    result: list[str] = []
    cursor = None
    while True:
        page = client.get(JOBS, params={"limit": 2} | ({} if cursor is None else {"cursor": cursor})).json()
        result += [job["id"] for job in page["jobs"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert result == jobs[::-1]


def test_an_invalid_cursor_is_a_400(api: RunningApi):
    client = api.client()
    catalog = api.table.catalogue(isrcs(1), account=client.account)
    for cursor in ("x", "W10", "WyJhIiwiYiJd", "é", "bnVsbA"):
        for address in (JOBS, f"/api/catalogs/{catalog}/measurements"):
            assert client.get(address, params={"cursor": cursor}).status_code == 400, (address, cursor)


def test_jobs_inserted_into_the_table_are_listed_with_any_content(api: RunningApi):
    client = api.client()
    api.table.sql(
        "insert into measurement_jobs (account, source, scope) values (%s, null, ('[' || repeat('9', 400) || '.5]')::jsonb)",
        client.account,
    )
    api.table.sql(
        "insert into measurement_jobs (account, source, scope) values (%s, 'historical', null)", client.account
    )
    jobs = client.get(JOBS).json()["jobs"]
    assert [(job["source"], job["scope"]) for job in jobs] == [("historical", None), (None, None)]
    assert {client.get(job["links"]["self"]).status_code for job in jobs} == {200}


def test_withdrawing_removes_only_recordings_that_no_other_job_requests(api: RunningApi):
    client, other = api.client(), api.client()
    job = client.submit({"isrcs": isrcs(3)}).json()["id"]
    other.submit({"isrcs": isrcs(1)})
    for _ in range(2):
        answer = client.delete(f"{JOBS}/{job}")
        assert (answer.status_code, answer.json()) == (200, {"status": "success", "id": job, "state": "withdrawn"})
    payable = {row["song"] for row in api.table.sql("select song from songstats_payers(null)")}
    assert payable == set(isrcs(1))


def test_a_finished_job_cannot_be_withdrawn(api: RunningApi):
    (song,) = isrcs(1)
    api.table.sql("insert into songs (isrc) values (%s)", song)
    api.table.measured(song, 10, source="songstats")
    client = api.client()
    job = client.submit({"isrcs": [song]}).json()["id"]
    answer = client.delete(f"{JOBS}/{job}")
    assert (answer.status_code, answer.json()["state"]) == (409, "done")


def test_withdrawing_the_last_job_cancels_the_capture_and_ends_its_series(api: RunningApi):
    client = api.client()
    first = client.submit({"album_ids": [ALBUM]}, source="current", schedule="monthly").json()["id"]
    second = client.submit({"album_ids": [ALBUM]}, source="current", schedule="monthly").json()["id"]
    assert client.delete(f"{JOBS}/{first}").status_code == 200
    state = "select state, stopped_at is null as goes_on from playcount_snapshots, playcount_series"
    assert api.table.sql(state) == [{"state": "queued", "goes_on": True}]
    assert client.delete(f"{JOBS}/{second}").status_code == 200
    assert api.table.sql(state) == [{"state": "failed", "goes_on": False}]


def test_a_monthly_job_with_a_finished_capture_can_be_withdrawn(api: RunningApi):
    client = api.client()
    job = client.submit({"album_ids": [ALBUM]}, source="current", schedule="monthly").json()["id"]
    once = client.submit({"album_ids": [ALBUM]}, source="current").json()["id"]
    api.table.sql("update playcount_snapshots set state = 'done'")
    api.table.sql("update measurement_jobs set state = 'done'")
    assert client.delete(f"{JOBS}/{once}").status_code == 409
    assert client.delete(f"{JOBS}/{job}").json()["state"] == "withdrawn"
    assert api.table.sql("select state, stopped_at is null as goes_on from playcount_snapshots, playcount_series") == [
        {"state": "done", "goes_on": False}
    ]


@pytest.mark.parametrize("status", [500, 404])
def test_a_failed_monthly_job_can_be_withdrawn_while_its_series_is_active(api: RunningApi, status: int):
    client = api.client()
    job = client.submit({"album_ids": [ALBUM]}, source="current", schedule="monthly").json()["id"]
    api.table.sql(
        "update playcount_snapshots set state = 'failed', error = 'no', status_code = %s,"
        " created_at = now() - interval '31 days'",
        status,
    )
    with connect(api.config.database_url) as connection:
        measurement_jobs.settle(connection)
        assert len(capture_series.list_due(connection)) == 1
        assert client.delete(f"{JOBS}/{job}").json()["state"] == "withdrawn"
        assert capture_series.list_due(connection) == []


def test_a_job_from_before_an_operator_stopped_the_series_does_not_keep_it_active(api: RunningApi):
    client = api.client()
    monthly = {"source": "current", "schedule": "monthly"}
    client.submit({"album_ids": [ALBUM]}, **monthly)
    api.table.sql("update playcount_snapshots set state = 'done', created_at = now() - interval '2 hours'")
    with connect(api.config.database_url) as connection:
        measurement_jobs.settle(connection)
        capture_series.stop(connection, api.table.sql("select id from playcount_series")[0]["id"])
    again = client.submit({"album_ids": [ALBUM]}, **monthly).json()["id"]
    going = "select count(*) as n from playcount_series where stopped_at is null"
    assert api.table.sql(going) == [{"n": 1}]
    assert client.delete(f"{JOBS}/{again}").status_code == 200
    assert api.table.sql(going) == [{"n": 0}]
    assert api.table.sql("select state from playcount_snapshots order by created_at") == [
        {"state": "done"},
        {"state": "failed"},
    ]


def test_withdrawing_cancels_the_next_capture_of_the_series(api: RunningApi):
    client = api.client()
    job = client.submit({"album_ids": [ALBUM]}, source="current", schedule="monthly").json()["id"]
    api.table.sql("update playcount_snapshots set state = 'done', created_at = now() - interval '31 days'")
    with connect(api.config.database_url) as connection:
        measurement_jobs.settle(connection)
        ((series, due),) = capture_series.list_due(connection)
        capture_series.start_if_due(connection, series, due, limits=capture_limits())
    assert client.delete(f"{JOBS}/{job}").status_code == 200
    assert api.table.sql("select state from playcount_snapshots order by created_at") == [
        {"state": "done"},
        {"state": "failed"},
    ]


def test_two_concurrent_withdrawals_end_the_series(api: RunningApi):
    for _ in range(10):
        client = api.client()
        jobs = [
            client.submit({"album_ids": [ALBUM]}, source="current", schedule="monthly").json()["id"] for _ in range(2)
        ]
        with ThreadPoolExecutor(2) as threads:
            answers = list(threads.map(lambda job, of=client: of.delete(f"{JOBS}/{job}").status_code, jobs))
        assert answers == [200, 200]
    assert api.table.sql("select count(*) as n from playcount_series where stopped_at is null") == [{"n": 0}]


def test_a_withdrawal_concurrent_with_a_new_request_keeps_the_series(api: RunningApi):
    for _ in range(20):
        client = api.client()
        job = client.submit({"album_ids": [ALBUM]}, source="current", schedule="monthly").json()["id"]
        with ThreadPoolExecutor(2) as threads:
            requested = threads.submit(client.submit, {"album_ids": [ALBUM]}, source="current", schedule="monthly")
            gone = threads.submit(client.delete, f"{JOBS}/{job}")
        assert (gone.result().status_code, requested.result().json()["state"]) == (200, "accepted")
    assert api.table.sql("select count(*) as n from playcount_series where stopped_at is null") == [{"n": 20}]


def test_an_estimate_equals_submit_estimate_and_enqueues_nothing(api: RunningApi):
    client = api.client()
    body = client.post(f"{JOBS}/estimate", json={"source": "historical", "scope": {"isrcs": isrcs(3)}}).json()
    assert body.pop("earliest_completion") <= body.pop("estimated_completion") <= body.pop("latest_completion")
    assert body == {
        "status": "success", "source": "historical", "asked": 3, "owned": 0, "queued": 0, "hits": 3, "eur": 0.25, "days": 0,
        "hits_left_now": 900, "hits_allowed_in_30_days": 900, "left_out": 0, "covered": None, "value": [], "imported": 0,
    }  # fmt: skip
    body = client.post(f"{JOBS}/estimate", json={"source": "current", "scope": {"album_ids": [ALBUM]}}).json()
    assert body == {
        "status": "success", "source": "current", "albums": 1, "cost_usd": 0.003, "reused": False, "spent_usd_this_month": 0.0,
        "cap_usd": 25.0, "over_cap": False,
    }  # fmt: skip
    assert api.table.sql("select * from measurement_jobs") == []


def test_an_estimate_of_an_empty_scope_gets_the_message_of_intake(api: RunningApi):
    client = api.client()
    for scope, expected in (
        ({"catalog_id": str(uuid4())}, UNKNOWN_CATALOG),
        ({"album_ids": ["nothing"]}, NOTHING_RESOLVED),
    ):
        answer = client.post(f"{JOBS}/estimate", json={"source": "historical", "scope": scope})
        assert (answer.status_code, answer.json()["error"]) == (400, expected)


def test_the_payment_state_is_read_once_or_twice_if_stripe_is_asked(api: RunningApi, monkeypatch: pytest.MonkeyPatch):
    reads = []
    load_states = payment_decisions.load_states
    monkeypatch.setattr(payment_decisions, "load_states", lambda *given: reads.append(given) or load_states(*given))
    assert api.client(card=False).submit({"isrcs": isrcs(1)}).status_code == 402
    assert len(reads) == 2, "before the request waits for a thread, and before it asks Stripe"
    client = api.client()
    client.submit({"isrcs": isrcs(1)})
    reads.clear()
    assert client.submit({"isrcs": isrcs(1)}).status_code == 202
    assert len(reads) == 1


def test_a_client_sees_what_hits_are_worth_and_asks_for_the_part_that_matters(api: RunningApi):
    songs = isrcs(3)
    api.table.sql("insert into songs (isrc) select unnest(%s::text[])", songs)
    for song, count in zip(songs, (60, 30, 10), strict=True):
        api.table.measured(song, count)
    client = api.client()
    body = {"source": "historical", "scope": {"isrcs": songs}, "coverage": 0.85}
    estimate = client.post(f"{JOBS}/estimate", json=body).json()
    assert (estimate["hits"], estimate["left_out"], estimate["covered"]) == (2, 1, 0.9)
    assert estimate["value"] == [{"hits": 2, "coverage": 0.9}]
    job = client.post(JOBS, json=body).json()["id"]
    shown = client.get(f"{JOBS}/{job}").json()
    assert (shown["asked"], shown["left_out"], shown["covered"]) == (2, 1, 0.9)
    assert (shown["limit"], shown["coverage"]) == (None, 0.85)
    assert shown["value"] == [{"hits": 2, "coverage": 0.9}]
    refused = client.post(JOBS, json={**body, "limit": 1})
    assert (refused.status_code, refused.json()["error"]) == (400, "Provide at most one of limit / coverage")
