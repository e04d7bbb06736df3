"""Named moments at which a process can be killed, without a hook in the code that runs: the database holds it there.

A trigger in the test's own database makes the process wait at a point, for a lock that the test holds; the test sees who waits,
kills it, and decides what becomes of the statement that it was in the middle of.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from psycopg import sql

from measurement_pipeline.postgres.database import Connection, connect
from measurement_pipeline_tests.faults.waiting import until


class In(StrEnum):
    """Which of the two databases a point lies in."""

    MEASUREMENTS = "measurements"
    DAGSTER = "dagster"


@dataclass(frozen=True)
class CrashPoint:
    """The moment before a row of `table` is written by `event`, as far as `when` (of `new` and `old`) fits."""

    name: str
    table: str
    event: str
    when: str = "true"
    database: In = In.MEASUREMENTS


AFTER_THE_CLAIM = CrashPoint("after the claim", "songstats_quota_ledger", "insert")
# Met only where calls are paced.
AFTER_THE_RESERVATION = CrashPoint("after the reservation", "vendor_state", "update of next_call_at")
AFTER_THE_ANSWER = CrashPoint(
    "after the answer came, before it is kept", "songstats_quota_ledger", "update of settled_at"
)
AFTER_KEEPING = CrashPoint(
    "after the answer is kept",
    "songstats_backfill_queue",
    "update of status",
    "old.status = 'in_progress' and new.status <> 'in_progress'",
)
WHILE_STORING = CrashPoint("in the middle of the store transaction", "song_measurements", "insert")
AFTER_STORING = CrashPoint(
    "after the store transaction, before the materialization",
    "event_logs",
    "insert",
    "new.dagster_event_type = 'ASSET_MATERIALIZATION'",
    In.DAGSTER,
)
WHILE_PUTTING_BACK = CrashPoint(
    "during the reclaim, at a row",
    "songstats_backfill_queue",
    "update of status",
    "new.status in ('pending', 'failed') and old.status <> new.status",
)
WHILE_SETTLING_HITS = CrashPoint("during the reclaim, at a hit", "songstats_quota_ledger", "update of settled_at")
WHILE_ENQUEUEING = CrashPoint("during the enqueue", "songstats_backfill_queue", "insert")
BEFORE_ACCEPTING = CrashPoint(
    "during the enqueue, before the acceptance", "measurement_jobs", "update of state", "new.state = 'accepted'"
)
BEFORE_THE_START = CrashPoint("after its intent, before the actor is started", "apify_runs", "insert")
AFTER_THE_START = CrashPoint(
    "after the actor was started, before its id is kept",
    "apify_runs",
    "update of actor_run",
    "new.actor_run is not null and old.actor_run is null",
)
AFTER_THE_ID = CrashPoint(
    "after the id of the actor's run is kept", "apify_runs", "update of status", "old.actor_run is not null"
)
AFTER_THE_RESULT = CrashPoint("after the actor's result came, before it is kept", "apify_runs", "update of kept_at")
AFTER_KEEPING_THE_RESULT = CrashPoint("after the actor's result is kept", "songs", "insert")
BEFORE_THE_END = CrashPoint(
    "after all is stored, before it is finished", "playcount_snapshots", "update of state", "new.state = 'done'"
)

BACKFILL = (AFTER_THE_CLAIM, AFTER_THE_RESERVATION, AFTER_THE_ANSWER, AFTER_KEEPING, WHILE_STORING)
"""The points of a run over its recordings, in the order in which it meets them."""

CAPTURE = (
    BEFORE_THE_START,
    AFTER_THE_START,
    AFTER_THE_ID,
    AFTER_THE_RESULT,
    AFTER_KEEPING_THE_RESULT,
    WHILE_STORING,
    BEFORE_THE_END,
)
"""The points of a capture, in the order in which its run meets them."""

# Ours alone, among the advisory locks of the database.
_KEY = (0x0FA17, 1)

# Counted by a sequence, which no rollback takes back: whoever comes after the victim passes.
_ARM = """
create sequence crash_point_met;
create function crash_point() returns trigger language plpgsql as $$
begin
    if nextval('crash_point_met') = {occurrence} then
        perform pg_advisory_xact_lock({one}, {two});
    end if;
    return new;
end $$;
create trigger crash_point before {event} on {table} for each row when ({when}) execute function crash_point();
"""
_DISARM = """
drop trigger crash_point on {table};
drop function crash_point;
drop sequence crash_point_met;
"""
_WAITING = """
select activity.pid, activity.application_name
from pg_locks as lock
inner join pg_stat_activity as activity on lock.pid = activity.pid
where
    lock.locktype = 'advisory'
    and not lock.granted
    and (lock.classid, lock.objid) = (%s, %s)
    and activity.datname = current_database()
"""
_END = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = %s"
_THERE = "select pid from pg_stat_activity where datname = current_database() and application_name = %s"


class Armed:
    """A point at which the next process to come by is held."""

    def __init__(self, tester: Connection) -> None:
        self._tester = tester
        self._session = ""

    def wait_for_victim(self, *, seconds: float = 240.0) -> int:
        """The process that is held at the point, once there is one: the number that ends its session's application name."""
        until(self._look, seconds=seconds, what="a process at the crash point")
        return int(self._session.rpartition(" ")[2])

    def bury(self, *, undone: bool = True) -> None:
        """Once the victim is dead: end what the server was doing for it, or (not `undone`) let that be done to the end.

        `undone` is what the death of the whole machine comes to; a process that dies alone leaves a statement that commits.
        """
        if undone:
            until(lambda: not self._tester.execute(_END, [self._session]).fetchall(), what="the end of its sessions")
        self._tester.execute("select pg_advisory_unlock_all()")
        until(lambda: not self._tester.execute(_THERE, [self._session]).fetchall(), what="the end of its sessions")

    def _look(self) -> bool:
        found = self._tester.execute(_WAITING, _KEY).fetchone()
        if found is not None:
            self._session = found["application_name"]
        return found is not None


@contextmanager
def armed(url: str, point: CrashPoint, *, occurrence: int = 1) -> Iterator[Armed]:
    """Hold whoever comes by `point`, in the database at `url`, for the `occurrence`-th time; all others pass."""
    parts = {
        "occurrence": sql.Literal(occurrence),
        "one": sql.Literal(_KEY[0]),
        "two": sql.Literal(_KEY[1]),
        "event": sql.SQL(point.event),
        "table": sql.Identifier(point.table),
        "when": sql.SQL(point.when),
    }
    with connect(url) as tester:
        tester.execute("select pg_advisory_lock(%s, %s)", _KEY)
        tester.execute(sql.SQL(_ARM).format(**parts))
        try:
            yield Armed(tester)
        finally:
            tester.execute("select pg_advisory_unlock_all()")
            tester.execute(sql.SQL(_DISARM).format(**parts))
