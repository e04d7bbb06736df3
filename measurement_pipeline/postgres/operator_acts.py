"""What a person overrode: written in the same transaction as the deed."""

from typing import Any

from psycopg.types.json import Jsonb

from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("accounts")


def record(connection: Connection, *, actor: str, act: str, detail: dict[str, Any]) -> None:
    """Note that `actor` did `act`; `detail` must be JSON and hold no secret."""
    connection.execute(_SQL["act"], {"actor": actor, "act": act, "detail": Jsonb(detail)})
