"""Rights of each database role: each test connects as a login that is a member of one."""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql
from psycopg.errors import InsufficientPrivilege
from psycopg.rows import dict_row

from measurement_pipeline.backfill.operator_actions import requeue
from measurement_pipeline.backfill.reclaim import reclaim_backfill
from measurement_pipeline.cli import main
from measurement_pipeline.domain.payment import Decision, PaymentVerdict
from measurement_pipeline.intake.process import check_payments, load_batch, process_batch
from measurement_pipeline.local.embedded_postgres import EmbeddedServer
from measurement_pipeline.postgres import incidents, measurement_jobs, migrate, roles, songs, views
from measurement_pipeline.postgres.database import Connection, connect
from measurement_pipeline.postgres.payment_decisions import PaymentDecisions, ensure_account
from measurement_pipeline.postgres.sql import statements
from measurement_pipeline_tests.backfill.test_money_path import HISTORY
from measurement_pipeline_tests.conftest import Server
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.workbench import Workbench, isrcs

ROLES = ("measurement_owner", "measurement_pipeline", "measurement_client", "measurement_analyst")
VIEWS = (
    "active_purchase_pauses",
    "songstats_wanted",
    "songstats_open_rows",
    "songstats_call_gate",
    "songstats_unread_responses",
    "playcount_spent_this_month",
    "account_songs",
    "latest_counts",
)
NewLogin = Callable[..., str]


class Logins:
    """Login roles for one test. They belong to the whole server, so their names are unique."""

    def __init__(self, admin_url: str) -> None:
        self.admin_url = admin_url
        self._made: list[str] = []

    def make(self, *member_of: str, options: str = "") -> str:
        """Create a login that is a member of these roles; return its URL."""
        name = f"mp_test_{uuid4().hex}"
        self._run("create role {} login password 'of-a-test' " + options, name)
        self._made.append(name)
        for role in member_of:
            self._run("grant {} to {}", role, name)
        return self.url(name)

    def url(self, login: str, database: str | None = None) -> str:
        info = psycopg.conninfo.conninfo_to_dict(self.admin_url)
        query = f"?host={info['host']}&port={info.get('port', 5432)}" if "host" in info else ""
        return f"postgresql://{login}:of-a-test@/{database or info['dbname']}{query}"

    def own(self, database: str, login: str) -> None:
        self._run("alter database {} owner to {}", database, login)

    def forget(self) -> None:
        for name in self._made:
            self._run("drop owned by {}", name)
            self._run("drop role {}", name)

    def _run(self, statement: str, *names: str) -> None:
        with connect(self.admin_url) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))  # type: ignore[arg-type]


@contextmanager
def logins_on(url: str) -> Iterator[Logins]:
    with connect(url) as connection:
        (me,) = connection.execute("select rolsuper from pg_roles where rolname = current_user").fetchall()
    if not me["rolsuper"]:
        pytest.skip("the login of DATABASE_URL is no superuser: it cannot make logins that are members of the roles")
    created = Logins(url)
    yield created
    created.forget()


@pytest.fixture
def logins(database_url: str) -> Iterator[Logins]:
    with logins_on(database_url) as created:
        yield created


@pytest.fixture(scope="module")
def shared_logins(server: Server, template: str) -> Iterator[Logins]:
    """One database for all tests of refused statements, which change nothing."""
    name = server.create_database(template=template)
    with logins_on(server.url(name)) as created:
        yield created
    server.drop(name)


def connect_within_limit(url: str) -> Connection:
    """Connect a login with few sessions: PostgreSQL counts a closed session until its process has ended."""
    opened: list[Connection] = []

    def is_open() -> bool:
        try:
            opened.append(connect(url))
        except psycopg.OperationalError as error:
            if "too many connections for role" not in str(error):
                raise
        return bool(opened)

    wait_until(is_open, what="room for a connection")
    return opened[0]


def login_of(url: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(url)["user"])


# --- the pipeline


@pytest.fixture
def pipeline_url(logins: Logins) -> str:
    return logins.make("measurement_pipeline")


@pytest.fixture
def worker(bench: Workbench, pipeline_url: str) -> Workbench:
    """The pipeline, connected as a login that is a member of measurement_pipeline only."""
    return replace(bench, database_url=pipeline_url, config=replace(bench.config, database_url=pipeline_url))


def test_the_pipelines_role_is_sufficient_for_import_intake_and_backfill(bench: Workbench, worker: Workbench):
    requested = isrcs(8)
    bench.sandbox.faults(HISTORY, isrc=requested[1], status=404)
    bench.sandbox.faults(HISTORY, isrc=requested[2], body="not json")
    bench.sandbox.faults(HISTORY, isrc=requested[3], status=429, retry_after=0, count=1)
    migrate.require_current(worker.database_url, kind="sandbox")
    with worker_connection(worker) as connection:
        ensure_account(connection, worker.account, name="a label")
        lines = [songs.CatalogLine(isrc, "A title", None, None, None, 7) for isrc in requested]
        catalog = songs.import_catalog(
            connection, lines, account=worker.account, name="all", as_of=date(2026, 1, 1), raw_ref="a file"
        )
        songs.store_identifiers(
            connection, [(requested[0], "an album")], platform="spotify", identifier_type="album_id"
        )
        job = measurement_jobs.submit(
            connection, account=worker.account, source="historical", scope={"catalog_id": str(catalog)}
        )
    decisions = PaymentDecisions(worker.database_url)

    def check(account: UUID) -> Decision:
        decision = Decision(PaymentVerdict.ALLOWED, "a card", customer="cus_1")
        decisions.record(account, decision)
        return decision

    opened = load_batch(worker.database_url)
    (result,) = process_batch(worker.database_url, opened, check_payments(opened, check), run="run-0")
    assert result.receipt is not None
    assert result.receipt.enqueued == 8
    for attempt in range(3):
        worker.run_backfill(requested, run=f"run-{attempt}")
    assert bench.statuses() == {"stored": 6, "no_history": 1, "malformed": 1}
    with worker_connection(worker) as connection:
        assert requeue(connection, requested[1:3], rebuy=True, actor="a person") == requested[1:3]
        incidents.record(connection, key="a check", what="it failed")
        incidents.end_by_source(connection, source="a check")
    bench.sandbox.clear_faults()
    worker.run_backfill(requested, run="run-9")
    reclaim_backfill(worker.config, worker.dependencies)
    assert bench.statuses() == {"stored": 8}
    assert bench.sql("select state from measurement_jobs where id = %s", job) == [{"state": "done"}]


def worker_connection(worker: Workbench) -> Connection:
    return connect(worker.database_url)


EVERY_STATEMENT = sorted(
    (path.stem, name)
    for path in Path(str(roles.__file__)).parent.glob("*.sql")
    # `dagster_partitions` is for Dagster's database.
    if path.stem not in {"roles", "migrate", "dagster_partitions"}
    for name in statements(path.stem)
    # EXPLAIN cannot plan these; the test above runs them: it imports a catalogue and reserves.
    if (path.stem, name)
    not in {
        ("account_shares", "lock"),
        ("songs", "stage"),
        ("songs", "copy_in"),
        ("songstats_ledger", "set_reserve_lock_timeout"),
    }
)


def refused(connection: psycopg.Connection[Any], module: str, name: str) -> bool:
    """Whether the connected role lacks a right that the statement needs. EXPLAIN checks them all and changes nothing."""
    statement = statements(module)[name]
    # Of unknown type, except where the planner cannot infer the type.
    parameters: dict[str, object] = dict.fromkeys(re.findall(r"%\((\w+)\)[sb]", statement))
    parameters |= {given: 1 for given in ("calls", "interval") if given in parameters}
    try:
        with connection.transaction():
            connection.execute("explain " + statement, parameters)
    except InsufficientPrivilege:
        return True
    return False


@pytest.fixture
def planner(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's connection for `set role` in a transaction that is never committed."""
    with psycopg.connect(database_url, cursor_factory=psycopg.ClientCursor, row_factory=dict_row) as connection:
        connection.execute(statements("songs")["stage"])
        connection.execute("grant all on imported to measurement_pipeline")
        yield connection
        connection.rollback()


def test_no_statement_of_the_package_needs_more_than_the_pipelines_role(planner: psycopg.Connection[Any]):
    planner.execute("set role measurement_pipeline")
    assert len(EVERY_STATEMENT) > 80
    assert [key for key in EVERY_STATEMENT if refused(planner, *key)] == []


def test_each_right_of_the_pipelines_role_is_needed_by_a_statement(planner: psycopg.Connection[Any]):
    rights = planner.execute(
        """
        select table_name as name, privilege_type as act, null as column from information_schema.role_table_grants
        where grantee = 'measurement_pipeline' and table_schema = current_schema()
        union all
        select relname, 'UPDATE', attname
        from pg_attribute
        inner join pg_class on pg_class.oid = attrelid
        cross join lateral aclexplode(attacl) as acl
        where acl.grantee = 'measurement_pipeline'::regrole and acl.privilege_type = 'UPDATE'
        """
    ).fetchall()
    assert len(rights) > 40
    spare = []
    for right in rights:
        naming = [key for key in EVERY_STATEMENT if right["name"] in statements(key[0])[key[1]]]
        # Only migrate reads the stamp and the version of the schema.
        naming = naming or [("migrate", "stamp"), ("migrate", "version")]
        with planner.transaction(force_rollback=True):
            take = sql.SQL("revoke {act} {column} on {name} from measurement_pipeline").format(
                act=sql.SQL(right["act"]),
                column=sql.SQL("({})").format(sql.Identifier(right["column"])) if right["column"] else sql.SQL(""),
                name=sql.Identifier(right["name"]),
            )
            planner.execute(take)
            planner.execute("set local role measurement_pipeline")
            if not any(refused(planner, *key) for key in naming):
                spare.append(tuple(right.values()))
    assert spare == []


@pytest.fixture(scope="module")
def intruder_url(shared_logins: Logins) -> str:
    """The pipeline's login in the hands of an intruder."""
    return shared_logins.make("measurement_pipeline")


@pytest.mark.parametrize(
    "statement",
    [
        "create table mine (a int)",
        "create function mine() returns int language sql as 'select 1'",
        "create schema mine",
        "drop table song_measurements",
        "alter table song_measurements add column mine int",
        "alter table measurement_jobs disable row level security",
        "create policy mine on measurement_jobs using (true)",
        "create index on song_measurements (value)",
        "create trigger mine before insert on songs execute function suppress_redundant_updates_trigger()",
        "truncate run_heartbeats",
        "truncate songstats_quota_ledger cascade",
        *(f"delete from {table}" for table in roles.TABLES if table not in {"run_heartbeats", *VIEWS}),
        "update song_measurements set value = 0",
        "update songstats_responses set body = ''",
        "update songstats_quota_ledger set reserved_at = now() - interval '31 days'",
        "update songstats_quota_ledger set account = gen_random_uuid()",
        "update measurement_jobs set account = gen_random_uuid()",
        "update measurement_jobs set scope = '{}'",
        "insert into measurement_jobs (account, state) values (gen_random_uuid(), 'accepted')",
        "update deployment set kind = 'live'",
        "insert into deployment (kind) values ('live')",
        "update alembic_version set version_num = '0001'",
        "update operator_acts set actor = 'another'",
        "insert into client_logins (login, account) values (current_user, gen_random_uuid())",
        "select * from client_logins",
        "grant measurement_owner to current_user",
        "set role measurement_owner",
        "create role mine",
        "copy song_measurements to program 'cat'",
        "select pg_read_file('/etc/passwd')",
    ],
)
def test_the_pipelines_role_has_no_unneeded_rights(intruder_url: str, statement: str):
    with connect(intruder_url) as connection, pytest.raises(InsufficientPrivilege):
        connection.execute(statement)  # type: ignore[call-overload]


# --- clients


class Client:
    """A client's login and its account."""

    def __init__(self, logins: Logins) -> None:
        self.url = logins.make("measurement_client")
        self.account = uuid4()
        with connect(logins.admin_url) as connection:
            connection.execute(
                "insert into client_logins (login, account) values (%s, %s)", (login_of(self.url), self.account)
            )

    def sql(self, *script: str) -> list[dict[str, Any]]:
        """Run statements in one session; return the rows of the last. `{mine}` is the client's account."""
        with connect(self.url) as connection:
            for statement in script:
                rows = connection.execute(statement.replace("{mine}", str(self.account)))  # type: ignore[call-overload]
            return list(rows) if rows.description else []

    def insert_request(self) -> UUID:
        (row,) = self.sql(
            "insert into measurement_jobs (account, source, scope)"
            """ values ('{mine}', 'historical', '{"isrcs": ["AA6Q72000001"]}') returning id"""
        )
        return UUID(str(row["id"]))


@pytest.fixture
def client(logins: Logins) -> Client:
    return Client(logins)


@pytest.fixture(scope="module")
def intruder(shared_logins: Logins) -> Client:
    """A client that tries to read rows of others."""
    return Client(shared_logins)


@pytest.fixture(scope="module")
def other(shared_logins: Logins) -> Client:
    """Another client with its own request."""
    result = Client(shared_logins)
    result.insert_request()
    with connect(shared_logins.admin_url) as connection:
        connection.execute("analyze measurement_jobs, client_logins")
    return result


def test_a_client_inserts_a_request_and_reads_the_answer(client: Client, logins: Logins, connection: Connection):
    Client(logins).insert_request()
    job = client.insert_request()
    connection.execute(
        "update measurement_jobs set state = 'payment_required', checkout_url = 'https://checkout.example'"
    )
    assert client.sql("select id, account, state, checkout_url from measurement_jobs") == [
        {"id": job, "account": client.account, "state": "payment_required", "checkout_url": "https://checkout.example"}
    ]
    assert client.sql("select account from client_logins") == [{"account": client.account}]


def test_a_login_without_an_account_reads_and_inserts_nothing(shared_logins: Logins, other: Client):
    with connect(shared_logins.make("measurement_client")) as connection:
        assert connection.execute("select * from measurement_jobs").fetchall() == []
        with pytest.raises(InsufficientPrivilege, match="row-level security"):
            connection.execute("insert into measurement_jobs (account, source) values (%s, 'x')", (other.account,))


# Cheap enough to be evaluated before the policy, if that were allowed.
LEAK = """
create function pg_temp.leak(account uuid) returns boolean language plpgsql cost 0.0000001
as $$ begin insert into seen values (account); return true; end $$
"""
OTHERS = "(select 'a0000000-0000-4000-8000-000000000001'::uuid)"


@pytest.mark.parametrize(
    "script",
    [
        [f"insert into measurement_jobs (account, source) values ({OTHERS}, 'historical')"],
        [f"insert into measurement_jobs (account, source) values ({OTHERS}, 'historical') returning *"],
        [f"with asked as (insert into measurement_jobs (account) values ({OTHERS}) returning id) select * from asked"],
        [f"insert into measurement_jobs (account) values ({OTHERS}) on conflict do nothing"],
        ["insert into measurement_jobs (source) values ('historical')"],
        [
            f"insert into measurement_jobs (account) values ('{{mine}}') on conflict (id) do update set account = {OTHERS}"
        ],
        ["copy measurement_jobs (account) from stdin"],
        *(
            [f"insert into measurement_jobs (account, {column}) values ('{{mine}}', default)"]
            for column in ("id", "state", "run_id", "not_before", "created_at", "attempts", "checkout_url")
        ),
        ["update measurement_jobs set state = 'accepted'"],
        [f"update measurement_jobs set account = {OTHERS}"],
        ["delete from measurement_jobs"],
        ["truncate measurement_jobs"],
        ["select * from measurement_jobs for update"],
        ["select * from measurement_jobs for key share"],
        ["begin", "lock table measurement_jobs in exclusive mode"],
        ["set row_security = off", "select * from measurement_jobs"],
        [f"update client_logins set account = {OTHERS}"],
        [f"insert into client_logins (login, account) values (current_user, {OTHERS})"],
        ["delete from client_logins"],
        ["set role measurement_pipeline"],
        ["set role measurement_owner"],
        ["set role {other}"],
        ["set session authorization {other}"],
        ["grant {other} to current_user"],
        ["alter role {other} password 'mine'"],
        ["alter table measurement_jobs disable row level security"],
        ["drop policy client_reads_its_own on measurement_jobs"],
        ["create table mine (a int)"],
        ["create function mine() returns int language sql as 'select 1'"],
        *([f"select * from {table}"] for table in sorted({*roles.TABLES} - {"measurement_jobs", "client_logins"})),
    ],
    ids=lambda script: " ".join(script)[:70],
)
def test_a_client_cannot_access_anothers_rows(intruder: Client, other: Client, script: list[str]):
    with pytest.raises(psycopg.Error) as caught:
        intruder.sql(*(statement.replace("{other}", login_of(other.url)) for statement in script))
    assert isinstance(caught.value, InsufficientPrivilege | psycopg.errors.FeatureNotSupported), caught.value


@pytest.mark.parametrize(
    "script",
    [
        ["select * from measurement_jobs"],
        ["select * from measurement_jobs where account <> '{mine}'"],
        ["table measurement_jobs"],
        ["select jobs.* from client_logins right join measurement_jobs as jobs on true"],
        ["set role measurement_client", "select * from measurement_jobs"],
        ["set session my.account = '{theirs}'", "select * from measurement_jobs"],
        ["select set_config('role.account', '{theirs}', false)", "select * from measurement_jobs"],
        # The client's own table comes first in the search path; a policy's tables were fixed at its creation.
        [
            "create temporary table client_logins (login text, account uuid)",
            "insert into client_logins values (current_user, '{theirs}')",
            "select * from measurement_jobs",
        ],
        # The client's own function.
        [
            "create temporary table seen (account uuid)",
            LEAK,
            "select * from measurement_jobs where pg_temp.leak(account)",
            "select * from seen",
        ],
        # An error that shows its row.
        ["select account from measurement_jobs where source::int > 0"],
        ["select * from pg_stats where tablename in ('measurement_jobs', 'client_logins')"],
    ],
    ids=lambda script: " ".join(script)[:70],
)
def test_a_client_never_reads_anothers_request(intruder: Client, other: Client, script: list[str]):
    assert intruder.sql(*(statement.replace("{theirs}", str(other.account)) for statement in script)) == []


def test_a_leaking_function_shows_a_client_only_its_own_rows(client: Client, logins: Logins):
    Client(logins).insert_request()
    client.insert_request()
    seen = client.sql(
        "create temporary table seen (account uuid)",
        LEAK,
        "select * from measurement_jobs where pg_temp.leak(account)",
        "select distinct account from seen",
    )
    assert seen == [{"account": client.account}]


def test_the_group_role_of_all_clients_cannot_be_given_an_account(connection: Connection):
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(
            "insert into client_logins (login, account) values ('measurement_client', gen_random_uuid())"
        )


# --- analysts


@pytest.fixture(scope="module")
def analyst_url(shared_logins: Logins) -> str:
    """An analyst's login, with the limits that an upgrade gives it."""
    url = shared_logins.make("measurement_analyst")
    migrate.upgrade(shared_logins.admin_url, kind="sandbox")
    return url


@pytest.mark.parametrize("view", [*views.VIEWS, "play_counts_as_of(now())"])
def test_an_analyst_reads_every_view(analyst_url: str, view: str):
    with connect_within_limit(analyst_url) as connection:
        connection.execute(f"select * from analytics.{view}")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "statement",
    [
        *(f"select * from {table}" for table in roles.TABLES),
        *(f"insert into {table} default values" for table in ("songs", "measurement_jobs", "song_measurements")),
        "select body from songstats_responses",
        "create view analytics.mine as select 1 as a",
        "create or replace view analytics.spend as select 1 as a",
        "drop view analytics.spend",
        "create table mine (a int)",
        "grant measurement_pipeline to current_user",
        "set role measurement_owner",
        "copy (select 1) to program 'cat'",
        "select pg_read_file('/etc/passwd')",
    ],
)
def test_an_analyst_has_no_other_rights(analyst_url: str, statement: str):
    with connect_within_limit(analyst_url) as connection:
        connection.execute("set default_transaction_read_only = off")
        with pytest.raises(InsufficientPrivilege):
            connection.execute(statement)  # type: ignore[call-overload]


def test_an_upgrade_adds_missing_limits_to_an_analysts_login(logins: Logins, database_url: str):
    plain = logins.make("measurement_analyst")
    patient = logins.make("measurement_analyst", options="connection limit 3")
    with connect(database_url) as connection:
        name = sql.Identifier(login_of(patient))
        connection.execute(sql.SQL("alter role {} set statement_timeout = '1h'").format(name))
    assert migrate.upgrade(database_url, kind="sandbox") is None
    assert limits(plain) == {**roles.LIMITS, **roles.LIMITS_BY_SUPERUSER}
    assert limits(patient)["statement_timeout"] == "1h"
    with connect(database_url) as connection:
        rows = connection.execute(
            "select rolname, rolconnlimit from pg_roles where rolname = any(%s)",
            ([login_of(plain), login_of(patient)],),
        )
        assert {row["rolname"]: row["rolconnlimit"] for row in rows} == {login_of(plain): 2, login_of(patient): 3}


def test_a_client_who_is_also_an_analyst_may_submit_requests(logins: Logins, database_url: str):
    url = logins.make("measurement_client", "measurement_analyst")
    migrate.upgrade(database_url, kind="sandbox")
    assert limits(url)["default_transaction_read_only"] == "off"


def test_a_table_granted_to_analysts_by_hand_is_revoked(database_url: str, connection: Connection):
    connection.execute("grant select on songstats_responses to measurement_analyst")
    migrate.upgrade(database_url, kind="sandbox")
    rows = connection.execute(
        "select has_table_privilege('measurement_analyst', 'songstats_responses', 'select') as may"
    )
    assert rows.fetchone() == {"may": False}


def test_a_function_added_by_hand_blocks_no_upgrade(database_url: str, connection: Connection):
    connection.execute("create function analytics.mine() returns int language sql as 'select 1'")
    migrate.upgrade(database_url, kind="sandbox")


def limits(url: str) -> dict[str, str]:
    with connect_within_limit(url) as connection:
        return {
            name: connection.execute(sql.SQL("show {}").format(sql.Identifier(name))).fetchall()[0][name]
            for name in {**roles.LIMITS, **roles.LIMITS_BY_SUPERUSER}
        }


def test_a_query_over_the_time_limit_is_cancelled(logins: Logins, database_url: str):
    url = logins.make("measurement_analyst")
    with connect(database_url) as connection:
        name = sql.Identifier(login_of(url))
        connection.execute(sql.SQL("alter role {} set statement_timeout = '50ms'").format(name))
    migrate.upgrade(database_url, kind="sandbox")
    with (
        connect_within_limit(url) as connection,
        pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"),
    ):
        connection.execute("select count(*) from generate_series(1, 1000000000)")


def test_a_future_view_is_readable_by_analysts_without_a_grant(analyst_url: str, shared_logins: Logins):
    with connect(shared_logins.admin_url) as connection, connect_within_limit(analyst_url) as analyst:
        connection.execute("set role measurement_owner")
        connection.execute("create view analytics.to_come as select 1 as a")
        try:
            assert analyst.execute("select a from analytics.to_come").fetchall() == [{"a": 1}]
        finally:
            connection.execute("drop view analytics.to_come")


# --- migrating


def owners(url: str) -> set[str]:
    with connect(url) as connection:
        rows = connection.execute(
            "select distinct pg_get_userbyid(relowner) as owner from pg_class"
            " where relnamespace = 'public'::regnamespace and relkind in ('r', 'v', 'S')"
        )
        return {row["owner"] for row in rows}


def works_for_clients(logins: Logins) -> bool:
    """Whether a client's login can connect and read only its own rows."""
    Client(logins).insert_request()
    client = Client(logins)
    job = client.insert_request()
    return client.sql("select id from measurement_jobs") == [{"id": job}]


def test_the_owner_owns_every_table(database_url: str, connection: Connection):
    rows = connection.execute(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'v')"
    )
    assert {row["relname"] for row in rows} == set(roles.TABLES)
    assert owners(database_url) == {"measurement_owner"}


def test_the_roles_cannot_log_in(connection: Connection):
    rows = connection.execute(
        "select rolname from pg_roles where rolname = any(%s) and (rolcanlogin or rolsuper or rolcreaterole or rolbypassrls)",
        (list(ROLES),),
    )
    assert rows.fetchall() == []


def test_migrating_again_does_not_change_rights_and_policies(database_url: str, connection: Connection):
    def rights_and_policies() -> list[dict[str, Any]]:
        return (
            connection.execute(
                "select relname, relowner, relacl::text, relrowsecurity from pg_class"
                " where relnamespace = 'public'::regnamespace order by relname"
            ).fetchall()
            + connection.execute("select oid, polname from pg_policy order by oid").fetchall()
        )

    before = rights_and_policies()
    assert migrate.upgrade(database_url, kind="sandbox") is None
    assert rights_and_policies() == before


def test_a_right_granted_by_hand_is_revoked(database_url: str, connection: Connection, client: Client):
    connection.execute("grant update (account), delete on measurement_jobs to measurement_client")
    migrate.upgrade(database_url, kind="sandbox")
    with pytest.raises(InsufficientPrivilege):
        client.sql("update measurement_jobs set account = '{mine}'")


def test_a_member_of_the_owner_migrates_an_empty_database(logins: Logins, database_url: str, connection: Connection):
    migrator = logins.make("measurement_owner")
    connection.execute("drop schema public cascade; create schema public")
    connection.execute("grant usage on schema public to public; grant create on schema public to measurement_owner")
    for _ in range(2):
        assert migrate.upgrade(migrator, kind="live") is None
        assert owners(database_url) == {"measurement_owner"}
    assert works_for_clients(logins)


def test_a_schema_without_usage_for_the_roles_is_reported(logins: Logins, connection: Connection):
    migrator = logins.make("measurement_owner")
    connection.execute("revoke usage on schema public from public, measurement_client, measurement_pipeline")
    left = migrate.upgrade(migrator, kind="sandbox")
    assert left == (
        f"measurement_pipeline may not use schema public, and {login_of(migrator)} may not grant that right"
    )


def test_a_member_of_the_pipeline_role_may_upgrade_when_nothing_is_to_be_migrated(pipeline_url: str):
    left = migrate.upgrade(pipeline_url, kind="sandbox")
    assert f"{login_of(pipeline_url)} does not own the tables" in str(left)


def test_a_member_of_the_pipeline_cannot_migrate(pipeline_url: str, connection: Connection):
    connection.execute("update alembic_version set version_num = '0001'")
    with pytest.raises(InsufficientPrivilege):
        migrate.upgrade(pipeline_url, kind="sandbox")


# --- migrating without roles: on separate servers, because roles belong to a server


@pytest.fixture(scope="module")
def bare_server() -> Iterator[EmbeddedServer]:
    """A separate server: roles belong to the whole server."""
    with (
        # Not pytest's directory: each new session closes its parent to the server's user.
        tempfile.TemporaryDirectory(prefix="mp") as directory,
        EmbeddedServer(Path(directory) / "postgres", settings={"fsync": "off"}) as server,
    ):
        yield server


@pytest.fixture
def bare(bare_server: EmbeddedServer) -> Iterator[str]:
    """A superuser's URL of an empty database on a server without the roles."""
    bare_server.create_database("measurements")
    yield bare_server.url("measurements")
    with connect(bare_server.url("postgres")) as connection:
        databases = "select datname as name from pg_database where not datistemplate and datname <> 'postgres'"
        for row in connection.execute(databases).fetchall():
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(row["name"])))
        memberships = "select roleid::regrole::text as role, member::regrole::text as member from pg_auth_members"
        for row in connection.execute(memberships + " where roleid >= 16384 or member >= 16384").fetchall():
            connection.execute(f"revoke {row['role']} from {row['member']} cascade")  # type: ignore[call-overload]
        names = [r["name"] for r in connection.execute("select rolname as name from pg_roles where oid >= 16384")]
        for name in names:
            connection.execute(sql.SQL("drop owned by {0}; drop role {0}").format(sql.Identifier(name)))


def owning(bare: str, options: str = "") -> tuple[Logins, str]:
    """A login that owns the database and has only these `options`."""
    logins = Logins(bare)
    url = logins.make(options=options)
    logins.own("measurements", login_of(url))
    return logins, url


def test_a_login_that_may_not_create_roles_migrates_and_gets_a_message(bare: str):
    logins, owner = owning(bare)
    for _ in range(2):
        left = migrate.upgrade(owner, kind="live")
        assert left is not None
        assert f"{login_of(owner)} may not create roles" in left
        assert "\n" not in left
    migrate.require_current(owner, kind="live")
    assert owners(bare) == {login_of(owner)}
    with connect(bare) as connection:
        assert connection.execute("select from pg_roles where rolname = any(%s)", (list(ROLES),)).fetchall() == []
        assert connection.execute("select from pg_class where relrowsecurity").fetchall() == []

    # An administrator creates them later, and the login works as before, as a member of the owner.
    assert migrate.upgrade(bare, kind="live") is None
    assert owners(bare) == {"measurement_owner"}
    assert migrate.upgrade(owner, kind="live") is None
    with connect(owner) as connection:
        connection.execute("alter table songs add column mine int")
        connection.execute("insert into measurement_jobs (account) values (gen_random_uuid())")
        assert len(connection.execute("select from measurement_jobs").fetchall()) == 1
    assert works_for_clients(logins)


def test_a_login_that_may_create_roles_creates_them(bare: str):
    logins, owner = owning(bare, "createrole")
    assert migrate.upgrade(owner, kind="live") is None
    assert owners(bare) == {"measurement_owner"}
    assert migrate.upgrade(owner, kind="live") is None
    assert works_for_clients(logins)
    with connect(owner) as connection:
        connection.execute("create role analyst login; grant measurement_client to analyst; drop role analyst")


def test_a_missing_limit_that_only_a_superuser_may_set_is_reported(bare: str):
    logins, owner = owning(bare, "createrole")
    assert migrate.upgrade(owner, kind="live") is None
    with connect(owner) as connection:
        connection.execute("create role analyst login; grant measurement_analyst to analyst")
    for _ in range(2):
        assert migrate.upgrade(owner, kind="live") == (
            f"analyst login analyst lacks temp_file_limit: {login_of(owner)} may not set that"
        )
    assert limits(logins.url("analyst")) == {**roles.LIMITS, "temp_file_limit": "-1"}
    assert migrate.upgrade(bare, kind="live") is None
    assert migrate.upgrade(owner, kind="live") is None


def test_a_login_grants_rights_to_existing_roles_and_keeps_its_tables(bare: str):
    logins, owner = owning(bare)
    with connect(bare) as connection:
        for role in ROLES:
            connection.execute(sql.SQL("create role {}").format(sql.Identifier(role)))
    left = migrate.upgrade(owner, kind="live")
    assert left is not None
    assert "measurement_owner does not own the tables" in left
    assert owners(bare) == {login_of(owner)}
    assert works_for_clients(logins)


def test_a_login_without_inheritance_keeps_its_tables(bare: str):
    _, owner = owning(bare, "createrole noinherit")
    left = migrate.upgrade(owner, kind="live")
    assert left is not None
    assert "measurement_owner does not own the tables" in left
    assert owners(bare) == {login_of(owner)}
    migrate.upgrade(owner, kind="live")


def test_the_command_reports_rights_that_it_may_not_grant(bare: str):
    _, owner = owning(bare)
    environment = {"DATABASE_URL": owner, "DEPLOYMENT_KIND": "sandbox"}
    expected = CliRunner().invoke(main, ["db", "upgrade", "--json"], env=environment)
    assert "may not create roles" in json.loads(expected.stdout)["roles"]
    (line,) = (
        line
        for line in CliRunner().invoke(main, ["db", "upgrade"], env=environment).stdout.splitlines()
        if "roles" in line
    )
    wanted = "measurement_owner, measurement_pipeline, measurement_client and measurement_analyst"
    assert line.startswith(f"roles: {wanted} are not set up: ")
    environment["DATABASE_URL"] = bare
    assert json.loads(CliRunner().invoke(main, ["db", "upgrade", "--json"], env=environment).stdout)["roles"] is None
    assert "roles" not in CliRunner().invoke(main, ["db", "upgrade"], env=environment).stdout


@pytest.mark.parametrize("is_superuser", [True, False])
def test_concurrent_upgrades_that_set_up_the_roles_all_succeed(bare: str, is_superuser: bool):
    logins = Logins(bare)
    login = logins.make(options="superuser" if is_superuser else "createrole createdb")
    databases = [f"d{number}" for number in range(3)]
    with connect(logins.url(login_of(login), "postgres")) as connection:
        for database in databases:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(database)))
    # Processes, because Alembic runs one migration at a time in each.
    upgrade = "import sys; from measurement_pipeline.postgres import migrate; print(migrate.upgrade(sys.argv[1], kind='live'))"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", upgrade, logins.url(login_of(login), database)], stdout=subprocess.PIPE, text=True
        )
        for database in databases
    ]
    assert [process.communicate()[0].strip() for process in started] == ["None"] * len(databases)


# --- documentation


def test_the_commands_of_the_database_logins_page_work(bare: str):
    migrate.upgrade(bare, kind="live")
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "database-logins.md").read_text(encoding="utf-8")
    pipeline, let_in, client, let_out, analyst = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    logins = Logins(bare)

    def type_in(url: str, script: str) -> list[list[dict[str, Any]]]:
        with connect(url) as connection:
            cursors = [connection.execute(statement) for statement in script.split(";") if statement.strip()]  # type: ignore[call-overload]
            return [cursor.fetchall() for cursor in cursors if cursor.description]

    type_in(bare, pipeline)
    migrate.require_current(logins.url("pipeline_login"), kind="live")
    type_in(bare, let_in)
    requested, requests, account = type_in(logins.url("acme"), client)
    assert [row["id"] for row in requests] == [row["id"] for row in requested]
    assert [str(row["account"]) for row in account] == ["00000000-0000-4000-8000-0000000000ac"]
    type_in(bare, analyst)
    assert migrate.upgrade(bare, kind="live") is None
    assert limits(logins.url("analyst")) == {**roles.LIMITS, **roles.LIMITS_BY_SUPERUSER}
    type_in(bare, let_out)
    with connect(bare) as connection:
        assert connection.execute("select from client_logins").fetchall() == []
