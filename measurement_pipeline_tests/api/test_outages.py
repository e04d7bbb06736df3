"""Database outages: transient errors are a 503 with Retry-After, never a 500, and reads work on a read-only database."""

import pytest
from psycopg import sql

from measurement_pipeline.api.errors import DATABASE_UNAVAILABLE
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.api.conftest import JOBS, Client, RunningApi
from measurement_pipeline_tests.workbench import isrcs

TRANSIENT = ["08006", "25006", "40001", "40P01", "53100", "53300", "55P03", "57P01", "58030"]


def raise_on(api: RunningApi, sqlstate: str, event: str, *, times: int = 1_000) -> None:
    """Let PostgreSQL raise the given error for the first `times` writes of a job."""
    api.table.sql("drop sequence if exists raised")
    api.table.sql("create sequence raised")
    api.table.sql(
        "create or replace function raise_error() returns trigger language plpgsql as $$ begin"
        f" if nextval('raised') > {times} then return new; end if;"
        f" raise exception 'unavailable' using errcode = '{sqlstate}'; end $$"
    )
    api.table.sql(
        f"create or replace trigger raise_error before {event} on measurement_jobs for each row execute function raise_error()"
    )


def test_a_transient_database_error_is_a_503_with_retry_after(api: RunningApi):
    client = api.client()
    job = client.submit({"isrcs": isrcs(1)}).json()["id"]
    for sqlstate in TRANSIENT:
        raise_on(api, sqlstate, "insert or update")
        for answer in (client.submit({"isrcs": isrcs(2)}), client.delete(f"{JOBS}/{job}")):
            assert (answer.status_code, answer.json()["error"]) == (503, DATABASE_UNAVAILABLE), sqlstate
            assert int(answer.headers["retry-after"]) > 0, sqlstate


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
def test_a_transaction_that_the_server_rolled_back_is_retried(api: RunningApi, sqlstate: str):
    client = api.client()
    raise_on(api, sqlstate, "insert or update", times=2)
    response = client.submit({"isrcs": isrcs(1)}, key="once")
    assert (response.status_code, response.json()["state"]) == (202, "accepted")
    assert len(api.table.sql("select id from measurement_jobs")) == 1


def test_an_inserted_request_that_cannot_be_processed_yet_is_answered_as_queued(api: RunningApi):
    client = api.client()
    raise_on(api, "25006", "update")
    response = client.submit({"isrcs": isrcs(1)})
    assert (response.status_code, response.json()["state"]) == (202, "queued")


def test_an_unexpected_database_error_is_a_500(api: RunningApi):
    client = api.client()
    raise_on(api, "42P01", "insert")
    assert client.submit({"isrcs": isrcs(1)}).status_code == 500


def test_on_a_read_only_database_reads_work_and_writes_are_a_503_until_it_accepts_writes(api: RunningApi):
    client = api.client()
    job = client.submit({"isrcs": isrcs(1)}).json()["id"]
    # A key that was never used, so that its first use would be recorded.
    other = api.client(client.account)
    with connect(api.config.database_url) as tester:
        name = sql.Identifier(tester.info.dbname)
        tester.execute(sql.SQL("alter database {} set default_transaction_read_only = on").format(name))
        tester.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> %s",
            [tester.info.backend_pid],
        )
        assert _statuses(other, job) == (200, 200, 503, 503)
        tester.execute(sql.SQL("alter database {} reset default_transaction_read_only").format(name))
    # Without a restart and without terminated sessions: a session that failed to write is not used again.
    assert _statuses(other, job) == (200, 200, 202, 200)


def _statuses(client: Client, job: str) -> tuple[int, int, int, int]:
    return (
        client.get(f"{JOBS}/{job}").status_code,
        client.get("/readyz").status_code,
        client.submit({"isrcs": isrcs(3)}).status_code,
        client.delete(f"{JOBS}/{job}").status_code,
    )
