"""Calls whose answer was lost, some of which the vendor counted: what counts afterwards is what it counted."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import pytest

from measurement_pipeline.backfill.reclaim import reclaim_backfill
from measurement_pipeline.backfill.reconcile import reconcile
from measurement_pipeline.domain.spend import sum_by_cause
from measurement_pipeline.postgres import songstats_ledger, spend
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.vendors.songstats.client import SongstatsClient
from measurement_pipeline_tests.workbench import Workbench, isrcs

HISTORY = "/enterprise/v1/tracks/historic_stats"
STATUS = "/enterprise/v1/status"

MADE = datetime(2026, 10, 15, 8, tzinfo=UTC)
NOW = datetime(2026, 10, 15, 12, tzinfo=UTC)

STORED, COUNTED, NEVER_COUNTED = isrcs(4), isrcs(2, start=100), isrcs(3, start=200)


class _Silent(httpx.AsyncBaseTransport):
    """A network on which requests are lost on the way: the vendor never sees them."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("no answer", request=request)


@pytest.fixture
def lost(bench: Workbench) -> Workbench:
    """Nine calls: four answered, two counted whose answer was lost, three that never arrived."""
    bench.submit_request([*STORED, *COUNTED, *NEVER_COUNTED])
    bench.run_backfill(STORED, run="stored")
    bench.sandbox.faults(HISTORY, close=True, count=len(COUNTED))
    bench.run_backfill(COUNTED, run="counted")

    def unreachable() -> SongstatsClient:
        return SongstatsClient(
            api_key=bench.sandbox.songstats_key,
            base_url=bench.sandbox.songstats_url,
            sources=["spotify"],
            timeout_seconds=60.0,
            transport=_Silent(),
        )

    bench.run_backfill(
        NEVER_COUNTED, run="never counted", dependencies=replace(bench.dependencies, new_client=unreachable)
    )
    # The middle of a month, whenever the test runs.
    bench.sql("update songstats_quota_ledger set reserved_at = %s, settled_at = %s", MADE, MADE)
    assert [hit["billable"] for hit in bench.ledger()] == [True] * 4 + [None] * 5
    assert bench.sandbox.hits() == 6
    return bench


def hits(bench: Workbench) -> int:
    return sum(hit["billable"] is not False for hit in bench.ledger())


def test_hits_that_the_vendor_never_counted_are_returned_and_as_many_kept_as_it_did_count(lost: Workbench):
    result = reconcile(lost.config, lost.dependencies, now=NOW)
    assert (result.returned, result.kept) == (3, 2)
    assert result.reason == "this month: Songstats counts 6, the ledger 4 billed and 5 unknown: 3 not billed, 2 kept"
    assert hits(lost) == lost.sandbox.hits() == 6
    (act,) = lost.sql("select actor, detail from operator_acts")
    assert act["actor"] == "the hourly reclaim"
    assert (act["detail"]["songstats_counts"], act["detail"]["kept"], len(act["detail"]["settled"])) == (6, 2, 3)
    assert reconcile(lost.config, lost.dependencies, now=NOW).returned == 0, "once"


def test_a_month_that_the_vendor_counts_as_billed_alone_returns_them_all(lost: Workbench):
    lost.sql("delete from songstats_quota_ledger where run_id = 'counted'")
    lost.sandbox.faults(STATUS, body='{"result": "success", "status": {"current_month_total_requests": 4}}')
    assert reconcile(lost.config, lost.dependencies, now=NOW).returned == 3
    assert hits(lost) == 4


def test_hits_that_the_vendor_counts_late_count_again(lost: Workbench):
    lost.sandbox.faults(STATUS, body='{"result": "success", "status": {"current_month_total_requests": 4}}', count=1)
    assert reconcile(lost.config, lost.dependencies, now=NOW).returned == 5
    assert hits(lost) == 4
    result = reconcile(lost.config, lost.dependencies, now=NOW)
    assert (result.returned, result.late, result.kept) == (0, 2, 2)
    assert hits(lost) == lost.sandbox.hits() == 6
    assert [act["act"] for act in lost.sql("select act from operator_acts order by id")] == [
        "settle unknown hits as not billed",
        "count returned hits again",
    ]
    assert reconcile(lost.config, lost.dependencies, now=NOW).late == 0, "once"
    assert hits(lost) == 6


def test_a_session_that_keeps_the_lock_of_the_budget_fails_no_sweep(lost: Workbench):
    with connect(lost.database_url) as client, client.transaction():
        client.execute("select pg_advisory_xact_lock(hashtextextended('songstats_quota', 0))")
        result = reconcile(lost.config, lost.dependencies, now=NOW, lock_seconds=0.1)
    assert (result.returned, result.kept) == (0, 5)
    assert "doctor" in result.reason
    assert reconcile(lost.config, lost.dependencies, now=NOW).returned == 3


def test_what_was_returned_is_shown_by_cause_in_spend_and_in_the_analysts_view(lost: Workbench):
    reconcile(lost.config, lost.dependencies, now=NOW)
    with connect(lost.database_url) as connection:
        shown = sum_by_cause(spend.list_calls(connection, days=3_650))["not billed (reconciled)"]
    assert (shown.calls, shown.hits, shown.wasted, shown.cost_nothing) == (3, 0, 0, 3)
    assert lost.sql("select calls, hits from analytics.spend where cause = 'not billed (reconciled)'") == [
        {"calls": 3, "hits": 0}
    ]
    stored = {hit["reason"] for hit in lost.ledger() if hit["reconciled_at"] is not None}
    assert stored <= {"timeout: unknown", "transient"}, "the ledger keeps what they came to at first"


def test_returned_hits_are_the_budgets_again(lost: Workbench):
    lost.sql("update songstats_quota_ledger set reserved_at = clock_timestamp()")
    with connect(lost.database_url) as connection:
        assert songstats_ledger.budget(connection, hits_allowed=10).left == 1
        since, until = spend.read_window(connection, days=1)
        songstats_ledger.settle_unbilled(connection, since=since, until=until, calls=3)
        assert songstats_ledger.budget(connection, hits_allowed=10).left == 4


def test_another_program_with_the_key_changes_nothing_and_is_reported(lost: Workbench):
    async def another() -> None:
        async with lost.dependencies.new_client() as client:
            for song in isrcs(8, start=300):
                await client.fetch_history(song)

    asyncio.run(another())
    result = reconcile(lost.config, lost.dependencies, now=NOW)
    assert (result.returned, result.kept) == (0, 5)
    assert "Another program uses the key" in result.reason
    assert lost.sql("select * from operator_acts") == []


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 401}, {"body": "<html>"}, {"close": True}])
def test_a_vendor_that_is_away_changes_nothing_and_fails_no_sweep(lost: Workbench, fault: dict):
    lost.sandbox.faults(STATUS, **fault)
    result = reconcile(lost.config, lost.dependencies, now=NOW)
    assert (result.returned, result.kept) == (0, 5)
    assert result.reason.startswith("unknown: Songstats gave no count (")
    swept = reclaim_backfill(lost.config, lost.dependencies)
    assert swept.returned == 0
    assert hits(lost) == 9


def test_a_call_that_is_not_settled_keeps_the_vendor_from_being_asked(lost: Workbench):
    lost.sql("update songstats_quota_ledger set settled_at = null, reason = null where song = %s", COUNTED[0])
    result = reconcile(lost.config, lost.dependencies, now=NOW)
    assert (result.returned, result.reason) == (0, "waiting: 1 call not settled yet")
    assert lost.sandbox.requests(STATUS) == []
