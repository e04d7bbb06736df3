"""Blocking sessions of analysts and clients are reported, idle or active, with process, login and age."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import psycopg
import pytest
from psycopg import sql

from measurement_pipeline.cli import doctor_server
from measurement_pipeline.cli.checks import CheckStatus
from measurement_pipeline.health import incidents
from measurement_pipeline.health.messages import describe_lock_holders
from measurement_pipeline.postgres import sessions
from measurement_pipeline.postgres.database import Connection, connect
from measurement_pipeline.postgres.incidents import list_open
from measurement_pipeline_tests.faults.waiting import wait_until

LOGIN = "mp_test_curious"


@contextmanager
def session(url: str, application: str = "psql") -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(url, application_name=application, autocommit=True) as opened:
        yield opened


def sleeps_until_terminated(active: psycopg.Connection[tuple[object, ...]]) -> None:
    with pytest.raises(psycopg.errors.AdminShutdown):
        active.execute("select pg_sleep(600)")


def test_long_idle_and_active_transactions_are_reported(connection: Connection, database_url: str):
    with session(database_url, "a notebook") as idle, session(database_url, "a report") as active:
        idle.execute("begin")
        idle.execute("select 1")
        report = Thread(target=sleeps_until_terminated, args=[active])
        report.start()
        both = {"idle in transaction", "active"}
        wait_until(lambda: {one.state for one in sessions.list_long_lived(connection, seconds=0)} == both)
        line = doctor_server.check_sessions(connection, seconds=0)
        assert line.status is CheckStatus.WARN
        for one in (idle, active):
            application = one.info.parameter_status("application_name")
            assert f"process {one.info.backend_pid} (login {one.info.user}, {application})" in line.message
        assert "(0 min)" in line.message
        assert "pg_terminate_backend" in line.message
        assert doctor_server.check_sessions(connection).status is CheckStatus.OK, "seconds old"
        connection.execute("select pg_terminate_backend(%s)", (active.info.backend_pid,))
        report.join()


def test_a_holder_of_an_advisory_lock_is_listed_without_a_transaction(connection: Connection, database_url: str):
    with session(database_url, "a curious client") as holder:
        holder.execute("select pg_advisory_lock(hashtextextended('songstats_quota', 0))")
        result = doctor_server.check_sessions(connection, lock_seconds=0)
        assert result.status is CheckStatus.WARN
        assert "a curious client): idle, holds an advisory lock, since 2" in result.message
        assert doctor_server.check_sessions(connection).status is CheckStatus.OK, "ours are held for milliseconds"


def test_a_run_that_timed_out_on_a_lock_lists_the_likely_blockers(connection: Connection, database_url: str):
    with session(database_url, "a notebook") as holder:
        holder.execute("begin")
        holder.execute("lock table songs in access exclusive mode")
        blockers = sessions.list_long_lived(connection, seconds=0)
        who = f"process {holder.info.backend_pid} (login {holder.info.user}, a notebook)"
        assert f"{who}: idle in transaction" in describe_lock_holders(blockers)
        line = "LockNotAvailable: canceling statement due to lock timeout"
        incidents.record_failure(database_url, "songstats_backfill", line, run="0123456789")
        # Held briefly: no statement has waited 30 s for it.
        assert "The session that held the lock has ended." in list_open(connection)[0].what
    incidents.record_failure(database_url, "songstats_backfill", "the store is full", run="0123456789")
    assert "lock" not in list_open(connection)[1].what


def test_logins_with_hidden_sessions_are_listed_with_the_remedy(connection: Connection, database_url: str):
    name = sql.Identifier(LOGIN)
    connection.execute(sql.SQL("create role {} login").format(name))
    try:
        info = psycopg.conninfo.conninfo_to_dict(database_url)
        with (
            session(database_url) as other,
            connect(psycopg.conninfo.make_conninfo("", **{**info, "user": LOGIN})) as curious,
        ):
            other.execute("begin")
            other.execute("select 1")
            line = doctor_server.check_sessions(curious, seconds=0)
            assert str(other.info.user) in line.message
            assert "grant pg_read_all_stats" in line.message
    finally:
        connection.execute(sql.SQL("drop role {}").format(name))


@pytest.mark.parametrize("line", ["LockNotAvailable: canceling statement due to lock timeout"])
def test_the_incident_key_does_not_contain_the_blocking_sessions(connection: Connection, database_url: str, line: str):
    for run in ("one", "two"):
        incidents.record_failure(database_url, "songstats_backfill", line, run=run)
    assert [result.times for result in list_open(connection)] == [2]
