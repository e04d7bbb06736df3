"""Signs of life of Dagster runs, kept where the runs do their work. The statements are in `run_heartbeats.sql`."""

from collections.abc import Sequence

from measurement_pipeline.postgres.database import AsyncConnection, Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("run_heartbeats")


def beat(connection: Connection, run: str) -> None:
    """Say that `run` lives."""
    connection.execute(_SQL["beat"], {"run": run})


async def beat_async(connection: AsyncConnection, run: str) -> None:
    """Say that `run` lives, from an event loop."""
    await connection.execute(_SQL["beat"], {"run": run})


def silent(connection: Connection, runs: Sequence[str], *, seconds: float) -> set[str]:
    """Of the started `runs`, those without a sign of life for so long; one without any is judged from now on."""
    connection.execute(_SQL["meet"], {"runs": list(runs)})
    found = connection.execute(_SQL["silent"], {"runs": list(runs), "silence": seconds})
    return {row["run_id"] for row in found}


def last_beats(connection: Connection, runs: Sequence[str]) -> dict[str, float]:
    """Seconds since the last sign of life of each of `runs` that ever gave one. Only reads."""
    found = connection.execute(_SQL["last_beats"], {"runs": list(runs)})
    return {row["run_id"]: float(row["seconds"]) for row in found}


def forget(connection: Connection) -> None:
    """Drop what is older than a week: those runs ended, one way or the other."""
    connection.execute(_SQL["forget"])
