"""Checks that backfill, intake and captures make progress, and what blocks them. Pure.

The first blocker in the order of `BlockerKind` is the reason. The message or metadata lists the others.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from measurement_pipeline.domain.blockers import (
    BackfillState,
    Blocker,
    BlockerKind,
    backfill_blockers,
    describe,
    in_order,
    vendor_outage,
)
from measurement_pipeline.domain.text import counted, utc_minute
from measurement_pipeline.health.result import HealthResult
from measurement_pipeline.postgres.health import SettlingProgress

# A run that has held or waited for the slot for less time is normal.
_SOON = timedelta(minutes=10)


# Reported only after the alarm time: before it the run is working, and deferred recordings may have been bought since.
_ONLY_AFTER_ALARM = {BlockerKind.SLOT, BlockerKind.DEFERRED, BlockerKind.UNKNOWN}


@dataclass(frozen=True, slots=True)
class UnfinishedRun:
    """A Dagster run. `since`: when it reached its current state. `line`: its error, if it failed."""

    id: str
    since: datetime
    line: str | None = None


@dataclass(frozen=True, slots=True)
class InstanceState:
    """State of one sensor and of the runs that it launches, from Dagster's instance.

    `silent_daemons`: daemons without a recent heartbeat, and the time of the last. `busy` and `queued`: the oldest run that holds
    the slot or waits for it. `failed`: the last finished run if it failed; `since` is its start. `deferred`: description of what
    the last run deferred.
    """

    sensor: str
    switched_off: bool = False
    tick_error: str | None = None
    silent_daemons: Mapping[str, datetime | None] = field(default_factory=dict)
    busy: UnfinishedRun | None = None
    queued: UnfinishedRun | None = None
    failed: UnfinishedRun | None = None
    deferred: str | None = None


def backfill_is_progressing(state: BackfillState, instance: InstanceState, *, alarm_hours: float) -> HealthResult:
    """Fail if requested recordings wait and none was settled for `alarm_hours`, or a known blocker will last that long."""
    buying = state.backlog
    metadata: dict[str, int | float | str] = {
        "recordings waiting": buying.waiting,
        "of these payable": buying.payable,
        "hits left": state.budget.left,
    }
    if buying.last_settled is not None:
        metadata["last settled"] = utc_minute(buying.last_settled)
    if buying.oldest_waiting is None:
        return HealthResult(True, "no recording waits to be bought", metadata=metadata)
    # Counted from the oldest waiting recording, however long ago the last purchase was.
    since = max(buying.oldest_waiting, buying.last_settled or buying.oldest_waiting)
    hours = (buying.now - since) / timedelta(hours=1)
    metadata["oldest waiting since"] = utc_minute(buying.oldest_waiting)
    metadata["hours without progress"] = round(hours, 1)
    waiting = counted(buying.waiting, "recording waits", "recordings wait")
    found = _backfill_causes(state, instance, since)
    # A pause that an operator gave an end is deliberate: no alert for it.
    lasting = [
        cause
        for cause in found
        if _outlasts(cause, alarm_hours, now=buying.now) and cause.kind is not BlockerKind.OPERATOR_PAUSE
    ]
    if hours > alarm_hours:
        return _fail_after_alarm(
            f"{waiting}, and none was settled since {utc_minute(since)}", found, metadata, alarm_hours, buying.now
        )
    if lasting:
        # The end is known, so alert now: an alarm in some hours would state the same.
        return _fail_after_alarm(waiting, lasting, metadata, alarm_hours, buying.now)
    return _pass_before_alarm(waiting, found, metadata, alarm_hours=alarm_hours)


def intake_is_progressing(answering: SettlingProgress, instance: InstanceState, *, alarm_hours: float) -> HealthResult:
    """Fail if requests have been queued for `alarm_hours`."""
    metadata: dict[str, int | float | str] = {"requests queued": answering.waiting}
    if answering.oldest is None:
        return HealthResult(True, "no request waits for an answer", metadata=metadata)
    hours = (answering.now - answering.oldest) / timedelta(hours=1)
    metadata["oldest queued since"] = utc_minute(answering.oldest)
    found = [
        *_instance_causes(instance),
        *_slot_causes(instance, answering.now),
        *_failed_run_causes(instance, answering.oldest),
    ]
    if answering.error is not None:
        found.append(Blocker(BlockerKind.STRIPE, f"the oldest one says: {answering.error}"))
    found.append(_unknown_cause(instance))
    if hours <= alarm_hours:
        waiting = counted(answering.waiting, "request waits", "requests wait")
        return _pass_before_alarm(waiting, found, metadata, alarm_hours=alarm_hours)
    queued = counted(answering.waiting, "request is queued", "requests are queued")
    return _fail_after_alarm(
        f"{queued}, the oldest since {utc_minute(answering.oldest)}", found, metadata, alarm_hours, answering.now
    )


def _pass_before_alarm(
    waiting: str, found: list[Blocker], metadata: Mapping[str, int | float | str], *, alarm_hours: float
) -> HealthResult:
    """Pass, and report a known blocker already."""
    known = next((cause for cause in found if cause.kind not in _ONLY_AFTER_ALARM), None)
    return HealthResult(
        passed=True,
        reason="" if known is None else known.kind.value,
        message=f"{waiting}{'' if known is None else f': {describe(known)}'}; alarm after {alarm_hours:g} hours without progress",
        metadata=metadata,
    )


def captures_are_progressing(
    capturing: SettlingProgress, instance: InstanceState, *, alarm_hours: float
) -> HealthResult:
    """Fail if captures have been open for `alarm_hours`."""
    metadata: dict[str, int | float | str] = {"captures open": capturing.waiting}
    if capturing.oldest is None:
        return HealthResult(True, "no capture waits to be made", metadata=metadata)
    hours = (capturing.now - capturing.oldest) / timedelta(hours=1)
    metadata["oldest open since"] = utc_minute(capturing.oldest)
    found = [
        *_instance_causes(instance),
        *_slot_causes(instance, capturing.now),
        *_failed_run_causes(instance, capturing.oldest),
    ]
    if capturing.error is not None:
        found.append(Blocker(BlockerKind.VENDOR, f"the oldest one says: {capturing.error}"))
    found.append(_unknown_cause(instance))
    waiting = counted(capturing.waiting, "capture is open", "captures are open")
    if hours <= alarm_hours:
        return _pass_before_alarm(waiting, found, metadata, alarm_hours=alarm_hours)
    return _fail_after_alarm(
        f"{waiting}, the oldest since {utc_minute(capturing.oldest)}", found, metadata, alarm_hours, capturing.now
    )


def _fail_after_alarm(
    what: str,
    found: list[Blocker],
    metadata: Mapping[str, int | float | str],
    alarm_hours: float,
    now: datetime,
) -> HealthResult:
    first, *others = found
    # A blocker that ends within the alarm time needs no person.
    should_alert = first.ends_at is None or (
        _outlasts(first, alarm_hours, now=now) and first.kind is not BlockerKind.OPERATOR_PAUSE
    )
    # "Unknown" is only useful as the only cause.
    also = [describe(other) for other in others if other.kind is not BlockerKind.UNKNOWN]
    return HealthResult(
        passed=False,
        should_alert=should_alert,
        reason=first.kind.value,
        message=f"{what}: {describe(first)}",
        metadata={**metadata, "reason": first.kind.value, **({"also": "; ".join(also)} if also else {})},
    )


def _backfill_causes(state: BackfillState, instance: InstanceState, since: datetime) -> list[Blocker]:
    """The blockers in Dagster's instance and those of `domain/blockers`, in order of precedence."""
    outage = vendor_outage(state.vendor)
    found = [
        *_instance_causes(instance),
        *_slot_causes(instance, state.backlog.now),
        *_failed_run_causes(instance, since),
        *(
            one
            for one in backfill_blockers(state)
            if not one.is_normal and one.kind not in {BlockerKind.VENDOR, BlockerKind.PARTLY_UNPAID}
        ),
        *([] if outage is None else [outage]),
    ]
    if instance.deferred is not None:
        found.append(Blocker(BlockerKind.DEFERRED, f"the last run deferred them: {instance.deferred}"))
    return [*in_order(found), _unknown_cause(instance)]


def _outlasts(blocker: Blocker, hours: float, *, now: datetime) -> bool:
    """Whether the blocker is known to last longer than `hours` from now."""
    return blocker.ends_at is not None and blocker.ends_at - now > timedelta(hours=hours)


def _instance_causes(instance: InstanceState) -> Iterator[Blocker]:
    if instance.silent_daemons:
        who = ", ".join(
            f"{name} since {utc_minute(last)}" if last else f"{name} never had one"
            for name, last in sorted(instance.silent_daemons.items())
        )
        yield Blocker(BlockerKind.DAEMON, f"Dagster's daemon has no heartbeat ({who}): restart it")
    if instance.switched_off:
        yield Blocker(BlockerKind.SENSOR_OFF, f"{instance.sensor} is switched off; switch it on (Automation)")
    if instance.tick_error is not None:
        yield Blocker(BlockerKind.SENSOR_FAILS, f"the last tick of {instance.sensor} failed: {instance.tick_error}")


def _slot_causes(instance: InstanceState, now: datetime) -> Iterator[Blocker]:
    busy, queued = instance.busy, instance.queued
    if busy is not None and now - busy.since > _SOON:
        since = utc_minute(busy.since)
        message = f"run {busy.id} has held the slot since {since} and settled nothing: check it, then terminate it"
        yield Blocker(BlockerKind.SLOT, message)
    elif busy is None and queued is not None and now - queued.since > _SOON:
        message = (
            f"run {queued.id} has been queued since {utc_minute(queued.since)} and has not started: check other runs"
        )
        yield Blocker(BlockerKind.SLOT, message)


def _failed_run_causes(instance: InstanceState, since: datetime) -> Iterator[Blocker]:
    # A run that started before `since` settled something, so it does not explain the time after.
    if instance.failed is not None and instance.failed.since > since:
        yield Blocker(
            BlockerKind.FAILING_RUNS, f"runs fail; the last one, {instance.failed.id}, with: {instance.failed.line}"
        )


def _unknown_cause(instance: InstanceState) -> Blocker:
    message = f"no known blocker: check the last ticks of {instance.sensor} and the last runs"
    return Blocker(BlockerKind.UNKNOWN, message)
