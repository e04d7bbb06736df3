"""Signs of life: a run without one for so long is dead, whatever Dagster calls it."""

from datetime import UTC, datetime, timedelta

from measurement_pipeline.postgres import run_heartbeats
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline_tests.postgres.conftest import Tables


def test_a_run_is_silent_once_neither_its_beat_nor_its_start_is_recent(connection: Connection, tables: Tables):
    long_ago, now = datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC)
    for run in ("beating", "silent"):
        run_heartbeats.beat(connection, run)
    connection.execute("update run_heartbeats set beat_at = now() - interval '61 seconds' where run_id = 'silent'")
    started = {"beating": long_ago, "silent": long_ago, "never beat": long_ago, "just started": now}
    assert run_heartbeats.silent(connection, started, seconds=60) == {"silent", "never beat"}
    assert run_heartbeats.silent(connection, {}, seconds=60) == set()
    tables.in_loop(lambda c: run_heartbeats.beat_async(c, "silent"))
    assert run_heartbeats.silent(connection, started, seconds=60) == {"never beat"}


def test_beats_of_a_week_ago_are_forgotten(connection: Connection):
    for run in ("old", "new"):
        run_heartbeats.beat(connection, run)
    connection.execute("update run_heartbeats set beat_at = now() - interval '8 days' where run_id = 'old'")
    run_heartbeats.forget(connection)
    assert connection.execute("select run_id from run_heartbeats").fetchall() == [{"run_id": "new"}]
