"""Whether Dagster's own database was ever used by Dagster. The statement is in `dagster_tables.sql`; only reads."""

from measurement_pipeline.postgres.database import connect
from measurement_pipeline.postgres.sql import statements

_SQL = statements("dagster_tables")


def exist(url: str) -> bool:
    """Whether the tables are there, at either form of its address. Raises `DatabaseUnavailable`."""
    scheme, _, rest = url.partition("://")
    with connect(f"{scheme.partition('+')[0]}://{rest}") as connection:
        found = connection.execute(_SQL["exist"]).fetchone()
        return bool(found and found["exist"])
