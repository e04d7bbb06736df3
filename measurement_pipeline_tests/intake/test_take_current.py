"""Requests for current counts: they need no card, and get a capture or the reason why there is none."""

import threading
from collections.abc import Callable
from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from measurement_pipeline.domain.capture import NO_CAPTURES
from measurement_pipeline.domain.measurement_job import NO_ALBUM_KNOWN, UNKNOWN_CATALOG, State
from measurement_pipeline.domain.payment import Decision
from measurement_pipeline.intake.process import RequestResult, check_payments, load_batch, process_batch
from measurement_pipeline.postgres import captures, measurement_jobs
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.capture_limits import capture_limits
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.intake.conftest import IntakeBench, isrcs


def fail_if_called(account: UUID) -> Decision:
    raise AssertionError(f"Stripe was asked about {account}")


def process(
    intake_bench: IntakeBench, *, cap: str | None = "25", check: Callable[[UUID], Decision] = fail_if_called
) -> list[RequestResult]:
    opened = load_batch(intake_bench.database_url)
    decisions = check_payments(opened, check)
    limits = None if cap is None else capture_limits(cap)
    return process_batch(intake_bench.database_url, opened, decisions, run="intake-1", limits=limits)


def submit(
    intake_bench: IntakeBench, scope: object, *, account: UUID | None = None, schedule: str | None = None
) -> UUID:
    job = intake_bench.submit(scope, account=account, source="current")
    if schedule is not None:
        intake_bench.sql("update measurement_jobs set schedule = %s where id = %s", schedule, job)
    return job


def row(intake_bench: IntakeBench, job: UUID) -> dict:
    return intake_bench.sql("select * from measurement_jobs where id = %s", job)[0]


def on_album(intake_bench: IntakeBench, song: str, *album_ids: str) -> None:
    intake_bench.sql("insert into songs (isrc) values (%s) on conflict do nothing", song)
    for album_id in album_ids:
        intake_bench.sql("insert into song_identifiers values (%s, 'spotify', 'album_id', %s)", song, album_id)


def test_given_albums_are_captured_without_a_card(intake_bench: IntakeBench):
    job = submit(intake_bench, {"album_ids": ["b", "a", "b"]})
    (request_result,) = process(intake_bench)
    assert request_result.state is State.ACCEPTED
    result = row(intake_bench, job)
    assert (result["state"], result["status_code"], result["error"]) == ("accepted", 202, None)
    assert (result["estimated_cost_usd"], result["reused"]) == (Decimal("0.0060"), False)
    (capture,) = intake_bench.sql("select * from playcount_snapshots")
    assert capture["id"] == result["snapshot"]
    assert (capture["album_ids"], capture["state"], capture["schedule"]) == (["a", "b"], "queued", "once")
    assert intake_bench.queue() == {}, "it buys nothing"
    assert intake_bench.sql("select * from measurement_job_songs") == []


def test_recordings_resolve_to_their_albums(intake_bench: IntakeBench):
    one, two = isrcs(2)
    on_album(intake_bench, one, "x", "y")
    on_album(intake_bench, two, "y")
    job = submit(intake_bench, {"isrcs": [one.lower(), two]})
    process(intake_bench)
    (capture,) = intake_bench.sql("select album_ids, isrcs, catalog from playcount_snapshots")
    assert capture == {"album_ids": ["x", "y"], "isrcs": [one, two], "catalog": None}
    assert row(intake_bench, job)["estimated_cost_usd"] == Decimal("0.0060")


def test_a_catalogue_resolves_to_the_albums_of_its_recordings(intake_bench: IntakeBench):
    account = uuid4()
    on_album(intake_bench, isrcs(1)[0], "x")
    catalog = intake_bench.catalogue(isrcs(2), account=account)
    submit(intake_bench, {"catalog_id": str(catalog)}, account=account)
    process(intake_bench)
    (capture,) = intake_bench.sql("select album_ids, catalog, account from playcount_snapshots")
    assert capture == {"album_ids": ["x"], "catalog": catalog, "account": account}


def test_another_accounts_catalogue_does_not_exist(intake_bench: IntakeBench):
    on_album(intake_bench, isrcs(1)[0], "x")
    catalog = intake_bench.catalogue(isrcs(1), account=uuid4())
    job = submit(intake_bench, {"catalog_id": str(catalog)})
    process(intake_bench)
    assert (row(intake_bench, job)["status_code"], row(intake_bench, job)["error"]) == (400, UNKNOWN_CATALOG)


def test_a_request_without_a_known_album_is_rejected_with_the_reason(intake_bench: IntakeBench):
    job = submit(intake_bench, {"isrcs": isrcs(2)})
    (result,) = process(intake_bench)
    assert (result.state, result.status_code, result.error) == (State.REJECTED, 400, NO_ALBUM_KNOWN)
    assert row(intake_bench, job)["state"] == "rejected"
    assert NO_ALBUM_KNOWN.startswith("No recordings resolvable from the given scope")


def test_recordings_without_an_album_are_omitted_and_stay_reported(intake_bench: IntakeBench):
    account = uuid4()
    one, two, three = isrcs(3)
    on_album(intake_bench, one, "x")
    intake_bench.sql("insert into songs (isrc) values (%s)", two)
    intake_bench.sql("insert into song_identifiers values (%s, 'spotify', 'track_id', 't')", two)
    named = submit(intake_bench, {"isrcs": [one, two]}, account=account)
    listed = submit(
        intake_bench,
        {"catalog_id": str(intake_bench.catalogue([one, two, three], account=account))},
        account=account,
        schedule="monthly",
    )
    process(intake_bench)
    expected = {
        named: (2, 1, "1 of 2 recordings has no known album"),
        listed: (3, 2, "2 of 3 recordings have no known album"),
    }
    for job, (requested, skipped, words) in expected.items():
        result = row(intake_bench, job)
        assert (result["state"], result["status_code"]) == ("accepted", 202)
        assert (result["asked"], result["skipped"], result["error"]) == (requested, skipped, words)
    intake_bench.sql("update playcount_snapshots set state = 'done'")
    with connect(intake_bench.database_url) as connection:
        measurement_jobs.settle(connection)
    for job, (_, _, words) in expected.items():
        assert (row(intake_bench, job)["state"], row(intake_bench, job)["error"]) == ("done", words)


def test_a_captures_message_precedes_the_omitted_recordings(intake_bench: IntakeBench):
    one, two = isrcs(2)
    on_album(intake_bench, one, "x")
    job = submit(intake_bench, {"isrcs": [one, two]})
    process(intake_bench)
    intake_bench.sql("update playcount_snapshots set state = 'failed', error = 'the actor said so'")
    with connect(intake_bench.database_url) as connection:
        measurement_jobs.settle(connection)
    assert row(intake_bench, job)["error"] == "the actor said so; 1 of 2 recordings has no known album"


def test_a_request_with_complete_albums_has_no_message(intake_bench: IntakeBench):
    one, two = isrcs(2)
    on_album(intake_bench, one, "x")
    on_album(intake_bench, two, "x")
    named, albums = submit(intake_bench, {"isrcs": [one, two]}), submit(intake_bench, {"album_ids": ["x", "unheardof"]})
    process(intake_bench)
    result = row(intake_bench, named)
    assert (result["asked"], result["skipped"], result["error"]) == (2, 0, None)
    result = row(intake_bench, albums)
    assert (result["asked"], result["skipped"], result["error"]) == (None, None, None)


def test_a_request_over_the_monthly_cap_is_rejected_with_cap_spent_and_cost(intake_bench: IntakeBench):
    account = uuid4()
    submit(intake_bench, {"album_ids": ["a", "b"]}, account=account)
    process(intake_bench, cap="0.01")
    job = submit(intake_bench, {"album_ids": ["c", "d"]}, account=account)
    process(intake_bench, cap="0.01")
    result = row(intake_bench, job)
    assert (result["state"], result["status_code"]) == ("rejected", 429)
    assert result["estimated_cost_usd"] == Decimal("0.0060")
    assert "$0.01 a calendar month (UTC), $0.006 of it spent, and this one would cost $0.006" in result["error"]
    assert intake_bench.sql("select count(*) n from playcount_snapshots") == [{"n": 1}]


def test_two_equal_requests_in_one_batch_share_one_capture(intake_bench: IntakeBench):
    account = uuid4()
    jobs = [submit(intake_bench, {"album_ids": albums}, account=account) for albums in (["a", "b"], ["b", "a"])]
    process(intake_bench)
    result = [row(intake_bench, job) for job in jobs]
    assert len({one["snapshot"] for one in result}) == 1
    assert [(one["reused"], one["estimated_cost_usd"]) for one in result] == [
        (False, Decimal("0.0060")),
        (True, Decimal("0.0000")),
    ]


@pytest.mark.parametrize(("state", "job_state", "status_code"), [("done", "done", 202), ("failed", "failed", 500)])
def test_requests_get_the_result_of_their_capture(
    intake_bench: IntakeBench, state: str, job_state: str, status_code: int
):
    account = uuid4()
    jobs = [submit(intake_bench, {"album_ids": ["a"]}, account=account) for _ in range(2)]
    process(intake_bench)
    intake_bench.sql("update playcount_snapshots set state = %s, error = 'the actor said so'", state)
    with connect(intake_bench.database_url) as connection:
        assert set(measurement_jobs.settle(connection)) == set(jobs)
    for job in jobs:
        result = row(intake_bench, job)
        assert (result["state"], result["status_code"], result["error"]) == (
            job_state,
            status_code,
            "the actor said so",
        )


def test_a_request_with_an_earlier_capture_is_done_at_once(intake_bench: IntakeBench):
    account = uuid4()
    submit(intake_bench, {"album_ids": ["a"]}, account=account)
    process(intake_bench)
    intake_bench.sql("update playcount_snapshots set state = 'done'")
    job = submit(intake_bench, {"album_ids": ["a"]}, account=account)
    process(intake_bench)
    assert (row(intake_bench, job)["state"], row(intake_bench, job)["reused"]) == ("done", True)


def test_an_open_capture_leaves_its_request_accepted(intake_bench: IntakeBench):
    job = submit(intake_bench, {"album_ids": ["a"]})
    process(intake_bench)
    with connect(intake_bench.database_url) as connection:
        assert measurement_jobs.settle(connection) == []
    assert row(intake_bench, job)["state"] == "accepted"


def test_monthly_starts_a_series(intake_bench: IntakeBench):
    job = submit(intake_bench, {"album_ids": ["a"]}, schedule="monthly")
    process(intake_bench)
    assert row(intake_bench, job)["state"] == "accepted"
    (capture,) = intake_bench.sql("select schedule, account from playcount_snapshots")
    (series,) = intake_bench.sql("select account, album_ids from playcount_series")
    assert capture["schedule"] == "monthly"
    assert series == {"account": capture["account"], "album_ids": ["a"]}


def test_a_request_waits_with_a_reason_if_captures_are_not_configured(intake_bench: IntakeBench):
    job = submit(intake_bench, {"album_ids": ["a"]})
    (request_result,) = process(intake_bench, cap=None)
    assert (request_result.state, request_result.error) == (None, NO_CAPTURES)
    result = row(intake_bench, job)
    assert (result["state"], result["error"], result["attempts"]) == ("queued", NO_CAPTURES, 0)
    intake_bench.sql("update measurement_jobs set not_before = null")
    process(intake_bench)
    assert row(intake_bench, job)["state"] == "accepted"


def test_historical_and_current_requests_are_processed_together(
    intake_bench: IntakeBench, paid: Callable[[UUID], Decision]
):
    account = uuid4()
    historical = intake_bench.submit({"isrcs": isrcs(1)}, account=account)
    current = submit(intake_bench, {"album_ids": ["a"]}, account=account)
    checked_accounts: list[UUID] = []

    def check(one: UUID) -> Decision:
        checked_accounts.append(one)
        return paid(one)

    assert [one.state for one in process(intake_bench, check=check)] == [State.ACCEPTED, State.ACCEPTED]
    assert checked_accounts == [account]
    assert row(intake_bench, historical)["asked"] == 1
    assert row(intake_bench, current)["snapshot"] is not None


def test_a_withdrawal_waits_for_another_request_of_the_same_capture(intake_bench: IntakeBench):
    account = uuid4()
    job = submit(intake_bench, {"album_ids": ["a"]}, account=account)
    process(intake_bench)
    snapshot = row(intake_bench, job)["snapshot"]
    second = submit(intake_bench, {"album_ids": ["a"]}, account=account)

    def withdraw() -> None:
        with connect(intake_bench.database_url) as connection:
            measurement_jobs.withdraw(connection, job, account=account)

    withdrawn = threading.Thread(target=withdraw)
    with connect(intake_bench.database_url) as connection, connection.transaction():
        captures.lock_account(connection, account)
        withdrawn.start()
        wait_until(lambda: intake_bench.sql(_WAITS))
        connection.execute(
            "update measurement_jobs set state = 'accepted', status_code = 202, snapshot = %s where id = %s",
            (snapshot, second),
        )
    withdrawn.join()
    assert row(intake_bench, job)["state"] == "withdrawn"
    assert intake_bench.sql("select state from playcount_snapshots") == [{"state": "queued"}]


_WAITS = """
select 1 as waits from pg_locks inner join pg_database on pg_locks.database = pg_database.oid
where datname = current_database() and locktype = 'advisory' and not granted
"""
