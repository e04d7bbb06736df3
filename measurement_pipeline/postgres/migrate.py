"""Upgrade a measurement database to the schema of this version, and read the schema and the stamp that it has.

A migration is a file of plain SQL in `migrations/versions/`; its name begins with its version. The last one that ran is in the
table `alembic_version`, as in earlier versions, which used Alembic. There are no downgrades: bought data is never dropped.
"""

from datetime import UTC
from functools import cache
from importlib import resources
from typing import LiteralString

from measurement_pipeline.postgres import roles, server_settings, views
from measurement_pipeline.postgres.database import Connection, connect, fetch_row
from measurement_pipeline.postgres.sql import statements

_SQL = statements("migrate")

# An arbitrary number that all migrations share, so that two at once take turns.
_MIGRATION_LOCK = 7_305_501


class WrongDeploymentError(RuntimeError):
    """The database is stamped for the other kind of deployment. Invented and bought histories must never mix."""


class UnsuitableEncodingError(RuntimeError):
    """The database's encoding cannot store all titles."""


class SchemaOutOfDateError(RuntimeError):
    """The database has not been migrated to this version."""


@cache
def _migrations() -> dict[str, LiteralString]:
    """The migrations by their version, oldest first."""
    files = resources.files(__package__).joinpath("migrations", "versions").iterdir()
    scripts = sorted((file for file in files if file.name.endswith(".sql")), key=lambda file: file.name)
    # As in sql.py: the text ships with the package, and is never built from input.
    found: dict[str, LiteralString] = {
        script.name.partition("_")[0]: script.read_text(encoding="utf-8") for script in scripts
    }
    if len(found) != len(scripts):
        raise ValueError(f"two migrations have one number: {', '.join(script.name for script in scripts)}")
    return found


def expected_version() -> str:
    """The schema version that this code expects."""
    if not _migrations():
        raise SchemaOutOfDateError("this installation has no migrations; install the package again")
    return max(_migrations())


def current_version(url: str) -> str | None:
    """The schema version of the database; None if it was never migrated."""
    with connect(url) as connection:
        return _current_version(connection)


def _current_version(connection: Connection) -> str | None:
    if not fetch_row(connection, _SQL["has_version"])["has_version"]:
        return None
    found = connection.execute(_SQL["version"]).fetchone()
    return None if found is None else str(found["version_num"])


def upgrade(url: str, *, kind: str) -> str | None:
    """Migrate to this version, stamp the database as `kind` if it has no stamp, create the views and set the roles' rights.

    Returns one line about what this login may not do for the roles, or None. A login without the right to migrate succeeds if
    there is nothing to migrate. Raises `WrongDeploymentError`, `UnsuitableEncodingError` or `SchemaOutOfDateError` before any
    change, and `DatabaseError`.
    """
    # One transaction, so that everything commits or nothing does.
    with connect(url) as connection, connection.transaction():
        _, unsuitable = server_settings.encoding(connection)
        if unsuitable is not None:
            raise UnsuitableEncodingError(unsuitable)
        connection.execute(_SQL["lock_timeout"])
        connection.execute(_SQL["lock"], {"key": _MIGRATION_LOCK})
        stamped = _read_stamp(connection)
        _require_kind(stamped, kind)
        _run_migrations(connection)
        if stamped is None:
            connection.execute(_SQL["set_stamp"], {"kind": kind})
        views.apply(connection)
        return roles.apply(connection)


def _run_migrations(connection: Connection) -> None:
    current = _current_version(connection)
    if current is not None and current not in _migrations():
        raise SchemaOutOfDateError(
            f"the database is at schema {current}, which this version does not know: it is of a newer version, or "
            "DATABASE_URL names another program's database"
        )
    missing = [script for version, script in _migrations().items() if current is None or version > current]
    if not missing:
        return
    if current is None:
        connection.execute(_SQL["create_version"])
    for script in missing:
        connection.execute(script)
    connection.execute(_SQL["set_version"], {"version": expected_version()})


def get_stamp(url: str) -> str | None:
    """`sandbox` or `live`; None if the database was never migrated."""
    with connect(url) as connection:
        return _read_stamp(connection)


def _read_stamp(connection: Connection) -> str | None:
    if not fetch_row(connection, _SQL["is_stamped"])["is_stamped"]:
        return None
    found = connection.execute(_SQL["stamp"]).fetchone()
    return None if found is None else str(found["kind"])


def identity(connection: Connection) -> str:
    """An identity of this database that a newly created one does not share: the time of its stamp."""
    found = connection.execute(_SQL["identity"]).fetchone()
    if found is None:
        raise WrongDeploymentError(
            "the database has no stamp: table `deployment` must have one row, with kind `sandbox` or `live`"
        )
    return f"{found['created_at'].astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def require_current(url: str, *, kind: str) -> None:
    """Raise unless the database has this version's schema and the stamp `kind`. Every process calls this at its start."""
    with connect(url) as connection:
        found = _current_version(connection)
        if found != expected_version():
            raise SchemaOutOfDateError(
                f"the measurement database is at schema {found or 'none'}, this version needs {expected_version()}: "
                "run `measurement-pipeline db upgrade`"
            )
        if views.stamped(connection) != views.version():
            raise SchemaOutOfDateError(
                "the analysts' views are from another version: run `measurement-pipeline db upgrade`"
            )
        stamped = _read_stamp(connection)
    if stamped is None:
        raise WrongDeploymentError(
            "the database has no stamp: table `deployment` must have one row, with kind `sandbox` or `live`"
        )
    _require_kind(stamped, kind)


def _require_kind(found: str | None, kind: str) -> None:
    if found is not None and found != kind:
        raise WrongDeploymentError(
            f"the database is stamped `{found}`, but this process uses `{kind}` vendors, and invented and bought histories must "
            f"never mix. Set DATABASE_URL to a `{kind}` database, or the vendors' settings to `{found}` vendors."
        )
