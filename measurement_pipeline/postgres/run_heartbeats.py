"""Heartbeats of Dagster runs, stored in the measurement database. The statements are in `run_heartbeats.sql`."""

from collections.abc import Sequence

from measurement_pipeline.postgres.database import AsyncConnection, Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("run_heartbeats")


def renew(connection: Connection, run: str) -> None:
    """Renew the heartbeat of `run`."""
    connection.execute(_SQL["renew"], {"run": run})


async def renew_async(connection: AsyncConnection, run: str) -> None:
    """Renew the heartbeat of `run` from an event loop."""
    await connection.execute(_SQL["renew"], {"run": run})


def list_silent(connection: Connection, runs: Sequence[str], *, seconds: float) -> set[str]:
    """The `runs` without a heartbeat for `seconds`. A run without any heartbeat counts from now on."""
    connection.execute(_SQL["register"], {"runs": list(runs)})
    found = connection.execute(_SQL["silent"], {"runs": list(runs), "silence": seconds})
    return {row["run_id"] for row in found}


def seconds_since_last(connection: Connection, runs: Sequence[str]) -> dict[str, float]:
    """Seconds since the last heartbeat of each of `runs` that has one. Read-only."""
    found = connection.execute(_SQL["last"], {"runs": list(runs)})
    return {row["run_id"]: float(row["seconds"]) for row in found}


def delete_old(connection: Connection) -> None:
    """Delete heartbeats older than a week: those runs have ended."""
    connection.execute(_SQL["delete_old"])
