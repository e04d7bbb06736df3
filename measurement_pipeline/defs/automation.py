"""How Dagster's daemons and our sensors and schedules stand: plain facts, for the checks and for `doctor`. Only reads.

What else the instance shows of a sensor and its runs is `machine`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from measurement_pipeline.defs.dagster_private import InstigatorState, InstigatorTick

# A daemon beats every 30 s. Dagster itself calls one healthy for half an hour after its last beat.
HEARTBEAT_TOLERANCE = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """How one sensor or schedule stands. `last_tick` None: it never ticked."""

    switched_off: bool = False
    last_tick: InstigatorTick | None = None


def quiet_daemons(instance: dg.DagsterInstance) -> dict[str, datetime | None]:
    """The daemons that have to run and do not beat, and when they last did; None: never."""
    beats = instance.get_daemon_heartbeats()
    last = {
        name: datetime.fromtimestamp(beats[name].timestamp, tz=UTC) if name in beats else None
        for name in sorted(instance.get_required_daemon_types())
    }
    patience_ends = datetime.now(UTC) - HEARTBEAT_TOLERANCE
    return {name: beat for name, beat in last.items() if beat is None or beat < patience_ends}


def read_statuses(instance: dg.DagsterInstance, names: Collection[str]) -> dict[str, DaemonStatus]:
    """How each of `names` stands. One that nobody has touched and that never ticked is as the code declares it: on."""
    found = {name: DaemonStatus() for name in names}
    for state in instance.all_instigator_state():
        if state.name in found:
            # A location that was renamed leaves its states behind: the one that ticked last is the one in use.
            found[state.name] = max(_read_status(instance, state), found[state.name], key=_last_ticked)
    return found


def _read_status(instance: dg.DagsterInstance, state: InstigatorState) -> DaemonStatus:
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
    return DaemonStatus(switched_off=not state.is_running, last_tick=next(iter(ticks), None))


def _last_ticked(standing: DaemonStatus) -> float:
    return 0.0 if standing.last_tick is None else standing.last_tick.timestamp
