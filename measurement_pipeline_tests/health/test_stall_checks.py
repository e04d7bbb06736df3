"""When missing progress is an alarm, and which cause is reported."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from measurement_pipeline.domain.blockers import BackfillState, Backlog, BlockerKind
from measurement_pipeline.domain.vendor_state import Budget, VendorState
from measurement_pipeline.health.result import HealthResult
from measurement_pipeline.health.stall_checks import (
    InstanceState,
    UnfinishedRun,
    backfill_is_progressing,
    intake_is_progressing,
)
from measurement_pipeline.postgres.health import SettlingProgress

NOW = datetime(2026, 9, 22, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)

BACKLOG = Backlog(
    waiting=7,
    payable=7,
    ready=7,
    in_progress=0,
    oldest_waiting=NOW - 30 * HOUR,
    next_retry_at=None,
    last_error=None,
    last_settled=NOW - 7 * HOUR,
    now=NOW,
)
CALM = VendorState(
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
BUDGET = Budget(allowed=900, hits=10, in_flight=0, calls_ever=10, next_hit_frees_at=NOW + HOUR)
MACHINE = InstanceState("backfill_queue_sensor")


def check_backfill(
    backlog: Backlog = BACKLOG, vendor: VendorState = CALM, budget: Budget = BUDGET, machine: InstanceState = MACHINE
) -> HealthResult:
    return backfill_is_progressing(BackfillState(vendor, budget, backlog), machine, alarm_hours=6)


def test_without_waiting_recordings_the_check_passes():
    result = check_backfill(replace(BACKLOG, waiting=0, payable=0, ready=0, oldest_waiting=None))
    assert result.passed
    assert "no recording waits" in result.message


@pytest.mark.parametrize("buys", [True, False])
def test_a_blocker_is_reported_before_the_alarm(buys: bool):
    off = replace(MACHINE, switched_off=True, busy=UnfinishedRun("run", NOW - HOUR), deferred="3 × budget")
    for machine, reason in ((off, "sensor stopped"), (replace(off, switched_off=False), "")):
        result = (
            check_backfill(replace(BACKLOG, waiting=1, last_settled=NOW - HOUR), machine=machine)
            if buys
            else intake_is_progressing(SettlingProgress(1, NOW - HOUR, None, NOW), machine, alarm_hours=6)
        )
        assert (result.passed, result.reason) == (True, reason)
        held = ": backfill_queue_sensor is switched off; switch it on (Automation)" if reason else ""
        what = "1 recording waits" if buys else "1 request waits"
        assert result.message == f"{what}{held}; alarm after 6 hours without progress"


@pytest.mark.parametrize(
    ("waiting_hours", "settled_hours", "passed"),
    [
        (30, 7, False),
        (30, 5, True),
        (5, 40, True),  # nothing has waited that long
        (7, None, False),  # never, since the oldest waits
        (5, None, True),
    ],
)
def test_the_time_counts_from_the_last_settled_row_or_the_oldest_waiting_one(
    waiting_hours: int, settled_hours: int | None, passed: bool
):
    settled = None if settled_hours is None else NOW - settled_hours * HOUR
    result = check_backfill(replace(BACKLOG, oldest_waiting=NOW - waiting_hours * HOUR, last_settled=settled))
    assert result.passed is passed


PAUSED = replace(CALM, paused_until=NOW + HOUR, pause_reason="Songstats asked for it", pauses_in_a_row=1)
OPEN = replace(CALM, breaker="open", breaker_kind="streak", reason="5 rejected in a row")
SPENT = replace(BUDGET, hits=900)
FAILED = UnfinishedRun("run-9", NOW - HOUR, "the store is full")

# Cause, in order of precedence → its facts, key words of the message, whether it alerts a person.
CAUSES = {
    BlockerKind.DAEMON: (
        {"machine": {"silent_daemons": {"SENSOR": NOW - 9 * HOUR}}},
        "SENSOR since 2026-09-22 03:00 UTC",
        True,
    ),
    BlockerKind.SENSOR_OFF: ({"machine": {"switched_off": True}}, "backfill_queue_sensor is switched off", True),
    BlockerKind.SENSOR_FAILS: ({"machine": {"tick_error": "no such table"}}, "failed: no such table", True),
    BlockerKind.BREAKER: ({"vendor": OPEN}, "open: 5 rejected in a row", True),
    BlockerKind.PAYMENT: (
        {"backlog": {"payable": 0, "ready": 0, "unpaid_accounts": ("a-1",)}},
        "Ask for a card: account a-1.",
        True,
    ),
    BlockerKind.SLOT: ({"machine": {"busy": UnfinishedRun("run-7", NOW - HOUR)}}, "run run-7 has held the slot", True),
    BlockerKind.VENDOR: ({"vendor": replace(PAUSED, pauses_in_a_row=12)}, "12 pauses in a row", True),
    BlockerKind.BUDGET: (
        {"budget": SPENT},
        "900 of 900 hits in the last 30 days. Next hit available 2026-09-22 13:00 UTC.",
        False,
    ),
    BlockerKind.PAUSE: ({"vendor": PAUSED}, "Songstats asked for it", False),
    BlockerKind.FAILING_RUNS: ({"machine": {"failed": FAILED}}, "the last one, run-9, with: the store is full", True),
    BlockerKind.RETRIES: (
        {"backlog": {"ready": 0, "next_retry_at": NOW + HOUR, "last_error": "502"}},
        "for a retry, the next at 2026-09-22 13:00 UTC. Last error: 502",
        True,
    ),
    BlockerKind.DEFERRED: ({"machine": {"deferred": "7 × Stripe gave no answer"}}, "7 × Stripe gave no answer", True),
    BlockerKind.UNKNOWN: ({}, "no known blocker", True),
}


def facts(*reasons: BlockerKind) -> dict[str, object]:
    backlog, machine = BACKLOG, MACHINE
    result: dict[str, object] = {}
    for reason in reasons:
        given, _, _ = CAUSES[reason]
        backlog = replace(backlog, **given.get("backlog", {}))
        machine = replace(machine, **given.get("machine", {}))
        result |= {name: value for name, value in given.items() if name in ("vendor", "budget")}
    return {**result, "backlog": backlog, "machine": machine}


@pytest.mark.parametrize("reason", CAUSES)
def test_each_cause_is_reported_with_its_figures(reason: BlockerKind):
    _, words, should_alert = CAUSES[reason]
    result = check_backfill(**facts(reason))  # type: ignore[arg-type]
    assert not result.passed
    assert result.reason == reason
    assert words in result.message
    assert result.message.startswith("7 recordings wait, and none was settled since 2026-09-22 05:00 UTC: ")
    assert result.should_alert is should_alert


@pytest.mark.parametrize(("first", "second"), list(pairwise(CAUSES)))
def test_of_two_causes_the_first_is_the_reason_and_the_other_is_listed(first: BlockerKind, second: BlockerKind):
    result = check_backfill(**facts(second, first))  # type: ignore[arg-type]
    assert result.reason == first
    if second is not BlockerKind.UNKNOWN and {first, second} != {BlockerKind.VENDOR, BlockerKind.PAUSE}:
        assert CAUSES[second][1] in str(result.metadata["also"])


@pytest.mark.parametrize("reason", [BlockerKind.PAUSE, BlockerKind.BUDGET])
@pytest.mark.parametrize(("ends_in", "settled", "passed", "serious"), [
    (7 * HOUR, HOUR, False, True),  # the end is known today
    (30 * 24 * HOUR, HOUR, False, True),
    (5 * HOUR, HOUR, True, False),
    (5 * HOUR, 7 * HOUR, False, False),  # it ends by itself soon
    (7 * HOUR, 7 * HOUR, False, True),
])  # fmt: skip
def test_a_pause_or_a_spent_budget_longer_than_the_alarm_time_alerts_at_once(
    reason: BlockerKind, ends_in: timedelta, settled: timedelta, passed: bool, serious: bool
):
    end = NOW + ends_in
    given = (
        {"vendor": replace(PAUSED, paused_until=end)}
        if reason is BlockerKind.PAUSE
        else {"budget": replace(SPENT, next_hit_frees_at=end)}
    )
    result = check_backfill(replace(BACKLOG, last_settled=NOW - settled), **given)  # type: ignore[arg-type]
    assert (result.passed, result.should_alert, result.reason) == (passed, serious, reason)
    if not passed:
        assert f"{end:%Y-%m-%d %H:%M}" in result.message
        assert ("breaker close" if reason is BlockerKind.PAUSE else "SONGSTATS_HIT_LIMIT") in result.message


def test_a_long_pause_is_no_alarm_without_waiting_recordings():
    assert check_backfill(
        replace(BACKLOG, waiting=0, oldest_waiting=None), replace(PAUSED, paused_until=NOW + 99 * HOUR)
    ).passed


def test_a_vendor_outage_is_the_reason_between_two_pauses():
    between = replace(CALM, pauses_in_a_row=12)
    result = check_backfill(vendor=between, machine=replace(MACHINE, deferred="7 × paused"))
    assert result.reason == BlockerKind.VENDOR
    assert "12 pauses in a row" in result.message
    assert check_backfill(vendor=replace(between, pauses_in_a_row=1)).reason == BlockerKind.UNKNOWN


def test_a_run_that_has_just_started_is_no_cause():
    assert (
        check_backfill(machine=replace(MACHINE, busy=UnfinishedRun("run-7", NOW - timedelta(minutes=3)))).reason
        == BlockerKind.UNKNOWN
    )


def test_a_run_that_stays_queued_is_reported():
    result = check_backfill(machine=replace(MACHINE, queued=UnfinishedRun("run-8", NOW - HOUR)))
    assert result.reason == BlockerKind.SLOT
    assert "run-8 has been queued since 2026-09-22 11:00 UTC and has not started" in result.message


def test_a_run_that_settled_the_last_row_before_it_failed_is_no_cause():
    assert (
        check_backfill(machine=replace(MACHINE, failed=UnfinishedRun("run-9", NOW - 8 * HOUR, "old"))).reason
        == BlockerKind.UNKNOWN
    )


def test_a_rejected_key_and_a_streak_have_different_next_steps():
    assert "SONGSTATS_API_KEY" in check_backfill(vendor=replace(OPEN, breaker_kind="key")).message
    assert "breaker close" in check_backfill(vendor=OPEN).message


ANSWERING = SettlingProgress(waiting=2, oldest=NOW - 7 * HOUR, error=None, now=NOW)
INTAKE = InstanceState("measurement_job_sensor")


@pytest.mark.parametrize(
    ("machine", "error", "reason", "words"),
    [
        (INTAKE, None, BlockerKind.UNKNOWN, "measurement_job_sensor"),
        (replace(INTAKE, switched_off=True), None, BlockerKind.SENSOR_OFF, "measurement_job_sensor is switched off"),
        (replace(INTAKE, silent_daemons={"SENSOR": None}), None, BlockerKind.DAEMON, "SENSOR never had one"),
        (
            replace(INTAKE, failed=UnfinishedRun("run-3", NOW - HOUR, "no table")),
            None,
            BlockerKind.FAILING_RUNS,
            "with: no table",
        ),
        (INTAKE, "Stripe refused the key", BlockerKind.STRIPE, "Stripe refused the key"),
    ],
)
def test_requests_that_stay_queued_fail_the_check(
    machine: InstanceState, error: str | None, reason: BlockerKind, words: str
):
    result = intake_is_progressing(replace(ANSWERING, error=error), machine, alarm_hours=6)
    assert not result.passed
    assert result.should_alert
    assert result.reason == reason
    assert "2 requests are queued, the oldest since 2026-09-22 05:00 UTC" in result.message
    assert words in result.message


def test_a_request_that_waits_for_minutes_passes():
    assert intake_is_progressing(replace(ANSWERING, oldest=NOW - HOUR), INTAKE, alarm_hours=6).passed
    assert intake_is_progressing(replace(ANSWERING, waiting=0, oldest=None), INTAKE, alarm_hours=6).passed
