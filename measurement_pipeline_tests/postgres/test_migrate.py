"""The schema: migrations, comments, and the stamp of its vendors."""

import re
import threading
from pathlib import Path

import pytest
from psycopg import sql

from measurement_pipeline.domain.backfill_queue import STATUS_OF_OUTCOME, Status
from measurement_pipeline.domain.measurement_job import State
from measurement_pipeline.domain.outcome import Cause, Outcome
from measurement_pipeline.domain.payment import PaymentVerdict
from measurement_pipeline.postgres import migrate, views
from measurement_pipeline.postgres.database import Connection, DatabaseUnavailable, connect
from measurement_pipeline.postgres.migrate import SchemaOutOfDateError, WrongDeploymentError

TABLES = {
    "deployment", "accounts", "payment_decisions", "songs", "song_identifiers", "catalogs", "catalog_songs",
    "measurement_jobs", "measurement_job_songs", "songstats_backfill_queue", "songstats_quota_ledger",
    "songstats_responses", "song_measurements", "vendor_state", "run_heartbeats", "operator_acts", "alembic_version",
    "incidents", "client_logins", "playcount_snapshots", "playcount_series", "apify_runs", "api_keys",
    "song_latest_counts", "purchase_pauses", "job_callbacks", "history_imports", "vendor_drifts",
    "songstats_shares",
}  # fmt: skip


def tables_of(url: str) -> set[str]:
    with connect(url) as connection:
        rows = connection.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
    return {row["tablename"] for row in rows}


def test_an_empty_database_is_migrated_and_stamped(empty_database_url: str):
    assert migrate.current_version(empty_database_url) is None
    assert migrate.get_stamp(empty_database_url) is None
    migrate.upgrade(empty_database_url, kind="live")
    assert migrate.current_version(empty_database_url) == migrate.expected_version()
    assert migrate.get_stamp(empty_database_url) == "live"
    assert tables_of(empty_database_url) == TABLES
    migrate.require_current(empty_database_url, kind="live")


def test_migrating_again_changes_nothing(database_url: str):
    with connect(database_url) as connection:
        connection.execute("insert into accounts (name) values ('kept')")
        before = connection.execute("select * from deployment").fetchall()
    migrate.upgrade(database_url, kind="sandbox")
    with connect(database_url) as connection:
        assert connection.execute("select name from accounts").fetchall() == [{"name": "kept"}]
        assert connection.execute("select * from deployment").fetchall() == before
        assert connection.execute("select count(*) as n from vendor_state").fetchone() == {"n": 1}


def test_concurrent_migrations_take_turns(empty_database_url: str):
    failures: list[BaseException] = []
    barrier = threading.Barrier(3)

    def upgrade() -> None:
        barrier.wait()
        try:
            migrate.upgrade(empty_database_url, kind="sandbox")
        except BaseException as error:  # noqa: BLE001 - shown to the test
            failures.append(error)

    threads = [threading.Thread(target=upgrade) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    migrate.require_current(empty_database_url, kind="sandbox")


def test_concurrent_migrations_for_different_vendors_leave_one_stamp_and_one_error(empty_database_url: str):
    refused: list[str] = []

    def upgrade(kind: str) -> None:
        try:
            migrate.upgrade(empty_database_url, kind=kind)
        except WrongDeploymentError:
            refused.append(kind)

    threads = [threading.Thread(target=upgrade, args=(kind,)) for kind in ("sandbox", "live")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1
    assert migrate.get_stamp(empty_database_url) not in refused


def test_a_migration_that_fails_leaves_nothing_behind(empty_database_url: str):
    with connect(empty_database_url) as connection:
        connection.execute("create table vendor_state (in_the_way int)")
    with pytest.raises(Exception, match="already exists"):
        migrate.upgrade(empty_database_url, kind="sandbox")
    assert tables_of(empty_database_url) == {"vendor_state"}
    assert migrate.current_version(empty_database_url) is None


@pytest.mark.fails_without("the deployment stamp, before a migration", parameters="upgrade")
@pytest.mark.fails_without("the deployment stamp, at every start", parameters="require_current")
@pytest.mark.parametrize("act", [migrate.upgrade, migrate.require_current])
def test_a_live_process_rejects_a_sandbox_database(database_url: str, act):
    with pytest.raises(WrongDeploymentError, match=r"stamped `sandbox`, but .* `live` vendors"):
        act(database_url, kind="live")
    assert migrate.get_stamp(database_url) == "sandbox"


def test_a_sandbox_process_rejects_a_live_database(empty_database_url: str):
    migrate.upgrade(empty_database_url, kind="live")
    for act in (migrate.upgrade, migrate.require_current):
        with pytest.raises(WrongDeploymentError, match="stamped `live`"):
            act(empty_database_url, kind="sandbox")


def test_a_database_without_a_stamp_is_rejected(database_url: str, connection: Connection):
    connection.execute("delete from deployment")
    with pytest.raises(WrongDeploymentError, match="has no stamp"):
        migrate.require_current(database_url, kind="sandbox")


def test_a_database_has_one_stamp(connection: Connection):
    inserted = connection.execute("insert into deployment (kind) values ('live') on conflict do nothing")
    assert inserted.rowcount == 0


def test_a_database_without_a_schema_gets_the_command_to_run(empty_database_url: str):
    with pytest.raises(SchemaOutOfDateError, match=r"at schema none, this version needs \w+: run .*db upgrade"):
        migrate.require_current(empty_database_url, kind="sandbox")


def test_a_database_of_another_version_is_rejected(database_url: str, connection: Connection):
    connection.execute("update alembic_version set version_num = '9999'")
    with pytest.raises(SchemaOutOfDateError, match="at schema 9999"):
        migrate.require_current(database_url, kind="sandbox")


def test_an_upgrade_refuses_a_database_of_a_version_that_it_does_not_know(database_url: str, connection: Connection):
    connection.execute("update alembic_version set version_num = '9999'")
    with pytest.raises(SchemaOutOfDateError, match="at schema 9999, which this version does not know"):
        migrate.upgrade(database_url, kind="sandbox")


@pytest.mark.parametrize("act", [migrate.current_version, migrate.get_stamp])
def test_an_unreachable_database_is_reported_without_its_password(act):
    with pytest.raises(DatabaseUnavailable) as caught:
        act("postgresql://me:hunter2@127.0.0.1:1/x")
    assert "hunter2" not in str(caught.value)


def test_every_table_view_and_column_has_a_comment(connection: Connection):
    silent = connection.execute(
        """
        select coalesce(pg_class.relname || '.' || attname, pg_class.relname) as thing
        from pg_class
        join pg_namespace on pg_namespace.oid = relnamespace and nspname = 'public'
        left join lateral (
            select null::name as attname, 0 as attnum
            union all
            select attname, attnum from pg_attribute where attrelid = pg_class.oid and attnum > 0 and not attisdropped
        ) as columns on true
        where relkind in ('r', 'v', 'm', 'p') and coalesce(col_description(pg_class.oid, attnum), '') = ''
            and (attnum > 0 or coalesce(obj_description(pg_class.oid, 'pg_class'), '') = '')
        """
    ).fetchall()
    assert [row["thing"] for row in silent] == []


def test_every_time_is_with_time_zone(connection: Connection):
    naive = connection.execute(
        "select table_name, column_name from information_schema.columns"
        " where table_schema = 'public' and data_type in ('timestamp without time zone', 'time without time zone')"
    ).fetchall()
    assert naive == []


@pytest.mark.parametrize(
    ("table", "column", "values"),
    [
        ("measurement_jobs", "state", set(State)),
        ("songstats_backfill_queue", "status", set(Status)),
        ("songstats_backfill_queue", "outcome", set(Outcome)),
        ("songstats_quota_ledger", "reason", set(Cause)),
        ("payment_decisions", "verdict", set(PaymentVerdict) - {PaymentVerdict.UNKNOWN}),
        ("deployment", "kind", {"sandbox", "live"}),
        ("vendor_state", "breaker", {"open", "closed"}),
        ("vendor_state", "breaker_kind", {"key", "streak", "drift"}),
    ],
)
def test_check_constraints_equal_the_python_enums(connection: Connection, table: str, column: str, values: set[str]):
    (check,) = connection.execute(
        """
        select pg_get_constraintdef(oid) as definition from pg_constraint
        where contype = 'c' and conrelid = %s::regclass
            and conkey = array[(select attnum from pg_attribute where attrelid = conrelid and attname = %s)]
        """,
        (table, column),
    ).fetchall()
    assert set(re.findall(r"'([^']*)'::text", check["definition"])) == {str(value) for value in values}


@pytest.mark.fails_without("terminal states: each status has its own outcomes")
def test_the_outcomes_of_each_status_are_the_same_in_sql(connection: Connection):
    (check,) = connection.execute(
        "select pg_get_constraintdef(oid) as definition from pg_constraint"
        " where conname = 'songstats_backfill_queue_outcome_of_status'"
    ).fetchall()
    for status in (Status.DONE, Status.FAILED):
        branch = re.search(rf"WHEN '{status}'::text THEN(.*?)(WHEN|ELSE)", check["definition"], re.DOTALL)
        assert branch
        expected = {str(outcome) for outcome, result in STATUS_OF_OUTCOME.items() if result is status}
        assert set(re.findall(r"'(\w+)'::text", branch[1])) == expected


def make_version(connection: Connection, version: str) -> None:
    """Create the tables as they were at `version`."""
    migrations = Path(migrate.__file__).parent / "migrations" / "versions"
    connection.execute("create table alembic_version (version_num varchar(32) primary key)")
    for script in sorted(migrations.glob("*.sql")):
        if script.name[:4] <= version:
            connection.execute(script.read_text(encoding="utf-8"))  # type: ignore[arg-type]
    connection.execute("insert into alembic_version values (%s)", (version,))
    connection.execute("insert into deployment (kind) values ('sandbox')")


def test_captures_and_catalogues_without_partition_names_keep_their_ids(empty_database_url: str):
    with connect(empty_database_url) as connection:
        make_version(connection, "0007")
        connection.execute("insert into accounts (id) values (gen_random_uuid())")
        connection.execute("insert into catalogs (account, name) select id, 'a name' from accounts")
        connection.execute(
            "insert into playcount_snapshots"
            " (account, album_ids, albums_digest, platforms, schedule, album_count, estimated_cost_usd)"
            " select id, '{album}', 'x', '{spotify}', 'once', 1, 0 from accounts"
        )
    migrate.upgrade(empty_database_url, kind="sandbox")
    with connect(empty_database_url) as connection:
        for table in ("catalogs", "playcount_snapshots"):
            rows = connection.execute(sql.SQL("select id, partition_key from {}").format(sql.Identifier(table)))
            assert [str(row["id"]) == row["partition_key"] for row in rows] == [True]


@pytest.mark.parametrize("version", ["0001", "0002", "0003"])
def test_a_database_of_each_earlier_version_is_upgraded_with_its_rows(empty_database_url: str, version: str):
    with connect(empty_database_url) as connection:
        make_version(connection, version)
        connection.execute("insert into songs (isrc, name) values ('AA6Q72000047', 'kept')")
        connection.execute("update vendor_state set throttled = 3, paused_until = '2026-01-01'")
    assert migrate.current_version(empty_database_url) == version
    migrate.upgrade(empty_database_url, kind="sandbox")
    migrate.require_current(empty_database_url, kind="sandbox")
    assert tables_of(empty_database_url) == TABLES
    with connect(empty_database_url) as connection:
        assert connection.execute("select name from songs").fetchall() == [{"name": "kept"}]
        assert connection.execute("select throttled, stumbled from vendor_state").fetchall() == [
            {"throttled": 3, "stumbled": 0}
        ]


def test_open_incidents_of_renamed_checks_continue_under_the_new_name(empty_database_url: str):
    with connect(empty_database_url) as connection:
        make_version(connection, "0010")
        connection.execute(
            "insert into incidents (key, what, ended_at) values"
            " ('check recordings_are_bought: budget', '', null), ('check recordings_are_bought: breaker', '', now()),"
            " ('check sources_agree: far apart', '', null), ('songstats_backfill: captures_are_made', '', null)"
        )
    migrate.upgrade(empty_database_url, kind="sandbox")
    with connect(empty_database_url) as connection:
        assert {row["key"] for row in connection.execute("select key from incidents")} == {
            "check backfill_is_progressing: budget",
            "check recordings_are_bought: breaker",
            "check sources_agree: far apart",
            "songstats_backfill: captures_are_made",
        }


def test_an_upgrade_renames_the_status_column_of_an_existing_view(empty_database_url: str):
    with connect(empty_database_url) as connection:
        make_version(connection, "0012")
        for name in views.NAMES[: views.NAMES.index("catalog_play_counts") + 1]:
            connection.execute(views.text(name))
        connection.execute("alter view analytics.catalog_play_counts rename column status to standing")
    migrate.upgrade(empty_database_url, kind="sandbox")
    migrate.require_current(empty_database_url, kind="sandbox")
    with connect(empty_database_url) as connection:
        assert connection.execute("select status from analytics.catalog_play_counts").fetchall() == []
