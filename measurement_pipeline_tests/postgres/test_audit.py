"""The audit finds each breach, and none in a correct database."""

import pytest

from measurement_pipeline.postgres.audit import SAYS, audit
from measurement_pipeline_tests.workbench import Workbench, isrcs


def breaches(
    bench: Workbench, *, at_rest: bool = True, materialized: set[str] | None = None
) -> dict[str, tuple[str, ...]]:
    from measurement_pipeline.postgres.database import connect

    with connect(bench.database_url) as connection:
        result = audit(connection, max_attempts=5, at_rest=at_rest, materialized=materialized)
    return {finding.invariant: finding.breaches for finding in result if finding.breaches}


SONGS = isrcs(3)
FIRST = SONGS[0]

# Breach → its invariant and the statement that causes it, in a database with three bought histories.
BREAKS: dict[str, tuple[str, str]] = {
    "a receipt that does not add up": ("I1", "update measurement_jobs set asked = asked + 1"),
    "a recording that fell off the queue": ("I1", f"delete from songstats_backfill_queue where song = '{FIRST}'"),
    "a request that is done too early": (
        "I1",
        "update songstats_backfill_queue set status = 'pending', outcome = null, created_at = now() - interval '1 day'",
    ),
    "two runs under one lease": (
        "I2",
        (
            "insert into songstats_quota_ledger (song, account, job, run_id, lease, settled_at, billable, reason)"
            " select song, account, job, 'another', lease, now(), null, 'crashed: unknown' from songstats_quota_ledger limit 1"
        ),
    ),
    "a lease that no claim issued": ("I2", "update songstats_backfill_queue set lease = 0"),
    "a figure without evidence": ("I3", "update song_measurements set raw_ref = 'songstats_responses/0'"),
    "a hit after the history was stored": (
        "I4",
        (
            "insert into songstats_quota_ledger (song, account, job, run_id, lease, settled_at, billable, reason)"
            " select song, account, job, run_id, lease, now(), true, 'rejected' from songstats_quota_ledger limit 1"
        ),
    ),
    "a response whose hit is open": (
        "I5",
        "update songstats_quota_ledger set settled_at = null, billable = null, reason = null",
    ),
    "done without measurements": ("I5", f"delete from song_measurements where song = '{FIRST}'"),
    "an answer that was thrown away": ("I5", "delete from songstats_responses"),
    "a second answered hit without a rebuy": (
        "I6",
        (
            "insert into songstats_quota_ledger (song, account, job, run_id, lease, settled_at, billable, reason)"
            " select song, account, job, run_id, lease, now(), true, 'rejected' from songstats_quota_ledger limit 1"
        ),
    ),
    "a hit without a cause": ("I6", "update songstats_quota_ledger set reason = null"),
    "a hit that is left open": (
        "I6",
        (
            "insert into songstats_quota_ledger (song, account, job, run_id, lease)"
            " select song, account, job, run_id, lease from songstats_quota_ledger limit 1"
        ),
    ),
    "malformed, and nothing kept": (
        "I8",
        "update songstats_backfill_queue set status = 'failed', outcome = 'malformed'; delete from songstats_responses",
    ),
    "a 429 that is counted": ("I9", "update songstats_quota_ledger set status_code = 429"),
    "attempts over the cap": ("I10", "update songstats_backfill_queue set attempts = 6"),
    "a claim that never ends": (
        "I10",
        "update songstats_backfill_queue set status = 'in_progress', outcome = null, claimed_by = 'x', heartbeat_at = now()",
    ),
    "an attempt without a call": ("I11", "update songstats_backfill_queue set attempts = 2"),
    "a hit without a payer": ("I12", "update songstats_quota_ledger set job = null"),
    "a hit on another's account": (
        "I12",
        (
            "with other as (insert into accounts (name) values ('other') returning id)"
            " update songstats_quota_ledger set account = (select id from other)"
        ),
    ),
    "the same figure twice": (
        "I14",
        (
            "insert into song_measurements"
            " select song, platform, metric, captured_at, data_source, learnt_at + interval '1 s', value, raw_ref, snapshot"
            " from song_measurements"
        ),
    ),
    "a latest count that is not the latest": ("I20", "update song_latest_counts set play_count = play_count - 1"),
    "a latest count that is missing": ("I20", "delete from song_latest_counts"),
    "a stamp that was lost": ("I19", "delete from deployment"),
}


@pytest.fixture
def bought(bench: Workbench) -> Workbench:
    bench.submit_request(SONGS)
    bench.run_backfill(SONGS)
    return bench


def test_the_audit_finds_nothing_after_a_backfill(bought: Workbench):
    assert breaches(bought, materialized=set(SONGS)) == {}


@pytest.mark.parametrize("name", BREAKS)
def test_the_audit_finds_each_breach(bought: Workbench, name: str):
    invariant, statement = BREAKS[name]
    for part in statement.split(";"):
        bought.sql(part)
    result = breaches(bought)
    assert invariant in result, result


def test_work_in_progress_is_a_breach_only_at_rest(bench: Workbench):
    bench.submit_request(SONGS)
    bench.sql(
        "update songstats_backfill_queue set status = 'in_progress', lease = 1, claimed_by = 'run-1', heartbeat_at = now()"
    )
    assert breaches(bench, at_rest=False) == {}
    assert set(breaches(bench)) == {"I10"}


def test_partitions_and_rows_are_compared_both_ways(bought: Workbench):
    stranger = isrcs(1, start=9)[0]
    assert breaches(bought, materialized={*SONGS[1:], stranger}) == {
        "I13": (
            f"{stranger} is shown as materialized, and its row is not done",
            f"{FIRST} is done, and not shown as materialized",
        )
    }
    assert "I13" not in breaches(bought, at_rest=False, materialized=set(SONGS[1:])), "the reclaim run will report it"


def test_each_audited_invariant_has_a_breach_here():
    assert {invariant for invariant, _ in BREAKS.values()} == set(SAYS) - {"I13"}
