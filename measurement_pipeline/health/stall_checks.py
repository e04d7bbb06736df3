"""When silence is an alarm, and what keeps things from moving. Pure: facts in, one finding out.

What stands in the way is told in order of precedence: first what stops everything until a person acts, then what passes by
itself, then what only looks like a cause. The first one is the reason; the others are told beside it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from measurement_pipeline.domain.blockers import BackfillState, BlockerKind, backfill_blockers, describe, vendor_outage
from measurement_pipeline.domain.text import counted
from measurement_pipeline.health.result import HealthResult, format_minute
from measurement_pipeline.postgres.health import Answering

# A run that has held the slot, or waited for it, for less is just doing its work.
_SOON = timedelta(minutes=10)


class Reason(StrEnum):
    """What stands in the way, in order of precedence."""

    DAEMON = "daemon not beating"
    SENSOR_OFF = "sensor stopped"
    SENSOR_FAILS = "sensor failing"
    BREAKER = "breaker open"
    PAYMENT = "payment"
    SLOT = "pool slot held"
    VENDOR = "vendor away"
    BUDGET = "budget spent"
    PAUSE = "vendor pause"
    RUNS = "runs failing"
    RETRIES = "retries"
    PUT_OFF = "put off"
    STRIPE = "not answered"
    UNKNOWN = "nothing known"


_REASON_OF = {
    BlockerKind.BREAKER: Reason.BREAKER,
    BlockerKind.PAYMENT: Reason.PAYMENT,
    BlockerKind.VENDOR: Reason.VENDOR,
    BlockerKind.BUDGET: Reason.BUDGET,
    BlockerKind.PAUSE: Reason.PAUSE,
    BlockerKind.RETRIES: Reason.RETRIES,
}

# Before that a run that holds the slot is at work, and what the last one put off may be bought by now.
_ONLY_IN_SILENCE = {Reason.SLOT, Reason.PUT_OFF, Reason.UNKNOWN}


@dataclass(frozen=True, slots=True)
class UnfinishedRun:
    """A Dagster run. `since`: when it reached the state in which it is. `line`: how it failed, where it did."""

    id: str
    since: datetime
    line: str | None = None


@dataclass(frozen=True, slots=True)
class InstanceState:
    """What Dagster's instance shows of one sensor and the runs that it launches.

    `quiet_daemons`: those that do not beat, and when they last did. `busy` and `queued`: the runs that hold the slot and wait
    for it, the oldest. `failed`: the last run that ended, where it failed, since when it ran. `put_off`: what the last run
    deferred, in words.
    """

    sensor: str
    switched_off: bool = False
    tick_error: str | None = None
    quiet_daemons: Mapping[str, datetime | None] = field(default_factory=dict)
    busy: UnfinishedRun | None = None
    queued: UnfinishedRun | None = None
    failed: UnfinishedRun | None = None
    put_off: str | None = None


@dataclass(frozen=True, slots=True)
class _Obstacle:
    """`ends_at`: when it passes by itself, where that is known."""

    reason: Reason
    words: str
    ends_at: datetime | None = None

    def outlasts(self, hours: float, *, now: datetime) -> bool:
        """Whether it is known today that it will still be there in so many hours."""
        return self.ends_at is not None and self.ends_at - now > timedelta(hours=hours)


def backfill_is_progressing(state: BackfillState, machine: InstanceState, *, alarm_hours: float) -> HealthResult:
    """Recordings wait that somebody wants bought, and none was settled for so long."""
    buying = state.backlog
    figures: dict[str, int | float | str] = {
        "recordings waiting": buying.waiting,
        "of these payable": buying.payable,
        "hits left": state.budget.left,
    }
    if buying.last_settled is not None:
        figures["last settled"] = format_minute(buying.last_settled)
    if buying.oldest_waiting is None:
        return HealthResult(True, "no recording waits to be bought", metadata=figures)
    # Waiting for less than that is no silence, however long ago the last purchase was.
    since = max(buying.oldest_waiting, buying.last_settled or buying.oldest_waiting)
    hours = (buying.now - since) / timedelta(hours=1)
    figures["oldest waiting since"] = format_minute(buying.oldest_waiting)
    figures["hours of silence"] = round(hours, 1)
    waiting = counted(buying.waiting, "recording waits", "recordings wait")
    found = list(_what_stops_buying(state, machine, since))
    lasting = [obstacle for obstacle in found if obstacle.outlasts(alarm_hours, now=buying.now)]
    if hours > alarm_hours:
        return _silent(
            f"{waiting}, and none was settled since {format_minute(since)}", found, figures, alarm_hours, buying.now
        )
    if lasting:
        # The date is known: an alarm in some hours would say the same, later.
        return _silent(waiting, lasting, figures, alarm_hours, buying.now)
    return _no_alarm_yet(waiting, found, figures, alarm_hours=alarm_hours)


def intake_is_progressing(answering: Answering, machine: InstanceState, *, alarm_hours: float) -> HealthResult:
    """Requests stay queued for so long: intake is silent."""
    figures: dict[str, int | float | str] = {"requests queued": answering.waiting}
    if answering.oldest is None:
        return HealthResult(True, "no request waits for an answer", metadata=figures)
    hours = (answering.now - answering.oldest) / timedelta(hours=1)
    figures["oldest queued since"] = format_minute(answering.oldest)
    found = [
        *_what_stops_everything(machine),
        *_what_holds_the_slot(machine, answering.now),
        *_failing_runs(machine, answering.oldest),
    ]
    if answering.error is not None:
        found.append(_Obstacle(Reason.STRIPE, f"the oldest one says: {answering.error}"))
    found.append(_nothing_known(machine))
    if hours <= alarm_hours:
        waiting = counted(answering.waiting, "request waits", "requests wait")
        return _no_alarm_yet(waiting, found, figures, alarm_hours=alarm_hours)
    queued = counted(answering.waiting, "request is queued", "requests are queued")
    return _silent(
        f"{queued}, the oldest since {format_minute(answering.oldest)}", found, figures, alarm_hours, answering.now
    )


def _no_alarm_yet(
    waiting: str, found: list[_Obstacle], figures: Mapping[str, int | float | str], *, alarm_hours: float
) -> HealthResult:
    """Passes; but what is known to stand in the way is told already."""
    known = next((obstacle for obstacle in found if obstacle.reason not in _ONLY_IN_SILENCE), None)
    return HealthResult(
        passed=True,
        reason="" if known is None else known.reason.value,
        message=f"{waiting}{'' if known is None else f': {known.words}'}; silence is an alarm after {alarm_hours:g} hours",
        metadata=figures,
    )


def captures_are_progressing(capturing: Answering, machine: InstanceState, *, alarm_hours: float) -> HealthResult:
    """Captures stay open for so long."""
    figures: dict[str, int | float | str] = {"captures open": capturing.waiting}
    if capturing.oldest is None:
        return HealthResult(True, "no capture waits to be made", metadata=figures)
    hours = (capturing.now - capturing.oldest) / timedelta(hours=1)
    figures["oldest open since"] = format_minute(capturing.oldest)
    found = [
        *_what_stops_everything(machine),
        *_what_holds_the_slot(machine, capturing.now),
        *_failing_runs(machine, capturing.oldest),
    ]
    if capturing.error is not None:
        found.append(_Obstacle(Reason.VENDOR, f"the oldest one says: {capturing.error}"))
    found.append(_nothing_known(machine))
    waiting = counted(capturing.waiting, "capture is open", "captures are open")
    if hours <= alarm_hours:
        return _no_alarm_yet(waiting, found, figures, alarm_hours=alarm_hours)
    return _silent(
        f"{waiting}, the oldest since {format_minute(capturing.oldest)}", found, figures, alarm_hours, capturing.now
    )


def _silent(
    what: str,
    found: list[_Obstacle],
    figures: Mapping[str, int | float | str],
    alarm_hours: float,
    now: datetime,
) -> HealthResult:
    first, *others = found
    # One that ends within the alarm's hours needs no person.
    serious = first.ends_at is None or first.outlasts(alarm_hours, now=now)
    # That nothing is known is only worth a word where it is the only one.
    also = [other.words for other in others if other.reason is not Reason.UNKNOWN]
    return HealthResult(
        passed=False,
        should_alert=serious,
        reason=first.reason.value,
        message=f"{what}: {first.words}",
        metadata={**figures, "reason": first.reason.value, **({"also": "; ".join(also)} if also else {})},
    )


def _what_stops_buying(state: BackfillState, machine: InstanceState, since: datetime) -> Iterator[_Obstacle]:
    """The instance's obstacles and the blockers of `domain/blockers`, in order of precedence."""
    outage = vendor_outage(state.vendor)
    blockers = [one for one in backfill_blockers(state) if one.kind is not BlockerKind.VENDOR]
    found = [
        *_what_stops_everything(machine),
        *_what_holds_the_slot(machine, state.backlog.now),
        *_failing_runs(machine, since),
        *(
            _Obstacle(_REASON_OF[one.kind], describe(one), ends_at=one.ends_at)
            for one in (blockers if outage is None else [*blockers, outage])
            if one.kind in _REASON_OF
        ),
    ]
    if machine.put_off is not None:
        found.append(_Obstacle(Reason.PUT_OFF, f"the last run put them off: {machine.put_off}"))
    order = list(Reason)
    yield from sorted(found, key=lambda obstacle: order.index(obstacle.reason))
    yield _nothing_known(machine)


def _what_stops_everything(machine: InstanceState) -> Iterator[_Obstacle]:
    if machine.quiet_daemons:
        who = ", ".join(
            f"{name} since {format_minute(beat)}" if beat else f"{name} never did"
            for name, beat in sorted(machine.quiet_daemons.items())
        )
        yield _Obstacle(Reason.DAEMON, f"Dagster's daemon does not beat ({who}); restart it")
    if machine.switched_off:
        yield _Obstacle(Reason.SENSOR_OFF, f"{machine.sensor} is switched off; switch it on (Automation)")
    if machine.tick_error is not None:
        yield _Obstacle(Reason.SENSOR_FAILS, f"the last tick of {machine.sensor} failed: {machine.tick_error}")


def _what_holds_the_slot(machine: InstanceState, now: datetime) -> Iterator[_Obstacle]:
    busy, queued = machine.busy, machine.queued
    if busy is not None and now - busy.since > _SOON:
        since = format_minute(busy.since)
        words = f"run {busy.id} holds the slot since {since} and settles nothing; look at it, then terminate it"
        yield _Obstacle(Reason.SLOT, words)
    elif busy is None and queued is not None and now - queued.since > _SOON:
        words = f"run {queued.id} is queued since {format_minute(queued.since)} and does not start; see what else is running"
        yield _Obstacle(Reason.SLOT, words)


def _failing_runs(machine: InstanceState, since: datetime) -> Iterator[_Obstacle]:
    # One that began before the silence had settled something, and is no reason for what came after.
    if machine.failed is not None and machine.failed.since > since:
        yield _Obstacle(Reason.RUNS, f"runs fail; the last one, {machine.failed.id}, with: {machine.failed.line}")


def _nothing_known(machine: InstanceState) -> _Obstacle:
    words = f"nothing known stands in the way; look at the last ticks of {machine.sensor} and at the last runs"
    return _Obstacle(Reason.UNKNOWN, words)
