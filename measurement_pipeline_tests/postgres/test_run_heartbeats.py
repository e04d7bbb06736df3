"""Heartbeats of runs: a run without a recent one is dead, whatever Dagster reports."""

from measurement_pipeline.postgres import run_heartbeats
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline_tests.postgres.conftest import Tables


def test_a_run_is_silent_once_its_last_heartbeat_is_old(connection: Connection, tables: Tables):
    for run in ("alive", "silent"):
        run_heartbeats.renew(connection, run)
    connection.execute("update run_heartbeats set beat_at = now() - interval '61 seconds' where run_id = 'silent'")
    runs = ["alive", "silent"]
    assert run_heartbeats.list_silent(connection, runs, seconds=60) == {"silent"}
    assert run_heartbeats.list_silent(connection, [], seconds=60) == set()
    tables.in_loop(lambda c: run_heartbeats.renew_async(c, "silent"))
    assert run_heartbeats.list_silent(connection, runs, seconds=60) == set()


def test_a_run_without_a_heartbeat_counts_from_when_it_was_first_seen(connection: Connection):
    assert run_heartbeats.list_silent(connection, ["new"], seconds=60) == set()
    connection.execute("update run_heartbeats set beat_at = beat_at - interval '61 seconds'")
    assert run_heartbeats.list_silent(connection, ["new"], seconds=60) == {"new"}


def test_heartbeats_older_than_a_week_are_deleted(connection: Connection):
    for run in ("old", "new"):
        run_heartbeats.renew(connection, run)
    connection.execute("update run_heartbeats set beat_at = now() - interval '8 days' where run_id = 'old'")
    run_heartbeats.delete_old(connection)
    assert connection.execute("select run_id from run_heartbeats").fetchall() == [{"run_id": "new"}]
