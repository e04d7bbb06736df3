"""Whether Dagster has created its tables in its database. Read-only; the statement is in `dagster_tables.sql`."""

from measurement_pipeline.postgres.database import connect, fetch_row
from measurement_pipeline.postgres.sql import statements

_SQL = statements("dagster_tables")


def do_tables_exist(url: str) -> bool:
    """Whether the tables exist. Raises `DatabaseUnavailable`."""
    with connect(url) as connection:
        return bool(fetch_row(connection, _SQL["exist"])["exist"])
