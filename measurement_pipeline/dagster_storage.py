"""x"""
import os
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any, Self

import sqlalchemy
from dagster import DagsterEventType
from dagster._config.config_schema import UserConfigSchema
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.config import pg_config
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from dagster._core.events.log import EventLogEntry
from dagster_postgres import PostgresEventLogStorage, PostgresRunStorage, PostgresScheduleStorage
from dagster_postgres.utils import pg_url_from_config
from dagster._core.storage.event_log import SqlEventLogStorageTable


@cache
def _pool(url, timeout=None):
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", pool_size=4, max_overflow=20, pool_pre_ping=True)
    os.register_at_fork(after_in_child=partial(engine.dispose, close=False))
    return engine


class _Pooled:
    postgres_url: str
    @property
    def _engine(self):
        return _pool(self.postgres_url)
    @_engine.setter
    def _engine(self, stock):
        pass

class R(_Pooled, PostgresRunStorage): pass
class S(_Pooled, PostgresScheduleStorage): pass
class E(_Pooled, PostgresEventLogStorage): pass
class E2(E):
    def store_event_batch(self, events):
        if {e.get_dagster_event().event_type for e in events} != {DagsterEventType.ASSET_MATERIALIZATION_PLANNED}:
            return super().store_event_batch(events)
        with self._connect() as conn:
            conn.execute(SqlEventLogStorageTable.insert(), [self._event_to_row(e) for e in events])
        self.store_asset_event(events[-1], 0)
class E3(E2):
    def store_event(self, event):
        with self._connect() as conn:
            event_id = conn.execute(self.prepare_insert_event(event).returning(SqlEventLogStorageTable.c.id)).scalar_one()
        if event.is_dagster_event and event.dagster_event.asset_key:
            with self.index_transaction() as conn:
                self._store_asset_event_tags(conn, [event], [event_id])
                self._store_asset_event(conn, event, event_id)
class E4(E2):
    def store_event(self, event):
      with self._connect() as conn:
        event_id = conn.execute(self.prepare_insert_event(event).returning(SqlEventLogStorageTable.c.id)).scalar_one()
        if event.is_dagster_event and event.dagster_event.asset_key:
                self._store_asset_event_tags(conn, [event], [event_id])
                self._store_asset_event(conn, event, event_id)
