"""Describes the errors that a command expects. Any other exception is a defect and keeps its traceback."""


def describe_expected_error(error: Exception) -> str | None:
    """Return one line about an expected error; None for a defect. Imports are late, because most commands never fail."""
    from measurement_pipeline.local.embedded_postgres import EmbeddedServerError
    from measurement_pipeline.postgres.database import DatabaseError
    from measurement_pipeline.postgres.errors import is_transient
    from measurement_pipeline.postgres.migrate import (
        SchemaOutOfDateError,
        UnsuitableEncodingError,
        WrongDeploymentError,
    )
    from measurement_pipeline.settings import SettingsError

    expected = (
        SettingsError, WrongDeploymentError, SchemaOutOfDateError, UnsuitableEncodingError, EmbeddedServerError,
    )  # fmt: skip
    if isinstance(error, expected):
        return str(error)
    if isinstance(error, DatabaseError) and is_transient(error):
        if error.sqlstate is None:
            return f"the database cannot be reached: {_first_line(error)}"
        return f"the database is temporarily unavailable: {_first_line(error)}: try again later"
    if isinstance(error, DatabaseError):
        return f"the database rejected the command: {_first_line(error)}"
    if isinstance(error, OSError):
        return _first_line(error)
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
