"""States and their blockers, the reasons why nothing is bought."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from measurement_pipeline.domain.blockers import (
    BackfillState,
    Backlog,
    BlockerKind,
    backfill_blockers,
    call_blockers,
    describe,
    describe_all,
    queued_runs,
    runs_in_flight,
    vendor_outage,
)
from measurement_pipeline.domain.purchase_pause import PauseScope, PurchasePause
from measurement_pipeline.domain.vendor_state import Budget, VendorState

NOW = datetime(2026, 11, 24, 3, 19, tzinfo=UTC)
IN_AN_HOUR = NOW + timedelta(hours=1)

VENDOR = VendorState(
    breaker="closed",
    breaker_kind=None,
    reason=None,
    opened_at=None,
    paused_until=None,
    pause_reason=None,
    is_probe_allowed=False,
    pause_seconds_left=0.0,
    pauses_in_a_row=0,
    now=NOW,
)
OPEN = replace(VENDOR, breaker="open", breaker_kind="streak", reason="5 rejected", opened_at=NOW)
PAUSED = replace(VENDOR, paused_until=IN_AN_HOUR, pause_reason="Songstats asked for it", pauses_in_a_row=1)
BUDGET = Budget(allowed=900, hits=10, in_flight=0, calls_ever=10, next_hit_frees_at=NOW)
USED = replace(BUDGET, hits=900, next_hit_frees_at=NOW + timedelta(days=30))
BACKLOG = Backlog(
    waiting=7,
    payable=7,
    ready=7,
    in_progress=0,
    oldest_waiting=NOW,
    next_retry_at=None,
    last_error=None,
    last_settled=None,
    now=NOW,
)
EMPTY = replace(BACKLOG, waiting=0, payable=0, ready=0, oldest_waiting=None)
UNPAID = replace(BACKLOG, payable=0, ready=0, unpaid_accounts=("a-1", "a-2"))
RETRIES = replace(BACKLOG, ready=0, next_retry_at=IN_AN_HOUR, last_error="HTTP 502")
IN_PROGRESS = replace(BACKLOG, in_progress=7)

STOPPED = PurchasePause(PauseScope(), "new price list", "alice", NOW, IN_AN_HOUR)
HELD = {"paused": 2, "account_pauses": (replace(STOPPED, scope=PauseScope(account=UUID(int=1))),)}

K = BlockerKind


@pytest.mark.parametrize(
    ("vendor", "budget", "backlog", "kinds"),
    [
        (VENDOR, BUDGET, BACKLOG, []),
        (OPEN, BUDGET, BACKLOG, [K.BREAKER]),
        (PAUSED, BUDGET, BACKLOG, [K.PAUSE]),
        (replace(PAUSED, pauses_in_a_row=2), BUDGET, BACKLOG, [K.VENDOR]),
        (replace(VENDOR, pauses_in_a_row=2), BUDGET, BACKLOG, []),  # between two pauses a call is allowed
        (VENDOR, USED, BACKLOG, [K.BUDGET]),
        (VENDOR, replace(BUDGET, allowed=0, hits=0, next_hit_frees_at=None), BACKLOG, [K.BUDGET]),
        (VENDOR, BUDGET, EMPTY, [K.NOTHING_DUE]),
        (VENDOR, BUDGET, UNPAID, [K.PAYMENT]),
        (VENDOR, BUDGET, RETRIES, [K.RETRIES]),
        (VENDOR, BUDGET, IN_PROGRESS, [K.IN_PROGRESS]),
        (VENDOR, BUDGET, replace(IN_PROGRESS, in_progress=6), []),
        (VENDOR, BUDGET, replace(RETRIES, payable=3), [K.RETRIES, K.PARTLY_UNPAID]),
        (VENDOR, BUDGET, replace(BACKLOG, payable=3, ready=3), []),
        (replace(OPEN, paused_until=IN_AN_HOUR), USED, UNPAID, [K.BREAKER, K.PAYMENT, K.BUDGET, K.PAUSE]),
        (replace(PAUSED, pauses_in_a_row=3), USED, RETRIES, [K.VENDOR, K.BUDGET, K.RETRIES]),
        (replace(OPEN, operator_pause=STOPPED), USED, BACKLOG, [K.OPERATOR_PAUSE, K.BREAKER, K.BUDGET]),
        (VENDOR, BUDGET, replace(UNPAID, **HELD), [K.OPERATOR_PAUSE, K.PAYMENT]),
        (VENDOR, BUDGET, replace(UNPAID, **HELD, waiting=2), [K.OPERATOR_PAUSE]),
        (VENDOR, BUDGET, replace(RETRIES, **HELD, payable=5), [K.OPERATOR_PAUSE, K.RETRIES]),
    ],
)
def test_each_state_has_its_blockers_in_order(
    vendor: VendorState, budget: Budget, backlog: Backlog, kinds: list[BlockerKind]
):
    assert [blocker.kind for blocker in backfill_blockers(BackfillState(vendor, budget, backlog))] == kinds


def test_a_blocker_of_every_call_is_reported_without_a_backlog():
    assert [blocker.kind for blocker in call_blockers(OPEN, USED)] == [K.BREAKER, K.BUDGET]


@pytest.mark.parametrize(
    ("vendor", "budget", "backlog", "texts"),
    [
        (OPEN, BUDGET, BACKLOG, ["open since 2026-11-24 03:19 UTC: 5 rejected.", "breaker close", "--suspect"]),
        (replace(OPEN, breaker_kind="key"), BUDGET, BACKLOG, ["SONGSTATS_API_KEY", "`backfill_reclaim`"]),
        (PAUSED, BUDGET, BACKLOG, ["until 2026-11-24 04:19:00 UTC: Songstats asked for it.", "breaker close"]),
        (replace(PAUSED, is_probe_allowed=True), BUDGET, BACKLOG, ["`GET /status`"]),
        (replace(PAUSED, pauses_in_a_row=12), BUDGET, BACKLOG, ["12 pauses in a row", "2026-11-24 04:19:00 UTC"]),
        (
            VENDOR,
            USED,
            BACKLOG,
            [
                "Songstats quota used: 900 of 900 hits in the last 30 days. Next hit available 2026-12-24 03:19 UTC.",
                "SONGSTATS_HIT_LIMIT",
            ],
        ),
        (VENDOR, replace(USED, next_hit_frees_at=None), BACKLOG, ["0 hits", "SONGSTATS_HIT_RESERVE"]),
        (VENDOR, BUDGET, UNPAID, ["No payment method", "7 waiting recordings", "account a-1, a-2"]),
        (VENDOR, BUDGET, replace(UNPAID, unpaid_accounts=()), ["BACKFILL_ACCOUNT_ID"]),
        (VENDOR, BUDGET, RETRIES, ["7 recordings wait for a retry", "2026-11-24 04:19 UTC", "HTTP 502"]),
        (VENDOR, BUDGET, replace(IN_PROGRESS, in_progress=1, ready=1), ["1 recording is in progress"]),
        (VENDOR, BUDGET, EMPTY, ["No recording waits"]),
        (
            replace(VENDOR, operator_pause=STOPPED),
            BUDGET,
            BACKLOG,
            [
                "All purchases paused by alice until 2026-11-24 04:19 UTC: new price list.",
                "`measurement-pipeline resume`",
            ],
        ),
    ],
)
def test_a_text_has_the_figures_the_date_and_the_next_step(
    vendor: VendorState, budget: Budget, backlog: Backlog, texts: list[str]
):
    text = describe(backfill_blockers(BackfillState(vendor, budget, backlog))[0])
    assert [part for part in texts if part not in text] == []


def test_only_a_blocker_that_ends_by_itself_has_an_end():
    ends = {blocker.kind: blocker.ends_at for blocker in [*call_blockers(OPEN, USED), *call_blockers(PAUSED, BUDGET)]}
    assert ends == {K.BREAKER: None, K.BUDGET: USED.next_hit_frees_at, K.PAUSE: IN_AN_HOUR}


def test_an_outage_is_detected_between_two_pauses():
    outage = vendor_outage(replace(VENDOR, pauses_in_a_row=2))
    assert outage is not None
    assert "2 pauses in a row" in describe(outage)
    assert vendor_outage(PAUSED) is None


def test_runs_that_cover_all_due_rows_are_normal_operation():
    covered, queued = runs_in_flight(covered=40, due=60), queued_runs(2)
    assert "40 of 60 due recordings" in describe(covered)
    assert "2 queued runs" in describe(queued)
    assert covered.is_normal
    assert queued.is_normal


def test_normal_operation_is_described_only_without_other_blockers():
    unpaid = backfill_blockers(BackfillState(VENDOR, BUDGET, replace(IN_PROGRESS, waiting=9)))
    assert [blocker.kind for blocker in unpaid] == [K.PARTLY_UNPAID, K.IN_PROGRESS]
    assert "in progress" not in describe_all(unpaid)
    assert "in progress" in describe_all(unpaid[1:])
    assert describe_all([]) == ""
