"""Which failures of a command are foreseeable, and how each is told. Anything else keeps its traceback."""


def describe_expected_error(error: Exception) -> str | None:
    """What to tell a person of `error`; None where it is a defect of ours. Imported late: most commands never fail."""
    from measurement_pipeline.local.embedded_postgres import EmbeddedServerError
    from measurement_pipeline.postgres.database import DatabaseError
    from measurement_pipeline.postgres.errors import is_transient
    from measurement_pipeline.postgres.migrate import (
        SchemaOutOfDateError,
        UnsuitableEncodingError,
        WrongDeploymentError,
    )
    from measurement_pipeline.settings import SettingsError

    foreseen = (
        SettingsError, WrongDeploymentError, SchemaOutOfDateError, UnsuitableEncodingError, EmbeddedServerError,
    )  # fmt: skip
    if isinstance(error, foreseen):
        return str(error)
    if isinstance(error, DatabaseError) and is_transient(error):
        if error.sqlstate is None:
            return f"the database cannot be reached: {_first_line(error)}"
        return f"the database cannot do this at the moment, try again later: {_first_line(error)}"
    if isinstance(error, DatabaseError):
        return f"the database refused: {_first_line(error)}"
    if isinstance(error, OSError):
        return _first_line(error)
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
