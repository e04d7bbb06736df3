"""Dagster's storage on PostgreSQL, with a connection pool: named in dagster.yaml, loaded by every Dagster process.

The storages of dagster-postgres open a connection for each statement batch, which is most of what an
event costs (a materialization 7 ms, with a pool 2.4 ms). Here all storages of a process share one pool. They write the same
rows as their parents.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, Self

import sqlalchemy
from dagster import AssetKey, DagsterEventType
from dagster_postgres import (
    DagsterPostgresStorage,
    PostgresEventLogStorage,
    PostgresRunStorage,
    PostgresScheduleStorage,
)
from dagster_postgres.utils import DagsterPostgresException, pg_url_from_config, set_pg_statement_timeout

from measurement_pipeline.defs.dagster_private import ConfigurableClassData, EventLogEntry, SqlEventLogStorageTable
from measurement_pipeline.postgres import session
from measurement_pipeline.postgres.conninfo import sqlalchemy_url

# Raised if Dagster's database is unavailable or refuses a write.
STORAGE_ERRORS = (sqlalchemy.exc.SQLAlchemyError, DagsterPostgresException)

# What this process has seen: tables and indexes of a database that Dagster looks for before almost every statement: half of
# what an idle daemon costs. They never vanish, and a missing one is looked for again.
_seen = set[tuple[str, str]]()

# Connections that an idle process keeps. A burst of threads may open more, which are closed when returned.
_POOL_SIZE = 4
_MAX_OVERFLOW = 20


@cache
def _engine(url: str, statement_timeout_ms: int) -> sqlalchemy.Engine:
    """The process's engine for `url`. Connections open on first use and are checked before each use."""
    engine = sqlalchemy.create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        pool_size=_POOL_SIZE,
        max_overflow=_MAX_OVERFLOW,
        pool_pre_ping=True,  # PostgreSQL may have been restarted since
    )

    def connect(dialect: Any, _record: object, _args: object, _given: object) -> Any:
        return session.open_pinned(url, lambda parameters: dialect.connect(**parameters))

    sqlalchemy.event.listen(engine, "do_connect", connect)
    if statement_timeout_ms:

        def set_timeout(connection: Any, _: object) -> None:  # psycopg2 has no types
            set_pg_statement_timeout(connection, statement_timeout_ms)

        sqlalchemy.event.listen(engine, "connect", set_timeout)
    # A forked child must neither use nor close its parent's connections, so it starts with an empty pool.
    os.register_at_fork(after_in_child=partial(engine.dispose, close=False))
    return engine


class _Pooled:
    """The shared part of the three storages: the process's engine replaces one without a pool."""

    postgres_url: str
    _statement_timeout_ms = 0

    def _has(self, name: str, look: Callable[[], bool]) -> bool:
        """Whether the database has `name`, which `look` finds out."""
        key = (self.postgres_url, name)
        if key not in _seen and look():
            _seen.add(key)
        return key in _seen

    @property
    def _engine(self) -> sqlalchemy.Engine:
        return _engine(self.postgres_url, self._statement_timeout_ms)

    @_engine.setter
    def _engine(self, unpooled: sqlalchemy.Engine) -> None:
        """Ignore the parent's own engine, which its constructor sets and which has not connected yet."""

    def optimize_for_webserver(
        self,
        statement_timeout: int,
        pool_recycle: int,  # noqa: ARG002  # the parent's signature
        max_overflow: int,  # noqa: ARG002
    ) -> None:
        """Set the statement timeout (ms). The parent's method would also create a pool for each storage."""
        self._statement_timeout_ms = statement_timeout


class PooledRunStorage(_Pooled, PostgresRunStorage):
    """Runs, through the pool."""

    def has_run_stats_index_cols(self) -> bool:
        """Whether Dagster's migrations have added the columns of start and end."""
        return self._has("columns of run times", super().has_run_stats_index_cols)


class PooledScheduleStorage(_Pooled, PostgresScheduleStorage):
    """Schedules, sensors and their ticks, through the pool."""

    def has_instigators_table(self) -> bool:
        """Whether Dagster's migrations have created the table."""
        return self._has("instigators", super().has_instigators_table)

    def _has_instigators_table(self, conn: Any) -> bool:
        return self._has("instigators", lambda: super(PooledScheduleStorage, self)._has_instigators_table(conn))

    def has_built_index(self, migration_name: str) -> bool:
        """Whether one of Dagster's migrations of data has ended."""
        return self._has(migration_name, lambda: super(PooledScheduleStorage, self).has_built_index(migration_name))


class PooledEventLogStorage(_Pooled, PostgresEventLogStorage):
    """The event log, through the pool. The planned events of one run are written together."""

    def has_table(self, table_name: str) -> bool:
        """Whether Dagster's migrations have created a table."""
        return self._has(table_name, lambda: super(PooledEventLogStorage, self).has_table(table_name))

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Write planned events with one statement, as the parent does for materializations only.

        Dagster passes the planned events of a run together if DAGSTER_EVENT_BATCH_SIZE is set.
        """
        types = {event.get_dagster_event().event_type for event in events}
        if types != {DagsterEventType.ASSET_MATERIALIZATION_PLANNED}:
            super().store_event_batch(events)
            return
        with self._connect() as connection:
            # Statement and rows separately: the statement is compiled once for any number of rows.
            rows = [self._event_to_row(event) for event in events]
            connection.execute(SqlEventLogStorageTable.insert(), rows)
        last: dict[AssetKey | None, EventLogEntry] = {event.get_dagster_event().asset_key: event for event in events}
        for event in last.values():
            # The asset's row names the run that plans it, not the event, so any id will do.
            self.store_asset_event(event, event_id=0)


class PooledPostgresStorage(DagsterPostgresStorage):
    """The storage that dagster.yaml names. Configured like `storage: postgres`, and accepts `postgresql://` URLs, too."""

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,  # noqa: FBT001, FBT002  # the parent's signature
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        # Skips the parent's constructor, which would create storages without a pool.
        super(DagsterPostgresStorage, self).__init__()  # type: ignore[no-untyped-call]
        self.postgres_url = sqlalchemy_url(postgres_url)
        # Dagster reads this at each event. It is off by default because its own storages gain nothing by it.
        os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")
        self.should_autocreate_tables = should_autocreate_tables
        self._inst_data = inst_data
        # Each tick creates its own instance, and looking for the tables takes 5 ms.
        options = (self.postgres_url, should_autocreate_tables and (self.postgres_url, "") not in _seen)
        self._run_storage = PooledRunStorage(*options)
        self._event_log_storage = PooledEventLogStorage(*options)
        self._schedule_storage = PooledScheduleStorage(*options)
        if should_autocreate_tables:
            _seen.add((self.postgres_url, ""))

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Create the storage from the `config` of dagster.yaml. Dagster calls this."""
        return cls(
            postgres_url=pg_url_from_config(config_value),
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
            inst_data=inst_data,
        )
