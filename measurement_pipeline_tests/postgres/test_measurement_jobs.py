"""Requests as rows: submitted, listed, settled, reopened and estimated."""

import threading
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from measurement_pipeline.domain.measurement_job import ScopeByAlbum, ScopeByCatalog, ScopeByIsrc, State
from measurement_pipeline.domain.payment import PaymentVerdict
from measurement_pipeline.postgres import measurement_jobs as jobs
from measurement_pipeline.postgres.database import Connection, connect
from measurement_pipeline_tests.postgres.conftest import Tables, isrcs


def test_a_submitted_request_has_the_same_defaults_as_a_clients_insert(connection: Connection):
    account = uuid4()
    job = jobs.submit(connection, account=account, source="historical", scope={"isrcs": isrcs(1)})
    (waiting,) = jobs.waiting(connection, state=State.QUEUED, limit=10)
    assert (waiting.id, waiting.account, waiting.is_historical, waiting.attempts) == (job, account, True, 0)
    document = jobs.document(connection, waiting)
    assert (document.source, document.scope, document.platforms) == ("historical", {"isrcs": isrcs(1)}, ["spotify"])
    assert (document.fits, document.is_expired) == (True, False)
    assert jobs.waiting(connection, state=State.PAYMENT_REQUIRED, limit=10) == []


def test_a_postponed_request_is_not_ready_for_intake(connection: Connection):
    for _ in range(4):
        jobs.submit(connection, account=uuid4(), source="historical", scope={})
    assert jobs.waiting_count(connection, limit=3) == 3
    assert jobs.waiting_count(connection, limit=10) == 4
    connection.execute("update measurement_jobs set not_before = now() + interval '1 minute'")
    assert jobs.waiting_count(connection, limit=10) == 0
    assert jobs.waiting(connection, state=State.QUEUED, limit=10) == []


@pytest.mark.parametrize(
    ("state", "settled"),
    [
        ("pending", False), ("in_progress", False), ("transient", False),
        ("stored", True), ("no_history", True), ("rejected", True), ("malformed", True), ("exhausted", True),
    ],
)  # fmt: skip
def test_a_request_is_done_when_each_requested_recording_is_settled(
    tables: Tables, connection: Connection, state: str, *, settled: bool
):
    first, last = songs = isrcs(2)
    job = tables.wanted(songs)
    tables.sql("update songstats_backfill_queue set status = 'done', outcome = 'stored' where song = %s", first)
    if state == "in_progress":
        tables.claim([last])
    elif state != "pending":
        status = "done" if state in {"stored", "no_history", "rejected"} else "failed"
        tables.sql("update songstats_backfill_queue set status = %s, outcome = %s where song = %s", status, state, last)
    assert jobs.settle(connection) == ([job] if settled else [])
    assert jobs.settle(connection) == []
    request = jobs.show(connection, job)
    assert request is not None
    assert (request["state"], request["settled"]) == (("done", 2) if settled else ("accepted", 1))


def test_only_accepted_requests_become_done(tables: Tables, connection: Connection):
    songs = isrcs(1)
    tables.enqueue(songs)
    tables.sql("update songstats_backfill_queue set status = 'done', outcome = 'stored'")
    for state in State:
        tables.request(songs, state=state)
    assert len(jobs.settle(connection)) == 1
    assert len(tables.sql("select 1 from measurement_jobs where state = 'done'")) == 2


def test_requeueing_a_recording_reopens_its_request(tables: Tables, connection: Connection):
    one, other = isrcs(2)
    tables.enqueue([one, other])
    done = tables.request([one], state="done")
    tables.request([one], state="withdrawn")
    tables.request([other], state="done")
    assert jobs.reopen(connection, [one]) == [done]
    assert jobs.reopen(connection, [one]) == []


def test_a_request_is_shown_with_its_progress_outcomes_and_hits(tables: Tables, connection: Connection):
    songs = isrcs(6)
    job = tables.wanted(songs)
    for song, outcome in zip(songs, ("stored", "no_history", "rejected", "malformed", "exhausted"), strict=False):
        status = "failed" if outcome in {"malformed", "exhausted"} else "done"
        tables.sql(
            "update songstats_backfill_queue set status = %s, outcome = %s where song = %s", status, outcome, song
        )
    account = tables.sql("select account from measurement_jobs")[0]["account"]
    for billable in (True, None, False):
        tables.sql(
            "insert into songstats_quota_ledger (song, account, job, run_id, lease, billable) values (%s, %s, %s, 'r', 1, %s)",
            songs[0], account, job, billable,
        )  # fmt: skip
    request = jobs.show(connection, job)
    assert request is not None
    assert {key: request[key] for key in ("settled", "stored", "no_history", "rejected", "failed", "hits", "scope")} == {
        "settled": 5, "stored": 1, "no_history": 1, "rejected": 1, "failed": 2, "hits": 2, "scope": {},
    }  # fmt: skip
    assert jobs.show(connection, uuid4()) is None


def test_every_column_of_a_request_is_shown(tables: Tables, connection: Connection):
    request = jobs.show(connection, tables.request([]))
    columns = tables.sql("select column_name from information_schema.columns where table_name = 'measurement_jobs'")
    assert request is not None
    assert {row["column_name"] for row in columns} <= {*request, "idempotency_digest", "is_paying"}


def test_a_request_that_python_cannot_parse_is_shown_unchanged(connection: Connection):
    connection.execute(
        "insert into measurement_jobs (account, scope)"
        " values (gen_random_uuid(), (repeat('[', 3000) || repeat(']', 3000))::jsonb)"
    )
    (waiting,) = jobs.waiting(connection, state=State.QUEUED, limit=1)
    scope = jobs.document(connection, waiting).scope
    assert scope == "[" * 3000 + "]" * 3000
    request = jobs.show(connection, waiting.id)
    assert request is not None
    assert request["scope"] == scope


def test_the_latest_requests_come_first(connection: Connection):
    mine, other = uuid4(), uuid4()
    created = [jobs.submit(connection, account=account, source="x", scope={}) for account in (mine, other, mine)]
    assert [row["id"] for row in jobs.recent(connection)] == created[::-1]
    assert [row["id"] for row in jobs.recent(connection, account=mine, limit=1)] == [created[2]]


def test_denied_accounts_with_accepted_requests_are_checked_again(tables: Tables, connection: Connection):
    denied, allowed = tables.decide(uuid4(), PaymentVerdict.DENIED), tables.decide(uuid4())
    settled = tables.decide(uuid4(), PaymentVerdict.DENIED)
    for account, state in ((denied, "accepted"), (denied, "accepted"), (allowed, "accepted"), (settled, "done")):
        tables.request([], account=account, state=state)
    assert jobs.unpaid_accounts(connection) == [denied]


def test_an_estimate_equals_the_counts_of_the_request(tables: Tables, connection: Connection):
    """Requested minus owned minus queued recordings are to be bought, including exhausted ones."""
    songs = isrcs(9)
    tables.enqueue(songs[:7])
    for song, outcome in zip(songs, ("stored", "no_history", "malformed", "exhausted", "transient"), strict=False):
        status = "done" if outcome in {"stored", "no_history"} else "failed"
        tables.sql(
            "update songstats_backfill_queue set status = %s, outcome = %s where song = %s", status, outcome, song
        )
    tables.sql(
        "insert into song_measurements (song, platform, metric, captured_at, data_source, value)"
        " values (%s, 'spotify', 'platform_displayed_play_count', now(), 'songstats', 1)",
        songs[7],
    )
    before = tables.sql("select * from songstats_backfill_queue order by song")
    assert jobs.estimate(connection, songs) == {"asked": 9, "owned": 4, "queued": 3}
    assert tables.sql("select * from songstats_backfill_queue order by song") == before
    assert jobs.estimate(connection, []) == {"asked": 0, "owned": 0, "queued": 0}


def test_a_scope_is_resolved_without_writing(tables: Tables, connection: Connection):
    songs = isrcs(3)
    tables.enqueue(songs)
    account = tables.decide(uuid4())
    tables.sql("insert into song_identifiers values (%s, 'spotify', 'album_id', 'a')", songs[0])
    catalog: UUID = tables.sql("insert into catalogs (account, name) values (%s, 'c') returning id", account)[0]["id"]
    tables.sql("insert into catalog_songs select %s, unnest(%s::text[])", catalog, songs[:2])
    assert jobs.songs_of(connection, ScopeByIsrc(("AA6Q79999999",)), account=account) == ["AA6Q79999999"]
    assert jobs.songs_of(connection, ScopeByAlbum(("a", "b")), account=account) == songs[:1]
    assert set(jobs.songs_of(connection, ScopeByCatalog(catalog), account=account) or []) == set(songs[:2])
    assert jobs.songs_of(connection, ScopeByCatalog(catalog), account=uuid4()) is None
    assert jobs.songs_of(connection, ScopeByCatalog(uuid4()), account=account) is None
    assert tables.sql("select * from measurement_job_songs") == []


def test_a_postponed_request_keeps_its_state_and_gets_its_attempt_back(
    connection: Connection,
):
    job = jobs.submit(connection, account=uuid4(), source="historical", scope={})
    (request,) = jobs.waiting(connection, state=State.QUEUED, limit=1)
    for back, left in ((True, 0), (False, 1), (True, 1)):
        jobs.begin_attempts(connection, [request], run="r")
        jobs.postpone(connection, request, seconds=300, error="why", attempt_back=back)
        details = jobs.show(connection, job)
        assert details is not None
        assert (details["state"], details["attempts"], details["error"]) == ("queued", left, "why")
        (clock,) = connection.execute("select clock_timestamp() as now").fetchall()
        assert timedelta(seconds=270) < details["not_before"] - clock["now"] <= timedelta(seconds=300)
        assert details["updated_at"] == details["created_at"], "its state is unchanged"


def test_a_second_intake_waits_and_reads_the_answered_request(connection: Connection, tables: Tables):
    jobs.submit(connection, account=uuid4(), source="historical", scope={})
    (request,) = jobs.waiting(connection, state=State.QUEUED, limit=1)
    result: list[bool] = []

    def load_second() -> None:
        with connect(tables.database_url) as other, other.transaction():
            result.append(jobs.lock(other, request))

    with connection.transaction():
        assert jobs.lock(connection, request)
        second = threading.Thread(target=load_second)
        second.start()
        second.join(0.2)
        assert second.is_alive(), "it waits for the holder of the row"
        jobs.answer(connection, request, state=State.REJECTED, status_code=400, error="no")
    second.join()
    assert result == [False]
    assert jobs.begin_attempts(connection, [request], run="late") == {}
