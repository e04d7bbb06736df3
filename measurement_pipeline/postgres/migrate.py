"""Upgrade a measurement database to the schema of this version, and read the schema and the stamp that it has.

Alembic records which migrations ran; the migrations are plain SQL (`migrations/versions/*.sql`). There are no downgrades, because
bought data is never dropped.
"""

from datetime import UTC
from importlib import resources
from typing import cast

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.pool import NullPool

from measurement_pipeline.postgres import roles, server_settings, views
from measurement_pipeline.postgres.database import Connection, connect
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


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(resources.files(__package__).joinpath("migrations")))
    return config


def _engine(url: str) -> sqlalchemy.Engine:
    # Connects here, for two reasons: SQLAlchemy would parse the URL again and fail for socket directories, and it would wrap
    # the error of an unreachable server, which callers expect as `DatabaseUnavailable`.
    opened = Connection.connect(url, connect_timeout=10)
    return sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: opened, poolclass=NullPool)


def expected_version() -> str:
    """The schema version that this code expects."""
    found = ScriptDirectory.from_config(_config()).get_current_head()
    if found is None:
        raise SchemaOutOfDateError("this installation has no migrations; install the package again")
    return found


def current_version(url: str) -> str | None:
    """The schema version of the database; None if it was never migrated."""
    engine = _engine(url)
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(url: str, *, kind: str) -> str | None:
    """Migrate to this version, stamp the database as `kind` if it has no stamp, create the views and set the roles' rights.

    Returns one line about what this login may not do for the roles, or None. A login without the right to migrate succeeds if
    there is nothing to migrate. Raises `WrongDeploymentError` or `UnsuitableEncodingError` before any change, and
    `DatabaseError`.
    """
    with connect(url) as opened:
        _, unsuitable = server_settings.encoding(opened)
    if unsuitable is not None:
        raise UnsuitableEncodingError(unsuitable)
    try:
        return _upgrade(_engine(url), kind)
    except sqlalchemy.exc.DBAPIError as wrapped:
        # Callers handle the driver's errors, not SQLAlchemy's.
        if wrapped.orig is None:
            raise
        raise wrapped.orig from wrapped


def _upgrade(engine: sqlalchemy.Engine, kind: str) -> str | None:
    with engine.connect() as connection, connection.begin():
        # One outer transaction, so that everything commits or nothing does.
        connection.exec_driver_sql(_SQL["lock_timeout"])
        connection.exec_driver_sql(_SQL["lock"], {"key": _MIGRATION_LOCK})
        stamped = None
        if connection.exec_driver_sql(_SQL["is_stamped"]).scalar_one():
            stamped = connection.exec_driver_sql(_SQL["stamp"]).scalar_one_or_none()
            _require_kind(stamped, kind)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        if stamped is None:
            connection.exec_driver_sql(_SQL["set_stamp"], {"kind": kind})
        opened = cast("Connection", connection.connection.driver_connection)
        views.apply(opened)
        return roles.apply(opened)


def get_stamp(url: str) -> str | None:
    """`sandbox` or `live`; None if the database was never migrated."""
    with connect(url) as connection:
        row = connection.execute(_SQL["is_stamped"]).fetchone()
        if row is None or not row["is_stamped"]:
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
    found = current_version(url)
    if found != expected_version():
        raise SchemaOutOfDateError(
            f"the measurement database is at schema {found or 'none'}, this version needs {expected_version()}: "
            "run `measurement-pipeline db upgrade`"
        )
    with connect(url) as connection:
        if views.stamped(connection) != views.version():
            raise SchemaOutOfDateError(
                "the analysts' views are from another version: run `measurement-pipeline db upgrade`"
            )
    stamped = get_stamp(url)
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
