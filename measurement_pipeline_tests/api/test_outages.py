"""What a client is told while the database cannot do it: 503 with Retry-After, never 500; and reads while it takes no writes."""

import pytest
from psycopg import sql

from measurement_pipeline.api.errors import DATABASE_UNAVAILABLE
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.api.conftest import JOBS, Client, Front
from measurement_pipeline_tests.workbench import isrcs

TRANSIENT = ["08006", "25006", "40001", "40P01", "53100", "53300", "55P03", "57P01", "58030"]


def refuse(front: Front, sqlstate: str, event: str, *, times: int = 1_000) -> None:
    """Have PostgreSQL raise where a request is written, so many times."""
    front.table.sql("create sequence refused")
    front.table.sql(
        "create function refuse() returns trigger language plpgsql as $$ begin"
        f" if nextval('refused') > {times} then return new; end if;"
        f" raise exception 'not now' using errcode = '{sqlstate}'; end $$"
    )
    front.table.sql(f"create trigger refuse before {event} on measurement_jobs for each row execute function refuse()")


@pytest.mark.parametrize("sqlstate", TRANSIENT)
def test_what_the_database_cannot_do_for_now_is_a_503_that_says_when_to_come_back(front: Front, sqlstate: str):
    client = front.client()
    job = client.ask({"isrcs": isrcs(1)}).json()["id"]
    refuse(front, sqlstate, "insert or update")
    for answer in (client.ask({"isrcs": isrcs(2)}), client.delete(f"{JOBS}/{job}")):
        assert (answer.status_code, answer.json()["error"]) == (503, DATABASE_UNAVAILABLE)
        assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
def test_what_the_server_rolled_back_is_done_again_before_the_client_is_answered(front: Front, sqlstate: str):
    client = front.client()
    refuse(front, sqlstate, "insert or update", times=2)
    asked = client.ask({"isrcs": isrcs(1)}, key="once")
    assert (asked.status_code, asked.json()["state"]) == (202, "accepted")
    assert len(front.table.sql("select id from measurement_jobs")) == 1


def test_a_request_that_is_there_is_answered_so_where_it_cannot_be_taken_in_for_now(front: Front):
    client = front.client()
    refuse(front, "25006", "update")
    asked = client.ask({"isrcs": isrcs(1)})
    assert (asked.status_code, asked.json()["state"]) == (202, "queued")


def test_a_defect_is_a_500(front: Front):
    client = front.client()
    refuse(front, "42P01", "insert")
    assert client.ask({"isrcs": isrcs(1)}).status_code == 500


def test_a_read_only_database_is_read_and_every_write_is_a_503_until_it_takes_writes_again(front: Front):
    client = front.client()
    job = client.ask({"isrcs": isrcs(1)}).json()["id"]
    # A key that was never used: its use would be noted.
    other = front.client(client.account)
    with connect(front.desk.database_url) as tester:
        name = sql.Identifier(tester.info.dbname)
        tester.execute(sql.SQL("alter database {} set default_transaction_read_only = on").format(name))
        tester.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> %s",
            [tester.info.backend_pid],
        )
        assert _statuses(other, job) == (200, 200, 503, 503)
        tester.execute(sql.SQL("alter database {} reset default_transaction_read_only").format(name))
    # Without a restart, and without the sessions being ended: one that was refused a write is not used again.
    assert _statuses(other, job) == (200, 200, 202, 200)


def _statuses(client: Client, job: str) -> tuple[int, int, int, int]:
    return (
        client.get(f"{JOBS}/{job}").status_code,
        client.get("/readyz").status_code,
        client.ask({"isrcs": isrcs(3)}).status_code,
        client.delete(f"{JOBS}/{job}").status_code,
    )
