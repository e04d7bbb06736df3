"""Calls with lost responses: after reconciliation, the budget counts as many as the vendor does."""

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
    """A network that loses requests before they reach the vendor."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("no answer", request=request)


@pytest.fixture
def lost_calls(bench: Workbench) -> Workbench:
    """Nine calls: four answered, two counted with a lost response, three that never arrived."""
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


def test_hits_that_the_vendor_did_not_count_are_returned(lost_calls: Workbench):
    result = reconcile(lost_calls.config, lost_calls.dependencies, now=NOW)
    assert (result.returned, result.kept) == (3, 2)
    assert result.reason == "this month: Songstats counts 6, the ledger 4 billed and 5 unknown: 3 not billed, 2 kept"
    assert hits(lost_calls) == lost_calls.sandbox.hits() == 6
    (act,) = lost_calls.sql("select actor, detail from operator_acts")
    assert act["actor"] == "the hourly reclaim"
    assert (act["detail"]["songstats_counts"], act["detail"]["kept"], len(act["detail"]["settled"])) == (6, 2, 3)
    assert reconcile(lost_calls.config, lost_calls.dependencies, now=NOW).returned == 0, "once"


def test_all_unknown_hits_are_returned_if_the_vendor_counts_only_billed_ones(lost_calls: Workbench):
    lost_calls.sql("delete from songstats_quota_ledger where run_id = 'counted'")
    lost_calls.sandbox.faults(STATUS, body='{"result": "success", "status": {"current_month_total_requests": 4}}')
    assert reconcile(lost_calls.config, lost_calls.dependencies, now=NOW).returned == 3
    assert hits(lost_calls) == 4


def test_hits_that_the_vendor_counts_late_count_again(lost_calls: Workbench):
    lost_calls.sandbox.faults(
        STATUS, body='{"result": "success", "status": {"current_month_total_requests": 4}}', count=1
    )
    assert reconcile(lost_calls.config, lost_calls.dependencies, now=NOW).returned == 5
    assert hits(lost_calls) == 4
    result = reconcile(lost_calls.config, lost_calls.dependencies, now=NOW)
    assert (result.returned, result.late, result.kept) == (0, 2, 2)
    assert hits(lost_calls) == lost_calls.sandbox.hits() == 6
    assert [act["act"] for act in lost_calls.sql("select act from operator_acts order by id")] == [
        "settle unknown hits as not billed",
        "count returned hits again",
    ]
    assert reconcile(lost_calls.config, lost_calls.dependencies, now=NOW).late == 0, "once"
    assert hits(lost_calls) == 6


def test_a_session_that_holds_the_budget_lock_does_not_fail_the_reclaim_run(lost_calls: Workbench):
    with connect(lost_calls.database_url) as client, client.transaction():
        client.execute("select pg_advisory_xact_lock(hashtextextended('songstats_quota', 0))")
        result = reconcile(lost_calls.config, lost_calls.dependencies, now=NOW, lock_seconds=0.1)
    assert (result.returned, result.kept) == (0, 5)
    assert "doctor" in result.reason
    assert reconcile(lost_calls.config, lost_calls.dependencies, now=NOW).returned == 3


def test_returned_hits_are_shown_by_cause_in_spend_and_in_the_analysts_view(lost_calls: Workbench):
    reconcile(lost_calls.config, lost_calls.dependencies, now=NOW)
    with connect(lost_calls.database_url) as connection:
        shown = sum_by_cause(spend.list_calls(connection, days=3_650))["not billed (reconciled)"]
    assert (shown.calls, shown.hits, shown.wasted, shown.cost_nothing) == (3, 0, 0, 3)
    assert lost_calls.sql("select calls, hits from analytics.spend where cause = 'not billed (reconciled)'") == [
        {"calls": 3, "hits": 0}
    ]
    stored = {hit["reason"] for hit in lost_calls.ledger() if hit["reconciled_at"] is not None}
    assert stored <= {"timeout: unknown", "transient"}, "the ledger keeps their first cause"


def test_returned_hits_can_be_spent_again(lost_calls: Workbench):
    lost_calls.sql("update songstats_quota_ledger set reserved_at = clock_timestamp()")
    with connect(lost_calls.database_url) as connection:
        assert songstats_ledger.budget(connection, hits_allowed=10).left == 1
        since, until = spend.read_window(connection, days=1)
        songstats_ledger.settle_unbilled(connection, since=since, until=until, calls=3)
        assert songstats_ledger.budget(connection, hits_allowed=10).left == 4


def test_another_user_of_the_key_returns_no_hit_and_is_reported(lost_calls: Workbench):
    async def another() -> None:
        async with lost_calls.dependencies.new_client() as client:
            for song in isrcs(8, start=300):
                await client.fetch_history(song)

    asyncio.run(another())
    result = reconcile(lost_calls.config, lost_calls.dependencies, now=NOW)
    assert (result.returned, result.kept) == (0, 5)
    assert "Another program uses the key" in result.reason
    assert lost_calls.sql("select * from operator_acts") == []


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 401}, {"body": "<html>"}, {"close": True}])
def test_an_unreachable_vendor_returns_no_hit_and_does_not_fail_the_reclaim_run(lost_calls: Workbench, fault: dict):
    lost_calls.sandbox.faults(STATUS, **fault)
    result = reconcile(lost_calls.config, lost_calls.dependencies, now=NOW)
    assert (result.returned, result.kept) == (0, 5)
    assert result.reason.startswith("unknown: Songstats gave no count (")
    swept = reclaim_backfill(lost_calls.config, lost_calls.dependencies)
    assert swept.returned == 0
    assert hits(lost_calls) == 9


def test_an_unsettled_call_prevents_the_reconciliation(lost_calls: Workbench):
    lost_calls.sql("update songstats_quota_ledger set settled_at = null, reason = null where song = %s", COUNTED[0])
    result = reconcile(lost_calls.config, lost_calls.dependencies, now=NOW)
    assert (result.returned, result.reason) == (0, "waiting: 1 call not settled yet")
    assert lost_calls.sandbox.requests(STATUS) == []
