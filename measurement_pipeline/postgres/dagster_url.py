"""The URL of Dagster's own storage, in the form that SQLAlchemy needs."""

from measurement_pipeline.postgres import conninfo


def dagster_url(address: str) -> str:
    """`address` with the driver of dagster-postgres, psycopg2; SQLAlchemy 2.1 would choose psycopg 3.

    Raises `AddressError`.
    """
    return conninfo.uri(conninfo.parse(address), scheme="postgresql+psycopg2")
