"""Whether Dagster has created its tables in its database. Read-only; the statement is in `dagster_tables.sql`."""

from measurement_pipeline.postgres.database import connect
from measurement_pipeline.postgres.sql import statements

_SQL = statements("dagster_tables")


def do_tables_exist(url: str) -> bool:
    """Whether the tables exist. Accepts both forms of the address. Raises `DatabaseUnavailable`."""
    scheme, _, rest = url.partition("://")
    with connect(f"{scheme.partition('+')[0]}://{rest}") as connection:
        found = connection.execute(_SQL["exist"]).fetchone()
        return bool(found and found["exist"])
