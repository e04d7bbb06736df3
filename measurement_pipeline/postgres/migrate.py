"""Brings a measurement database to the schema that this version expects, and says which one it has.

Alembic keeps the account of what ran; the migrations themselves are plain SQL (`migrations/versions/*.sql`). Downgrades do not
exist: what was bought is never dropped.
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

# Any number, the same for all who migrate: two at once take turns.
_MIGRATION_LOCK = 7_305_501


class WrongDeploymentError(RuntimeError):
    """The database is stamped for vendors of the other kind: invented and bought history must never meet."""


class UnsuitableEncodingError(RuntimeError):
    """The database's encoding cannot hold titles."""


class SchemaOutOfDateError(RuntimeError):
    """The database was never migrated, or not to this version."""


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(resources.files(__package__).joinpath("migrations")))
    return config


def _engine(url: str) -> sqlalchemy.Engine:
    # The URL is libpq's business alone: SQLAlchemy would re-read, and trip over, hosts that are socket directories. Connected
    # here, since it would also wrap the error of a server that is away, which callers know as `DatabaseUnavailable`.
    opened = Connection.connect(url, connect_timeout=10)
    return sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: opened, poolclass=NullPool)


def head() -> str:
    """The version that this code expects."""
    found = ScriptDirectory.from_config(_config()).get_current_head()
    if found is None:
        raise SchemaOutOfDateError("this installation holds no migrations; it is incomplete")
    return found


def current(url: str) -> str | None:
    """The version that the database has; None where it was never migrated."""
    engine = _engine(url)
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(url: str, *, kind: str) -> str | None:
    """Migrate to this version, stamp the database as `kind` if it has no stamp yet, make the views, set the roles' rights.

    Returns what this login may not do about the roles, in one line, or None. A login that may not migrate at all is none the
    worse for it where there is nothing to migrate. Raises `WrongDeploymentError`, before anything is changed, where the other
    stamp is on it, `UnsuitableEncodingError` likewise, and `DatabaseError`.
    """
    with connect(url) as opened:
        _, unsuitable = server_settings.encoding(opened)
    if unsuitable is not None:
        raise UnsuitableEncodingError(unsuitable)
    try:
        return _upgrade(_engine(url), kind)
    except sqlalchemy.exc.DBAPIError as wrapped:
        # Callers know the driver's errors, not SQLAlchemy's.
        if wrapped.orig is None:
            raise
        raise wrapped.orig from wrapped


def _upgrade(engine: sqlalchemy.Engine, kind: str) -> str | None:
    with engine.connect() as connection, connection.begin():
        # Held by the outer transaction, so that all of it commits or nothing does.
        connection.exec_driver_sql(_SQL["patience"])
        connection.exec_driver_sql(_SQL["lock"], {"key": _MIGRATION_LOCK})
        stamped = None
        if connection.exec_driver_sql(_SQL["is_stamped"]).scalar_one():
            stamped = connection.exec_driver_sql(_SQL["stamp"]).scalar_one_or_none()
            _compare(stamped, kind)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        if stamped is None:
            connection.exec_driver_sql(_SQL["set_stamp"], {"kind": kind})
        opened = cast("Connection", connection.connection.driver_connection)
        views.apply(opened)
        return roles.apply(opened)


def stamp(url: str) -> str | None:
    """`sandbox` or `live`; None where the database was never migrated."""
    with connect(url) as connection:
        row = connection.execute(_SQL["is_stamped"]).fetchone()
        if row is None or not row["is_stamped"]:
            return None
        found = connection.execute(_SQL["stamp"]).fetchone()
        return None if found is None else str(found["kind"])


def identity(connection: Connection) -> str:
    """What tells this database from one that was made anew: the moment of its stamp."""
    found = connection.execute(_SQL["identity"]).fetchone()
    if found is None:
        raise WrongDeploymentError(
            "this database has lost its stamp: `deployment` must say whether it is sandbox or live"
        )
    return f"{found['created_at'].astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def require(url: str, *, kind: str) -> None:
    """Raise unless the database is at this version's schema and stamped as `kind`: what every process asks at its start."""
    found = current(url)
    if found != head():
        raise SchemaOutOfDateError(
            f"the measurement database is at schema {found or 'none'}, this version needs {head()}: "
            "run `measurement-pipeline db upgrade`"
        )
    with connect(url) as connection:
        if views.stamped(connection) != views.version():
            raise SchemaOutOfDateError(
                "the analysts' views are not those of this version: run `measurement-pipeline db upgrade`"
            )
    stamped = stamp(url)
    if stamped is None:
        raise WrongDeploymentError(
            "this database has lost its stamp: `deployment` must say whether it is sandbox or live"
        )
    _compare(stamped, kind)


def _compare(found: str | None, kind: str) -> None:
    if found is not None and found != kind:
        raise WrongDeploymentError(
            f"this database is stamped `{found}`, but the vendors of this process are `{kind}`: invented and bought history "
            "must never mix. Point DATABASE_URL at a database of its own kind, or the vendors' settings at the other ones."
        )
