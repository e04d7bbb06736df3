"""Audit log of operators' overrides. Each entry is written in the transaction of the change."""

from typing import Any

from psycopg.types.json import Jsonb

from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("accounts")


def record(connection: Connection, *, actor: str, act: str, detail: dict[str, Any]) -> None:
    """Record that `actor` did `act`. `detail` must be JSON without secrets."""
    connection.execute(_SQL["act"], {"actor": actor, "act": act, "detail": Jsonb(detail)})
