"""Named moments at which a test can kill a process. The code under test needs no hook: the database blocks the process there.

A trigger in the test's database makes the process wait for a lock that the test holds. The test finds the waiting process,
kills it, and decides whether its current statement commits.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from psycopg import sql

from measurement_pipeline.postgres.database import Connection, connect
from measurement_pipeline_tests.faults.waiting import wait_until


class CrashDatabase(StrEnum):
    """The database of a crash point."""

    MEASUREMENTS = "measurements"
    DAGSTER = "dagster"


@dataclass(frozen=True)
class CrashPoint:
    """The moment before `event` writes a row of `table` that satisfies `when` (a condition on `new` and `old`).

    `at_commit`: the moment before that write's transaction commits.
    """

    name: str
    table: str
    event: str
    when: str = "true"
    database: CrashDatabase = CrashDatabase.MEASUREMENTS
    at_commit: bool = False


AFTER_THE_CLAIM = CrashPoint("after the claim", "songstats_quota_ledger", "insert")
# Reached only where calls are paced.
AFTER_THE_RESERVATION = CrashPoint("after the reservation", "vendor_state", "update of next_call_at")
AFTER_THE_ANSWER = CrashPoint(
    "after the response, before it is stored", "songstats_quota_ledger", "update of settled_at"
)
AFTER_KEEPING = CrashPoint(
    "after the response is stored",
    "songstats_backfill_queue",
    "update of status",
    "old.status = 'in_progress' and new.status <> 'in_progress'",
)
WHILE_STORING = CrashPoint("during the store transaction", "song_measurements", "insert")
AFTER_STORING = CrashPoint(
    "after the store transaction, before the materialization",
    "event_logs",
    "insert",
    "new.dagster_event_type = 'ASSET_MATERIALIZATION'",
    CrashDatabase.DAGSTER,
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
# The row is inserted in a transaction, which the server still commits if its client dies during the COMMIT.
BEFORE_THE_START = CrashPoint(
    "after its row is inserted, before the actor starts", "apify_runs", "insert", at_commit=True
)
AFTER_THE_START = CrashPoint(
    "after the actor started, before its id is stored",
    "apify_runs",
    "update of actor_run",
    "new.actor_run is not null and old.actor_run is null",
)
AFTER_THE_ID = CrashPoint(
    "after the actor run's id is stored", "apify_runs", "update of status", "old.actor_run is not null"
)
AFTER_THE_RESULT = CrashPoint("after the actor's result, before it is stored", "apify_runs", "update of kept_at")
AFTER_KEEPING_THE_RESULT = CrashPoint("after the actor's result is stored", "songs", "insert")
BEFORE_THE_END = CrashPoint(
    "after everything is stored, before it is done", "playcount_snapshots", "update of state", "new.state = 'done'"
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

# Unique among the advisory locks of the database.
_KEY = (0x0FA17, 1)

# A sequence counts the arrivals, because a rollback does not undo it. Processes that arrive after the victim pass.
_ARM = """
create sequence crash_point_met;
create function crash_point() returns trigger language plpgsql as $$
begin
    if nextval('crash_point_met') = {occurrence} then
        perform pg_advisory_xact_lock({one}, {two});
    end if;
    return new;
end $$;
create {trigger} crash_point {moment} {event} on {table} {deferred} for each row when ({when}) execute function crash_point();
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
_IS_CONNECTED = "select pid from pg_stat_activity where datname = current_database() and application_name = %s"


class ArmedCrashPoint:
    """A crash point at which the next process blocks."""

    def __init__(self, tester: Connection) -> None:
        self._tester = tester
        self._session = ""

    def wait_for_victim(self, *, seconds: float = 240.0) -> int:
        """Wait until a process blocks at the point; return the number that ends its session's application name."""
        wait_until(self._look, seconds=seconds, what="a process at the crash point")
        return int(self._session.rpartition(" ")[2])

    def finish_statement(self, *, undone: bool = True) -> None:
        """After the victim's death, cancel its current statement (`undone`), or let the server complete it.

        When the whole machine dies, the statement is undone. When the process dies alone, its statement still commits.
        """
        if undone:
            wait_until(
                lambda: not self._tester.execute(_END, [self._session]).fetchall(), what="the end of its sessions"
            )
        self._tester.execute("select pg_advisory_unlock_all()")
        wait_until(
            lambda: not self._tester.execute(_IS_CONNECTED, [self._session]).fetchall(), what="the end of its sessions"
        )

    def _look(self) -> bool:
        row = self._tester.execute(_WAITING, _KEY).fetchone()
        if row is not None:
            self._session = row["application_name"]
        return row is not None


@contextmanager
def arm(url: str, point: CrashPoint, *, occurrence: int = 1) -> Iterator[ArmedCrashPoint]:
    """Block the `occurrence`-th arrival at `point` in the database at `url`; all others pass."""
    parts = {
        "occurrence": sql.Literal(occurrence),
        "one": sql.Literal(_KEY[0]),
        "two": sql.Literal(_KEY[1]),
        "event": sql.SQL(point.event),
        "table": sql.Identifier(point.table),
        "when": sql.SQL(point.when),
        "trigger": sql.SQL("constraint trigger" if point.at_commit else "trigger"),
        "moment": sql.SQL("after" if point.at_commit else "before"),
        "deferred": sql.SQL("deferrable initially deferred" if point.at_commit else ""),
    }
    with connect(url) as tester:
        tester.execute("select pg_advisory_lock(%s, %s)", _KEY)
        tester.execute(sql.SQL(_ARM).format(**parts))
        try:
            yield ArmedCrashPoint(tester)
        finally:
            tester.execute("select pg_advisory_unlock_all()")
            tester.execute(sql.SQL(_DISARM).format(**parts))
