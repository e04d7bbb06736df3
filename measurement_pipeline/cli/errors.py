"""Describes the errors that a command expects. Any other exception is a defect and keeps its traceback."""


def describe_expected_error(error: Exception) -> str | None:
    """Return one line about an expected error; None for a defect. Imports are late, because most commands never fail."""
    from measurement_pipeline.local.embedded_postgres import EmbeddedServerError
    from measurement_pipeline.postgres.database import DatabaseError
    from measurement_pipeline.postgres.errors import first_line, is_transient
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
            return f"the database cannot be reached: {first_line(error)}"
        return f"the database is temporarily unavailable: {first_line(error)}: try again later"
    if isinstance(error, DatabaseError):
        return f"the database rejected the command: {first_line(error)}"
    if isinstance(error, OSError):
        return first_line(error)
    return None
