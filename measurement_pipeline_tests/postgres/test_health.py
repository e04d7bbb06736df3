"""The facts that the checks read from the tables, and their results."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from measurement_pipeline.health import queue_checks
from measurement_pipeline.health.result import HealthResult
from measurement_pipeline.postgres import health
from measurement_pipeline.postgres.audit import list_partition_mismatches
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.sandbox import PLAIN, running
from measurement_pipeline_tests.workbench import OPERATORS, Workbench, create_workbench, isrcs


def test_waiting_rows_are_those_of_accepted_requests(bench: Workbench, connection: Connection):
    mine, unpaid, unwanted = isrcs(3), isrcs(2, start=10), isrcs(1, start=20)
    unpaid_account = uuid4()
    bench.submit_request(mine)
    bench.submit_request([*unpaid, mine[0]], account=unpaid_account)
    bench.deny(unpaid_account)
    withdrawn = bench.submit_request(unwanted)
    bench.sql("update measurement_jobs set state = 'withdrawn' where id = %s", withdrawn)
    result = health.read_backlog(connection, operators_account=OPERATORS)
    assert (result.waiting, result.payable, result.ready) == (5, 3, 3)
    assert result.last_settled is None
    assert result.unpaid_accounts == ()
    bench.deny(bench.account)
    result = health.read_backlog(connection, operators_account=OPERATORS)
    assert (result.waiting, result.payable) == (5, 0)
    assert set(result.unpaid_accounts) == {str(bench.account), str(unpaid_account)}


def test_launched_rows_wait_and_the_operators_account_pays(bench: Workbench, connection: Connection):
    job = bench.submit_request(isrcs(1))
    bench.sql("update measurement_jobs set state = 'withdrawn' where id = %s", job)
    bench.sql("update songstats_backfill_queue set operator_launched = true")
    assert health.read_backlog(connection, operators_account=OPERATORS).payable == 0
    bench.allow(OPERATORS)
    result = health.read_backlog(connection, operators_account=OPERATORS)
    assert (result.waiting, result.payable) == (1, 1)
    assert health.read_backlog(connection, operators_account=None).payable == 0


def test_a_settlement_dated_in_the_future_hides_no_stall(bench: Workbench, connection: Connection):
    bench.submit_request(isrcs(2))
    for song, at in zip(isrcs(2), ("now() - interval '9 hours'", "now() + interval '2 days'"), strict=True):
        bench.sql(
            "insert into songstats_quota_ledger (song, account, run_id, lease, settled_at, billable, reason)"
            f" values (%s, %s, 'then', 0, {at}, true, 'stored')",
            song,
            bench.account,
        )
    result = health.read_backlog(connection, operators_account=None)
    assert result.last_settled is not None
    assert timedelta(hours=8) < result.now - result.last_settled < timedelta(hours=10)


def test_rows_in_progress_count_as_waiting_with_the_next_retry(bench: Workbench, connection: Connection):
    songs = isrcs(3)
    bench.submit_request(songs)
    bench.sql(
        "update songstats_backfill_queue set status = 'in_progress', claimed_by = 'r', heartbeat_at = now() where song = %s",
        songs[0],
    )
    bench.sql(
        "update songstats_backfill_queue set not_before = now() + interval '1 hour', last_error = '502' where song <> %s",
        songs[0],
    )
    result = health.read_backlog(connection, operators_account=None)
    assert (result.waiting, result.ready, result.last_error) == (3, 1, "502")
    assert result.next_retry_at is not None


def test_the_last_purchase_is_read(bench: Workbench, connection: Connection):
    bench.submit_request(isrcs(2))
    bench.run_backfill(isrcs(2))
    result = health.read_backlog(connection, operators_account=None)
    assert result.oldest_waiting is None
    assert result.last_settled == max(row["settled_at"] for row in bench.ledger())


def test_rows_that_wait_for_a_person_are_counted_with_a_remedy(bench: Workbench, connection: Connection):
    songs = isrcs(12)
    bench.submit_request(songs)
    assert queue_checks.no_exhausted_recordings(health.read_failed_rows(connection)).passed
    bench.sql(
        "update songstats_backfill_queue set status = 'failed', outcome = 'exhausted' where song = any(%s)", songs[:7]
    )
    bench.sql("update songstats_backfill_queue set status = 'failed', outcome = 'malformed' where song = %s", songs[8])
    bench.sql(
        "update songstats_backfill_queue set status = 'done', outcome = 'rejected', suspect = true where song = %s",
        songs[9],
    )
    result = queue_checks.no_exhausted_recordings(health.read_failed_rows(connection))
    assert not result.passed
    assert not result.should_alert
    assert result.metadata == {"exhausted": 7, "malformed": 1, "suspect": 1}
    assert f"7 exhausted ({', '.join(songs[:5])}, …): find the cause" in result.message
    assert f"1 malformed ({songs[8]})" in result.message
    assert f"1 suspect ({songs[9]})" in result.message


def test_done_rows_without_a_partition_fail_only_after_the_reclaim_interval(bench: Workbench, connection: Connection):
    songs = isrcs(2)
    bench.submit_request(songs)
    bench.run_backfill(songs)

    def breaches() -> list[str]:
        return list_partition_mismatches(connection, {songs[0]}, at_rest=False, grace_hours=2.0)

    assert breaches() == []
    bench.sql("update songstats_backfill_queue set updated_at = now() - interval '3 hours'")
    assert breaches() == [f"{songs[1]} is done, and not shown as materialized"]
    assert list_partition_mismatches(connection, {*songs, "AA6Q72000099"}, at_rest=False, grace_hours=2.0) == [
        "AA6Q72000099 is shown as materialized, and its row is not done"
    ]


def test_rows_and_measurements_are_compared_both_ways(bench: Workbench, connection: Connection):
    songs = isrcs(4)
    bench.submit_request(songs)
    bench.run_backfill(songs)
    assert health.list_row_mismatches(connection) == []
    bench.sql("delete from song_measurements where song = %s", songs[0])
    bench.sql("update songstats_backfill_queue set status = 'pending', outcome = null where song = %s", songs[1])
    bench.sql("delete from songstats_backfill_queue where song = %s", songs[2])
    breaches = health.list_row_mismatches(connection)
    assert breaches == [
        f"{songs[0]} is done as stored, and has no measurement",
        f"{songs[1]} has a history, and its row is pending",
        f"{songs[2]} has a history, and its row is missing",
    ]
    result = queue_checks.partitions_match_tables(breaches, materialized=4)
    assert not result.passed
    assert result.should_alert
    assert breaches[0] in result.message


@pytest.fixture
def up_to_date(database_url: str) -> Iterator[Workbench]:
    """Doubles with histories that end yesterday instead of on a fixed day."""
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    with running(behaviour=replace(PLAIN, last_day=yesterday)) as sandbox:
        yield create_workbench(database_url, sandbox)


def figures(connection: Connection) -> HealthResult:
    return queue_checks.values_in_range(
        health.latest_series(connection), stored=health.count_recently_stored(connection)
    )


LAST = (
    "captured_at = (select max(captured_at) from song_measurements where song = %(song)s and metric like 'platform%%')"
)
OF_IT = "song = %(song)s and metric = 'platform_displayed_play_count'"


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (f"update song_measurements set value = 0 where {OF_IT}", "has 0 plays"),
        (
            f"update song_measurements set value = 100000000001 where {OF_IT} and {LAST}",
            "has 100000000001 plays",
        ),
        (
            f"update song_measurements set value = value / 3 where {OF_IT} and {LAST}",
            "decreases by more than half on 20",
        ),
        (
            f"update song_measurements set captured_at = now() + interval '3 days' where {OF_IT} and {LAST}",
            "has counts 3 days in the future",
        ),
        (
            f"delete from song_measurements where {OF_IT} and captured_at > now() - interval '40 days'",
            "days before it was bought",
        ),
    ],
)
def test_impossible_counts_are_reported(up_to_date: Workbench, connection: Connection, statement: str, words: str):
    bench = up_to_date
    song, other = isrcs(2)
    bench.submit_request([song, other])
    bench.run_backfill([song, other])
    bench.sql("update deployment set kind = 'live'")
    assert figures(connection).passed, figures(connection).message
    connection.execute(statement, {"song": song})  # type: ignore[call-overload]
    result = figures(connection)
    assert not result.passed
    assert not result.should_alert
    assert f"{song} " in result.message
    assert words in result.message
    assert other not in result.message


def test_a_restatement_is_checked_instead_of_the_earlier_count(bench: Workbench, connection: Connection):
    (song,) = isrcs(1)
    bench.submit_request([song])
    bench.run_backfill([song])
    connection.execute(
        "insert into song_measurements select song, platform, metric, captured_at, data_source, learnt_at + interval '1 s', 0"
        f" from song_measurements where {OF_IT} and {LAST}",
        {"song": song},
    )  # type: ignore[call-overload]
    assert f"{song} has 0 plays" in figures(connection).message


def test_a_check_of_a_sample_reports_its_size(bench: Workbench, connection: Connection):
    bench.submit_request(isrcs(3))
    bench.run_backfill(isrcs(3))
    assert figures(connection).message.startswith("3 recordings")
    latest = health.latest_series(connection, most=2)
    result = queue_checks.values_in_range(latest, stored=health.count_recently_stored(connection))
    assert result.message.startswith("the latest 2 of 3 recordings")
    assert result.metadata["recordings stored"] == 3


def test_only_requests_postponed_by_intake_count_as_waiting(bench: Workbench, connection: Connection):
    insert = (
        "insert into measurement_jobs (account, source, scope, created_at, not_before, error)"
        " values (%s, 'historical', '{}', now() - interval '7 hours', now() + interval '1 minute', %s)"
    )
    bench.sql(insert, bench.account, None)
    assert health.read_intake_progress(connection).oldest is None
    bench.sql(insert, bench.account, "Stripe gave no answer")
    result = health.read_intake_progress(connection)
    assert (result.waiting, result.error) == (1, "Stripe gave no answer")
    assert result.oldest is not None
    assert result.now - result.oldest > timedelta(hours=6)


def test_histories_of_doubles_are_not_reported_as_old(bench: Workbench, connection: Connection):
    bench.submit_request(isrcs(1))
    bench.run_backfill(isrcs(1))
    assert figures(connection).passed


def test_counts_stored_longer_ago_are_not_checked_again(bench: Workbench, connection: Connection):
    bench.submit_request(isrcs(1))
    bench.run_backfill(isrcs(1))
    bench.sql("update song_measurements set value = 0")
    assert not figures(connection).passed
    bench.sql("update songstats_quota_ledger set settled_at = settled_at - interval '25 hours'")
    assert figures(connection).passed
