"""Measurement jobs over HTTP: taken, refused, shown, listed, withdrawn, priced."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
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
from measurement_pipeline.domain.payment import Decision, PaymentVerdict
from measurement_pipeline.intake.process import ask_about_payment, load_batch, process_batch
from measurement_pipeline.postgres import capture_series, conninfo, measurement_jobs
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.api.conftest import JOBS, Front, Open
from measurement_pipeline_tests.faults.waiting import until
from measurement_pipeline_tests.intake.conftest import isrcs

ALBUM = "0ETFjACtuP2ADo6LFhL6HN"


# --- taken --------------------------------------------------------------------------------------------------------------


def test_a_historical_request_is_enqueued_before_the_answer(front: Front):
    client = front.client()
    answer = client.ask({"isrcs": isrcs(3)})
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
    assert front.table.queue() == dict.fromkeys(isrcs(3), "pending")
    assert front.table.job(UUID(job))["account"] == client.account


def test_a_current_request_says_what_it_costs_and_that_the_next_one_costs_nothing(front: Front):
    client = front.client(card=False)
    first, second = (client.ask({"album_ids": [ALBUM]}, source="current").json() for _ in range(2))
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


def test_what_is_owned_is_done_at_once_and_skipped(front: Front):
    (song,) = isrcs(1)
    front.table.sql("insert into songs (isrc) values (%s)", song)
    front.table.measured(song, 10, source="songstats")
    said = front.client().ask({"isrcs": [song]}).json()
    assert (said["state"], said["enqueued"], said["skipped"]) == ("done", 0, 1)


# --- refused ------------------------------------------------------------------------------------------------------------


def test_without_a_card_nothing_is_enqueued_and_the_request_goes_on_by_itself_once_it_is_there(front: Front):
    client = front.client(card=False)
    answer = client.ask({"isrcs": isrcs(2)})
    said = answer.json()
    assert answer.status_code == 402
    assert set(said) == {"status", "code", "error", "id", "state", "checkoutUrl"}
    assert (said["status"], said["state"]) == ("error", "payment_required")
    assert said["error"].startswith("No card is on file for this account.")
    assert said["checkoutUrl"].startswith("http")
    assert front.table.queue() == {}
    front.sandbox.card(str(client.account))
    opened = load_batch(front.desk.database_url, unpaid=True)
    process_batch(front.desk.database_url, opened, ask_about_payment(opened, front.desk.decide), run="sweep")
    assert client.get(f"{JOBS}/{said['id']}").json()["state"] == "accepted"


def test_nobody_is_asked_for_a_card_for_a_catalogue_that_is_not_theirs(front: Front):
    answer = front.client(card=False).ask({"catalog_id": str(uuid4())})
    assert (answer.status_code, answer.json()["error"]) == (400, UNKNOWN_CATALOG)


def test_over_the_months_cap_is_a_429_until_the_month_ends(open_front: Open):
    client = open_front(cap_usd=Decimal("0.002")).client()
    answer = client.ask({"album_ids": [ALBUM]}, source="current")
    assert answer.status_code == 429
    assert answer.json()["error"].startswith("The monthly cap of captures is reached: $0.00")
    assert 1 <= int(answer.headers["Retry-After"]) <= 31 * 86_400


def test_a_capture_that_no_month_allows_says_so(open_front: Open):
    client = open_front(cap_usd=Decimal("0.004")).client()
    albums = [ALBUM, "4MUSeRnhpSfkMqREFQ36mC"]
    assert client.ask({"album_ids": albums}, source="current").json()["error"].endswith("so ask for fewer albums")
    assert client.ask({"album_ids": albums[:1]}, source="current").status_code == 202
    assert client.ask({"album_ids": albums[1:]}, source="current").json()["error"].endswith("would cost $0.003")


def test_where_stripe_gives_no_answer_nothing_was_asked_for(open_front: Open):
    front = open_front(
        decide=lambda _: Decision(PaymentVerdict.UNKNOWN, "Stripe could not be reached.", retry_after_seconds=7.2)
    )
    answer = front.client().ask({"isrcs": isrcs(1)}, key="a")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "8")
    assert answer.json()["error"].startswith("Stripe could not be reached.")
    assert front.table.sql("select * from measurement_jobs") == []


def test_where_no_captures_are_made_a_current_request_is_a_503_and_leaves_nothing(open_front: Open):
    front = open_front(cap_usd=None)
    for path in (JOBS, f"{JOBS}/estimate"):
        answer = front.client().post(path, json={"source": "current", "scope": {"album_ids": [ALBUM]}})
        assert (answer.status_code, answer.json()["error"]) == (503, NO_CAPTURES)
        assert int(answer.headers["Retry-After"]) > 0
    assert front.table.sql("select * from measurement_jobs") == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "The body must be a JSON object"),
        (b"[]", "The body must be a JSON object"),
        (b"{", "The body is not JSON"),
        (b'{"scope": {"isrcs": ["GBUM72501895"]}}', BAD_SOURCE),
        (b'{"source": "historical"}', BAD_SCOPE),
        (b'{"source": "historical", "scope": {"isrcs": ["GBUM72501895"]}, "price": 0}', "Unknown in the body: 'price'"),
        (b'{"source": "historical", "scope": {"isrcs": [NaN]}}', "Malformed in scope.isrcs"),
        (b'{"source": "current", "scope": {"album_ids": ["a\\u0000b"]}}', "Malformed in scope.album_ids"),
        (b'{"source": "current", "scope": {"album_ids": ["\\ud800"]}}', "Malformed in scope.album_ids"),
        (b'{"source": "current", "scope": ' + b"[" * 100_000, "The body is not JSON"),
        (b'{"source": ' + b"9" * 5_000 + b"}", "The body is not JSON"),
    ],
)  # fmt: skip
def test_a_body_that_cannot_be_read_is_a_400_that_says_so_and_leaves_no_row(front: Front, body: bytes, expected: str):
    answer = front.client().post(JOBS, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["status"] == "error"
    assert expected in answer.json()["error"]
    assert front.table.sql("select * from measurement_jobs") == []


def test_a_body_that_is_sent_as_something_else_than_json_is_a_400(front: Front):
    body = b'{"source": "historical", "scope": {"isrcs": ["GBUM72501895"]}}'
    answer = front.client().post(JOBS, content=body, headers={"content-type": "text/plain"})
    assert (answer.status_code, "sent as application/json" in answer.json()["error"]) == (400, True)
    assert front.table.sql("select * from measurement_jobs") == []


def test_a_list_is_ten_thousand_long_at_most(front: Front):
    client = front.client()
    answer = client.ask({"isrcs": isrcs(10_001)})
    assert (answer.status_code, "got 10,001" in answer.json()["error"]) == (400, True)
    assert client.ask({"isrcs": isrcs(10_000)}).json()["enqueued"] == 10_000


def test_a_body_whose_text_in_the_table_is_too_long_is_a_413_and_leaves_no_row(front: Front):
    body = json.dumps({"source": "historical", "scope": {"album_ids": ["a" * 101] * 10_000}}, separators=(",", ":"))
    assert len(body) < MAX_REQUEST_BYTES
    answer = front.client().post(JOBS, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (413, TOO_LARGE)
    assert front.table.sql("select * from measurement_jobs") == []


def test_a_list_of_jobs_leaves_out_long_scopes_which_the_job_itself_shows(front: Front):
    client = front.client()
    short, long = {"isrcs": isrcs(1)}, {"isrcs": isrcs(2_000)}
    asked = {client.ask(scope).json()["id"]: scope for scope in (short, long)}
    listed = {job["id"]: job["scope"] for job in client.get(JOBS).json()["jobs"]}
    assert [listed[job] for job in asked] == [short, None]
    assert [client.get(f"{JOBS}/{job}").json()["scope"] for job in asked] == [short, long]


# --- the same request twice ---------------------------------------------------------------------------------------------


def test_the_same_key_and_body_is_the_same_job_however_it_is_written(front: Front):
    client = front.client()
    first = client.ask({"isrcs": isrcs(2)}, key="k")
    second = client.post(
        JOBS,
        content=f'{{ "scope":{{"isrcs":["{isrcs(2)[0]}",  "{isrcs(2)[1]}"],"album_ids":null}},"source":"historical" }}',
        headers={"content-type": "application/json", "Idempotency-Key": "k"},
    )
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert (
        client.ask({"isrcs": [f"{song[:2]}-{song[2:]}".lower() for song in isrcs(2)]}, key="k").json() == first.json()
    )
    assert len(front.table.sql("select * from measurement_jobs")) == 1


def test_two_keys_on_one_request_are_a_400(front: Front):
    body = {"source": "historical", "scope": {"isrcs": isrcs(1)}}
    answer = front.client().post(JOBS, json=body, headers=[("Idempotency-Key", "k"), ("Idempotency-Key", "l")])
    assert (answer.status_code, answer.json()["error"]) == (400, "Idempotency-Key: expected one, got 2")
    assert front.table.sql("select * from measurement_jobs") == []


def test_another_body_with_the_same_key_is_a_409_and_another_accounts_same_key_is_its_own(front: Front):
    client, other = front.client(), front.client()
    job = client.ask({"isrcs": isrcs(2)}, key="k").json()["id"]
    answer = client.ask({"isrcs": isrcs(1)}, key="k")
    assert (answer.status_code, answer.json()["error"], answer.json()["id"]) == (409, submit.KEY_REUSED, job)
    assert other.ask({"isrcs": isrcs(1)}, key="k").status_code == 202


def test_a_key_that_was_answered_402_is_answered_202_once_the_card_is_there(front: Front):
    client = front.client(card=False)
    assert client.ask({"isrcs": isrcs(1)}, key="k").status_code == 402
    front.sandbox.card(str(client.account))
    opened = load_batch(front.desk.database_url, unpaid=True)
    process_batch(front.desk.database_url, opened, ask_about_payment(opened, front.desk.decide), run="sweep")
    answer = client.ask({"isrcs": isrcs(1)}, key="k")
    assert (answer.status_code, answer.json()["state"], answer.json()["enqueued"]) == (202, "accepted", 1)


def test_a_key_that_was_answered_429_asks_anew_and_is_answered_202_once_the_month_allows_it(open_front: Open):
    front = open_front(cap_usd=Decimal("0.003"))
    client = front.client()
    other = client.ask({"album_ids": ["4MUSeRnhpSfkMqREFQ36mC"]}, source="current").json()["id"]
    for _ in range(2):
        assert client.ask({"album_ids": [ALBUM]}, source="current", key="k").status_code == 429
    client.delete(f"{JOBS}/{other}")
    first, second = (client.ask({"album_ids": [ALBUM]}, source="current", key="k") for _ in range(2))
    assert (first.status_code, first.json()["state"]) == (202, "accepted")
    assert first.json() == second.json()


def test_however_many_send_a_request_that_is_refused_at_once_each_is_told_so(open_front: Open):
    client = open_front(cap_usd=Decimal("0.002")).client()
    with ThreadPoolExecutor(30) as threads:
        answers = list(threads.map(lambda _: client.ask({"album_ids": [ALBUM]}, source="current", key="k"), range(120)))
    # One that comes while another is being answered is told that it is queued.
    assert {answer.status_code for answer in answers} <= {429, 202}
    assert 429 in {answer.status_code for answer in answers}


def test_a_key_of_a_request_that_waited_for_a_card_in_vain_asks_anew(front: Front):
    client = front.client(card=False)
    first = client.ask({"isrcs": isrcs(1)}, key="k").json()["id"]
    front.table.sql("update measurement_jobs set state = 'rejected', created_at = now() - interval '8 days'")
    front.sandbox.card(str(client.account))
    front.table.sql("delete from payment_decisions")
    answer = client.ask({"isrcs": isrcs(1)}, key="k")
    assert (answer.status_code, answer.json()["id"] == first) == (202, False)


def test_the_same_key_of_a_request_that_failed_or_was_withdrawn_is_no_success(front: Front):
    client = front.client()
    failed = client.ask({"isrcs": isrcs(1)}, key="failed").json()["id"]
    gone = client.ask({"isrcs": isrcs(1)}, key="gone").json()["id"]
    front.table.sql(
        "update measurement_jobs set state = 'failed', status_code = 500, error = 'it broke' where id = %s", failed
    )
    client.delete(f"{JOBS}/{gone}")
    answer = client.ask({"isrcs": isrcs(1)}, key="failed")
    assert (answer.status_code, answer.json()) == (
        500, {"status": "error", "code": "job_failed", "error": "it broke", "id": failed, "state": "failed"},
    )  # fmt: skip
    answer = client.ask({"isrcs": isrcs(1)}, key="gone")
    assert (answer.status_code, answer.json()) == (
        409, {"status": "error", "code": "job_withdrawn", "error": JOB_WITHDRAWN, "id": gone, "state": "withdrawn"},
    )  # fmt: skip


@pytest.mark.parametrize("key", ["", "a" * 256, "two words", "caf\u00e9".encode("latin-1")])
def test_an_idempotency_key_is_1_to_255_printable_characters(front: Front, key: object):
    answer = front.client().post(
        JOBS,
        json={"source": "historical", "scope": {"isrcs": isrcs(1)}},
        headers={"Idempotency-Key": key},  # type: ignore[dict-item]
    )
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("Idempotency-Key: expected 1 to 255 printable ASCII characters")


def test_two_hundred_at_once_of_the_same_job_make_one_row_a_recording_and_no_error(front: Front):
    client = front.client()
    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(lambda _: client.ask({"isrcs": isrcs(5)}, key="k"), range(200)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert front.table.queue() == dict.fromkeys(isrcs(5), "pending")


def test_forty_alike_at_once_succeed_where_the_database_makes_transactions_serializable(
    database_url: str, open_front: Open
):
    name = conninfo.parse(database_url)["dbname"]
    with connect(database_url) as connection:
        serializable = sql.SQL("alter database {} set default_transaction_isolation = serializable")
        connection.execute(serializable.format(sql.Identifier(name)))
    client = open_front().client()
    with ThreadPoolExecutor(40) as threads:
        answers = list(threads.map(lambda _: client.ask({"isrcs": isrcs(5)}), range(40)))
    assert {answer.status_code for answer in answers} == {202}


def test_two_hundred_at_once_without_a_key_are_two_hundred_jobs_and_one_row_a_recording(front: Front):
    client = front.client()
    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(lambda _: client.ask({"isrcs": isrcs(5)}), range(200)))
    assert {answer.status_code for answer in answers} == {202}
    assert front.table.queue() == dict.fromkeys(isrcs(5), "pending")
    enqueued = front.table.sql("select sum(enqueued) as n, count(*) as jobs from measurement_jobs")
    assert enqueued == [{"n": 5, "jobs": 200}]


# --- slow, and both at once ---------------------------------------------------------------------------------------------


def test_where_stripe_is_slow_the_request_is_left_to_the_sensors_run_and_taken_in_once(open_front: Open):
    answered = threading.Event()

    def decide(_account: UUID) -> Decision:
        answered.wait(120)
        return Decision(PaymentVerdict.ALLOWED, "a card")

    front = open_front(decide=decide, answer_within_seconds=0.3)
    try:
        answer = front.client().ask({"isrcs": isrcs(2)})
        said = answer.json()
        assert (answer.status_code, said["state"], said["enqueued"], said["skipped"]) == (202, "queued", None, None)
        opened = load_batch(front.desk.database_url)
        process_batch(
            front.desk.database_url,
            opened,
            ask_about_payment(opened, lambda _: Decision(PaymentVerdict.ALLOWED, "a card")),
            run="sensor",
        )
    finally:
        answered.set()
    assert front.table.receipt(UUID(said["id"])) == (2, 2, 0, 0)
    assert front.table.job(UUID(said["id"]))["run_id"] == "sensor"


def test_what_fails_once_its_client_waits_no_more_is_in_the_log(open_front: Open, caplog: pytest.LogCaptureFixture):
    go_on = threading.Event()

    def decide(_account: UUID) -> Decision:
        go_on.wait(120)
        raise ZeroDivisionError("a defect")

    front = open_front(decide=decide, answer_within_seconds=0.3)
    assert front.client().ask({"isrcs": isrcs(1)}).json()["state"] == "queued"
    go_on.set()
    until(lambda: any(one.exc_info for one in caplog.records), what="the failure to be logged")


def test_nobody_is_asked_about_for_a_client_that_waits_no_more(open_front: Open):
    answered, asked = threading.Event(), []

    def decide(account: UUID) -> Decision:
        asked.append(account)
        answered.wait(120)
        return Decision(PaymentVerdict.ALLOWED, "a card")

    front = open_front(decide=decide, answer_within_seconds=1.0)
    clients = [front.client() for _ in range(20)]
    try:
        with ThreadPoolExecutor(20) as threads:
            states = list(threads.map(lambda client: client.ask({"isrcs": isrcs(1)}).json()["state"], clients))
    finally:
        answered.set()
    assert states == ["queued"] * 20
    client = front.client()
    assert client.ask({"isrcs": isrcs(1)}).json()["state"] == "accepted"
    assert len(asked) <= 8 + 1, "one a thread, and the last"


def test_what_takes_long_to_take_in_goes_on_without_the_client(open_front: Open):
    front = open_front(answer_within_seconds=1.0)
    client = front.client()
    client.ask({"isrcs": isrcs(1)})  # so that Stripe need not be asked again
    with connect(front.desk.database_url) as connection, connection.transaction():
        connection.execute("lock table measurement_job_songs in exclusive mode")
        said = client.ask({"isrcs": isrcs(2)}).json()
        assert (said["state"], said["enqueued"]) == ("queued", None)
    until(
        lambda: client.get(f"{JOBS}/{said['id']}").json()["state"] == "accepted",
        what="the request to be taken in",
    )


def test_the_sensors_run_and_the_api_at_once_take_a_request_in_once(front: Front):
    client = front.client()
    stop = threading.Event()

    def sensor() -> None:
        while not stop.is_set():
            opened = load_batch(front.desk.database_url)
            process_batch(front.desk.database_url, opened, ask_about_payment(opened, front.desk.decide), run="sensor")

    with ThreadPoolExecutor(12) as threads:
        run = threads.submit(sensor)
        answers = list(threads.map(lambda n: client.ask({"isrcs": isrcs(3, start=n)}), range(60)))
        stop.set()
        run.result()
    assert {answer.status_code for answer in answers} == {202}
    jobs = front.table.sql("select state, attempts, asked from measurement_jobs")
    assert {(job["state"], job["attempts"], job["asked"]) for job in jobs} == {("accepted", 0, 3)}
    assert front.table.sql("select sum(enqueued) as n from measurement_jobs") == [{"n": 62}]
    assert len(front.table.queue()) == 62


# --- shown, listed, withdrawn, priced -----------------------------------------------------------------------------------


def test_a_job_is_shown_with_progress_outcomes_and_receipt(front: Front):
    client = front.client()
    job = client.ask({"isrcs": isrcs(4)}).json()["id"]
    for song, outcome in zip(isrcs(3), ("stored", "no_history", "malformed"), strict=True):
        front.table.settle_row(song, outcome)
    front.table.sql(
        "insert into songstats_quota_ledger (song, account, job, run_id, lease, settled_at, billable, reason)"
        " select isrc, %s, %s, 'r', 1, now(), true, 'stored' from songs limit 2",
        client.account,
        job,
    )
    said = client.get(f"{JOBS}/{job}").json()
    assert said["progress"] == {"settled": 3, "asked": 4}
    assert said["outcomes"] == {"stored": 1, "no_history": 1, "rejected": 0, "failed": 1}
    assert said["receipt"] == {"hits": 2, "eur": 0.17}
    assert (said["scope"], said["source"], said["capture"]) == ({"isrcs": isrcs(4)}, "historical", None)


def test_a_current_job_is_shown_with_its_capture(front: Front):
    client = front.client()
    job = client.ask({"album_ids": [ALBUM]}, source="current").json()["id"]
    capture = client.get(f"{JOBS}/{job}").json()["capture"]
    assert (capture["state"], capture["album_count"], capture["estimated_cost_usd"]) == ("queued", 1, 0.003)


def test_recordings_that_a_capture_leaves_out_are_said_with_the_answer_and_shown(front: Front):
    front.table.sql("insert into songs (isrc) select unnest(%s::text[])", isrcs(2))
    front.table.sql("insert into song_identifiers values (%s, 'spotify', 'album_id', %s)", isrcs(1)[0], ALBUM)
    client = front.client()
    said = client.ask({"isrcs": isrcs(2)}, source="current").json()
    words = "1 of 2 recordings has no known album"
    assert (said["state"], said["album_count"], said["skipped"], said["error"]) == ("accepted", 1, 1, words)
    shown = client.get(f"{JOBS}/{said['id']}").json()
    assert (shown["asked"], shown["skipped"], shown["error"]) == (2, 1, words)
    assert shown["progress"] == {"settled": 0, "asked": None}, "a capture is not settled recording by recording"


def test_the_list_is_paged_newest_first_and_shows_each_job_once(front: Front):
    client = front.client()
    jobs = [client.ask({"isrcs": isrcs(1)}).json()["id"] for _ in range(5)]
    found: list[str] = []
    cursor = None
    while True:
        page = client.get(JOBS, params={"limit": 2} | ({} if cursor is None else {"cursor": cursor})).json()
        found += [job["id"] for job in page["jobs"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert found == jobs[::-1]


@pytest.mark.parametrize("cursor", ["x", "W10", "WyJhIiwiYiJd", "é", "bnVsbA"])
def test_a_cursor_that_no_page_gave_is_a_400(front: Front, cursor: str):
    client = front.client()
    assert client.get(JOBS, params={"cursor": cursor}).status_code == 400
    catalog = front.table.catalogue(isrcs(1), account=client.account)
    assert client.get(f"/api/catalogs/{catalog}/measurements", params={"cursor": cursor}).status_code == 400


def test_what_was_asked_on_the_table_path_is_listed_too_whatever_it_holds(front: Front):
    client = front.client()
    front.table.sql(
        "insert into measurement_jobs (account, source, scope) values (%s, null, ('[' || repeat('9', 400) || '.5]')::jsonb)",
        client.account,
    )
    front.table.sql(
        "insert into measurement_jobs (account, source, scope) values (%s, 'historical', null)", client.account
    )
    jobs = client.get(JOBS).json()["jobs"]
    assert [(job["source"], job["scope"]) for job in jobs] == [("historical", None), (None, None)]
    assert {client.get(job["links"]["self"]).status_code for job in jobs} == {200}


def test_what_only_a_withdrawn_job_wants_is_no_longer_due_and_what_another_wants_is(front: Front):
    client, other = front.client(), front.client()
    job = client.ask({"isrcs": isrcs(3)}).json()["id"]
    other.ask({"isrcs": isrcs(1)})
    for _ in range(2):
        answer = client.delete(f"{JOBS}/{job}")
        assert (answer.status_code, answer.json()) == (200, {"status": "success", "id": job, "state": "withdrawn"})
    payable = {row["song"] for row in front.table.sql("select song from songstats_payable")}
    assert payable == set(isrcs(1))


def test_what_is_over_cannot_be_withdrawn(front: Front):
    (song,) = isrcs(1)
    front.table.sql("insert into songs (isrc) values (%s)", song)
    front.table.measured(song, 10, source="songstats")
    client = front.client()
    job = client.ask({"isrcs": [song]}).json()["id"]
    answer = client.delete(f"{JOBS}/{job}")
    assert (answer.status_code, answer.json()["state"]) == (409, "done")


def test_a_capture_that_only_a_withdrawn_job_wanted_is_not_made_and_its_series_ends(front: Front):
    client = front.client()
    first = client.ask({"album_ids": [ALBUM]}, source="current", schedule="monthly").json()["id"]
    second = client.ask({"album_ids": [ALBUM]}, source="current", schedule="monthly").json()["id"]
    assert client.delete(f"{JOBS}/{first}").status_code == 200
    state = "select state, stopped_at is null as goes_on from playcount_snapshots, playcount_series"
    assert front.table.sql(state) == [{"state": "queued", "goes_on": True}]
    assert client.delete(f"{JOBS}/{second}").status_code == 200
    assert front.table.sql(state) == [{"state": "failed", "goes_on": False}]


def test_a_monthly_job_whose_capture_is_over_can_be_withdrawn_while_its_series_goes_on(front: Front):
    client = front.client()
    job = client.ask({"album_ids": [ALBUM]}, source="current", schedule="monthly").json()["id"]
    once = client.ask({"album_ids": [ALBUM]}, source="current").json()["id"]
    front.table.sql("update playcount_snapshots set state = 'done'")
    front.table.sql("update measurement_jobs set state = 'done'")
    assert client.delete(f"{JOBS}/{once}").status_code == 409
    assert client.delete(f"{JOBS}/{job}").json()["state"] == "withdrawn"
    assert front.table.sql(
        "select state, stopped_at is null as goes_on from playcount_snapshots, playcount_series"
    ) == [{"state": "done", "goes_on": False}]


@pytest.mark.parametrize("status", [500, 404])
def test_a_monthly_job_that_failed_can_be_withdrawn_while_its_series_goes_on(front: Front, status: int):
    client = front.client()
    job = client.ask({"album_ids": [ALBUM]}, source="current", schedule="monthly").json()["id"]
    front.table.sql(
        "update playcount_snapshots set state = 'failed', error = 'no', status_code = %s,"
        " created_at = now() - interval '31 days'",
        status,
    )
    with connect(front.desk.database_url) as connection:
        measurement_jobs.settle(connection)
        assert len(capture_series.list_due(connection)) == 1
        assert client.delete(f"{JOBS}/{job}").json()["state"] == "withdrawn"
        assert capture_series.list_due(connection) == []


def test_who_wanted_a_series_before_a_person_stopped_it_does_not_keep_it_going(front: Front):
    client = front.client()
    monthly = {"source": "current", "schedule": "monthly"}
    client.ask({"album_ids": [ALBUM]}, **monthly)
    front.table.sql("update playcount_snapshots set state = 'done', created_at = now() - interval '2 hours'")
    with connect(front.desk.database_url) as connection:
        measurement_jobs.settle(connection)
        capture_series.stop(connection, front.table.sql("select id from playcount_series")[0]["id"])
    again = client.ask({"album_ids": [ALBUM]}, **monthly).json()["id"]
    going = "select count(*) as n from playcount_series where stopped_at is null"
    assert front.table.sql(going) == [{"n": 1}]
    assert client.delete(f"{JOBS}/{again}").status_code == 200
    assert front.table.sql(going) == [{"n": 0}]
    assert front.table.sql("select state from playcount_snapshots order by created_at") == [
        {"state": "done"},
        {"state": "failed"},
    ]


def test_a_withdrawal_keeps_the_next_capture_of_its_series_from_being_made(front: Front):
    client = front.client()
    job = client.ask({"album_ids": [ALBUM]}, source="current", schedule="monthly").json()["id"]
    front.table.sql("update playcount_snapshots set state = 'done', created_at = now() - interval '31 days'")
    with connect(front.desk.database_url) as connection:
        measurement_jobs.settle(connection)
        ((series, wanted),) = capture_series.list_due(connection)
        capture_series.start_if_due(connection, series, wanted, cap_usd=Decimal(25))
    assert client.delete(f"{JOBS}/{job}").status_code == 200
    assert front.table.sql("select state from playcount_snapshots order by created_at") == [
        {"state": "done"},
        {"state": "failed"},
    ]


def test_of_two_who_withdraw_the_same_series_at_once_the_second_ends_it(front: Front):
    for _ in range(10):
        client = front.client()
        jobs = [client.ask({"album_ids": [ALBUM]}, source="current", schedule="monthly").json()["id"] for _ in range(2)]
        with ThreadPoolExecutor(2) as threads:
            answers = list(threads.map(lambda job, of=client: of.delete(f"{JOBS}/{job}").status_code, jobs))
        assert answers == [200, 200]
    assert front.table.sql("select count(*) as n from playcount_series where stopped_at is null") == [{"n": 0}]


def test_a_withdrawal_beside_another_request_for_the_series_leaves_it_to_that_one(front: Front):
    for _ in range(20):
        client = front.client()
        job = client.ask({"album_ids": [ALBUM]}, source="current", schedule="monthly").json()["id"]
        with ThreadPoolExecutor(2) as threads:
            asked = threads.submit(client.ask, {"album_ids": [ALBUM]}, source="current", schedule="monthly")
            gone = threads.submit(client.delete, f"{JOBS}/{job}")
        assert (gone.result().status_code, asked.result().json()["state"]) == (200, "accepted")
    assert front.table.sql("select count(*) as n from playcount_series where stopped_at is null") == [{"n": 20}]


def test_an_estimate_says_what_submit_estimate_says_and_enqueues_nothing(front: Front):
    client = front.client()
    said = client.post(f"{JOBS}/estimate", json={"source": "historical", "scope": {"isrcs": isrcs(3)}}).json()
    assert said == {
        "status": "success", "source": "historical", "asked": 3, "owned": 0, "queued": 0, "hits": 3, "eur": 0.25, "days": 0,
        "hits_left_now": 900, "hits_allowed_in_30_days": 900,
    }  # fmt: skip
    said = client.post(f"{JOBS}/estimate", json={"source": "current", "scope": {"album_ids": [ALBUM]}}).json()
    assert said == {
        "status": "success", "source": "current", "albums": 1, "cost_usd": 0.003, "reused": False, "spent_usd_this_month": 0.0,
        "cap_usd": 25.0, "over_cap": False,
    }  # fmt: skip
    assert front.table.sql("select * from measurement_jobs") == []


@pytest.mark.parametrize(
    ("scope", "expected"),
    [({"catalog_id": str(uuid4())}, UNKNOWN_CATALOG), ({"album_ids": ["nothing"]}, NOTHING_RESOLVED)],
)
def test_an_estimate_of_nothing_is_what_intake_would_say(front: Front, scope: object, expected: str):
    answer = front.client().post(f"{JOBS}/estimate", json={"source": "historical", "scope": scope})
    assert (answer.status_code, answer.json()["error"]) == (400, expected)
