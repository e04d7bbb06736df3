"""The status of Dagster's daemons and of our sensors and schedules, for the checks and for `doctor`. Only reads."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from measurement_pipeline.defs.dagster_private import InstigatorState, InstigatorTick

# A daemon writes a heartbeat every 30 s. Dagster itself calls it healthy for half an hour after the last one.
HEARTBEAT_TOLERANCE = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class AutomationStatus:
    """The status of one sensor or schedule. `last_tick` None: it never ticked."""

    switched_off: bool = False
    last_tick: InstigatorTick | None = None


def read_silent_daemons(instance: dg.DagsterInstance) -> dict[str, datetime | None]:
    """The required daemons without a recent heartbeat, with the time of their last one. None: never."""
    heartbeats = instance.get_daemon_heartbeats()
    last = {
        name: datetime.fromtimestamp(heartbeats[name].timestamp, tz=UTC) if name in heartbeats else None
        for name in sorted(instance.get_required_daemon_types())
    }
    oldest_allowed = datetime.now(UTC) - HEARTBEAT_TOLERANCE
    return {name: last_at for name, last_at in last.items() if last_at is None or last_at < oldest_allowed}


def read_statuses(instance: dg.DagsterInstance, names: Collection[str]) -> dict[str, AutomationStatus]:
    """The status of each of `names`. One that was never switched and never ticked is as the code declares it: on."""
    statuses = {name: AutomationStatus() for name in names}
    for state in instance.all_instigator_state():
        if state.name in statuses:
            # A renamed code location leaves its old states behind: the state that ticked last is the current one.
            statuses[state.name] = max(_read_status(instance, state), statuses[state.name], key=_last_ticked)
    return statuses


def _read_status(instance: dg.DagsterInstance, state: InstigatorState) -> AutomationStatus:
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
    return AutomationStatus(switched_off=not state.is_running, last_tick=next(iter(ticks), None))


def _last_ticked(status: AutomationStatus) -> float:
    return 0.0 if status.last_tick is None else status.last_tick.timestamp
