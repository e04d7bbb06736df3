"""Dagster's storage with a pool: it writes the same rows as dagster-postgres over few, checked, unshared connections."""

import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster import DagsterInstance
from dagster_postgres import PostgresEventLogStorage

from measurement_pipeline.defs.storage import PooledEventLogStorage, PooledPostgresStorage
from measurement_pipeline.local.dagster_processes import prepare_home
from measurement_pipeline.postgres.conninfo import sqlalchemy_url
from measurement_pipeline_tests.dagster_private import (
    AssetMaterializationPlannedData,
    DagsterEvent,
    EventLogEntry,
    StepMaterializationData,
)
from measurement_pipeline_tests.faults.waiting import wait_until

ASSET = dg.AssetKey("songstats_history")
RUN = "5f0a4b3c-0000-4000-8000-000000000001"


@pytest.fixture
def instance(empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DagsterInstance]:
    """An instance as dagster.yaml describes it."""
    prepare_home(tmp_path)
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", empty_database_url)
    with DagsterInstance.from_config(str(tmp_path)) as opened:
        yield opened


def _event(kind: dg.DagsterEventType, data: Any, run_id: str = RUN) -> EventLogEntry:
    event = DagsterEvent(
        kind.value, "songstats_backfill", step_key="backfill", message="said", event_specific_data=data
    )
    return EventLogEntry(
        error_info=None,
        level=10,
        user_message="",
        run_id=run_id,
        timestamp=1_700_000_000.0,
        step_key="backfill",
        job_name="songstats_backfill",
        dagster_event=event,
    )


def _planned(partition: str, asset: dg.AssetKey = ASSET) -> EventLogEntry:
    data = AssetMaterializationPlannedData(asset, partition=partition)
    return _event(dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, data)


def _materialized(partition: str) -> EventLogEntry:
    data = StepMaterializationData(dg.AssetMaterialization(ASSET, partition=partition, metadata={"points": 365}))
    return _event(dg.DagsterEventType.ASSET_MATERIALIZATION, data)


def _take_rows(url: str) -> tuple[list[Any], list[Any]]:
    columns = "run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition"
    asset_columns = "asset_key, last_materialization is null, last_run_id, last_materialization_timestamp"
    with psycopg.connect(url) as connection:
        events = connection.execute(f"select {columns} from event_logs order by id").fetchall()
        assets = connection.execute(f"select {asset_columns} from asset_keys order by 1").fetchall()
        connection.execute("truncate event_logs, asset_keys, asset_event_tags")
    return events, assets


OTHERS = "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"


def _connections(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(f"select count(*) {OTHERS}").fetchone()
    assert row is not None
    return int(row[0])


def _cut_all_connections(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"select pg_terminate_backend(pid) {OTHERS}")


def _log_from_a_fork(storage: PooledEventLogStorage) -> None:
    for _ in range(20):
        storage.store_event(_materialized("child"))


def test_dagster_yaml_loads_the_pooled_storage_from_a_plain_url(instance: DagsterInstance) -> None:
    assert isinstance(instance.get_ref().storage, PooledPostgresStorage)
    assert instance.telemetry_enabled is False
    assert instance.run_monitoring_enabled
    assert not instance.run_retries_enabled
    retention = instance.get_settings("retention")
    assert set(retention) == {"sensor", "schedule"}


def test_events_of_a_running_job_reach_a_watcher(instance: DagsterInstance) -> None:
    received = threading.Event()

    @dg.asset
    def history() -> None: ...

    run = instance.create_run_for_job(dg.Definitions([history]).resolve_implicit_global_asset_job_def())
    instance.watch_event_logs(run.run_id, None, lambda *_: received.set())
    instance.report_engine_event("heard?", run)
    assert received.wait(120)
    assert dg.materialize([history], instance=instance).success
    assert instance.get_latest_materialization_event(history.key) is not None


@pytest.mark.parametrize(
    "events",
    [
        [_planned(f"K{number}") for number in range(50)],
        [_planned("K1"), _planned("K1", dg.AssetKey("other")), _planned("K2")],
        [_materialized(f"K{number}") for number in range(5)],
        [_planned("K1"), _materialized("K1")],
    ],
)
def test_a_batch_of_events_writes_the_same_rows_as_dagster_postgres(
    empty_database_url: str, events: list[EventLogEntry]
) -> None:
    url = sqlalchemy_url(empty_database_url)
    theirs = PostgresEventLogStorage(url)
    theirs.store_event_batch(events)
    expected = _take_rows(empty_database_url)
    PooledEventLogStorage(url).store_event_batch(events)
    assert _take_rows(empty_database_url) == expected


def test_a_planned_range_is_counted_as_the_ui_counts_it(instance: DagsterInstance) -> None:
    instance.event_log_storage.store_event_batch([_planned(f"K{number}") for number in range(10)])
    for number in range(4):
        instance.event_log_storage.store_event(_materialized(f"K{number}"))
    assert instance.get_materialized_partitions(ASSET) == {"K0", "K1", "K2", "K3"}
    info = instance.get_latest_planned_materialization_info(ASSET, "K9")
    assert info is not None
    assert info.run_id == RUN


def test_connections_that_postgresql_closed_are_replaced_without_an_error(empty_database_url: str) -> None:
    storage = PooledEventLogStorage(sqlalchemy_url(empty_database_url))
    storage.store_event(_materialized("before"))
    _cut_all_connections(empty_database_url)
    storage.store_event(_materialized("after"))
    assert storage.get_materialized_partitions(ASSET) == {"before", "after"}


def test_many_threads_leave_few_connections_and_new_instances_add_none(empty_database_url: str) -> None:
    url = sqlalchemy_url(empty_database_url)
    storages = [PooledPostgresStorage(url) for _ in range(3)]
    threads = [
        threading.Thread(target=storages[number % 3].event_log_storage.store_event, args=[_materialized(f"K{number}")])
        for number in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(storages[0].event_log_storage.get_materialized_partitions(ASSET)) == 12
    wait_until(lambda: _connections(empty_database_url) <= 4, what="the end of the other connections")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_neither_uses_nor_closes_its_parents_connections(empty_database_url: str) -> None:
    storage = PooledEventLogStorage(sqlalchemy_url(empty_database_url))
    storage.store_event(_materialized("parent"))
    child = multiprocessing.get_context("fork").Process(target=_log_from_a_fork, args=[storage])
    child.start()
    for _ in range(20):
        storage.store_event(_materialized("parent"))
    child.join(120)
    assert child.exitcode == 0
    storage.store_event(_materialized("after"))
    assert storage.get_materialized_partitions(ASSET) == {"parent", "child", "after"}


def test_the_webservers_statements_have_a_time_limit(empty_database_url: str) -> None:
    storage = PooledEventLogStorage(sqlalchemy_url(empty_database_url))
    storage.optimize_for_webserver(statement_timeout=1234, pool_recycle=3600, max_overflow=20)
    with storage.index_connection() as connection:
        assert connection.exec_driver_sql("show statement_timeout").scalar() == "1234ms"
