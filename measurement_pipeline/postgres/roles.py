"""The database's roles, set after every migration as far as the login that migrates may. What each may do is in `roles.sql`.

Logins are nobody's business here: whoever runs the server makes them, and members of a role.
"""

from contextlib import suppress
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from measurement_pipeline.postgres.sql import statements

_SQL = statements("roles")

# Named one by one: the schema may hold tables of others, which are theirs.
TABLES = (
    "account_songs",
    "accounts",
    "alembic_version",
    "api_keys",
    "apify_runs",
    "catalog_songs",
    "catalogs",
    "client_logins",
    "deployment",
    "incidents",
    "latest_counts",
    "measurement_job_songs",
    "measurement_jobs",
    "operator_acts",
    "payment_decisions",
    "playcount_series",
    "playcount_snapshots",
    "playcount_spent_this_month",
    "run_heartbeats",
    "song_identifiers",
    "song_measurements",
    "songs",
    "songstats_backfill_queue",
    "songstats_payable",
    "songstats_quota_ledger",
    "songstats_responses",
    "vendor_state",
)
"""The tables and views that the migrations make."""

# What keeps a query that went wrong from holding the server: it ends, and so does a transaction that was left open, behind which
# no dead row of the queue could be taken away. A group's settings are not its members', so each login gets them; one that it has
# already is left as it is. The limit on temporary files is a superuser's to set.
LIMITS = {
    "statement_timeout": "2min",
    "idle_in_transaction_session_timeout": "1min",
    "default_transaction_read_only": "on",
    "max_parallel_workers_per_gather": "0",
    # What the planner expects of the views is far above what comes, and compiling for it would take longer than the query.
    "jit": "off",
}
# Which nobody else may set, however much of a login's is theirs.
LIMITS_BY_SUPERUSER = {"temp_file_limit": "10GB"}
ANALYSTS_CONNECTIONS = 2
"""How many sessions a login of analysts may have at once, until an administrator says otherwise.

Each query takes a core, and the pipeline's statements wait for one where none is left: on two cores a claim's p99 was 1.7 times
the quiet one beside one query, and 2.9 times beside two (`make bench`). Not 1: a session that was just closed counts for a
moment, and who connects anew in that moment would be refused.
"""


class _OutsideError(Exception):
    """Somebody would lose the tables that it owns: its membership of measurement_owner gives it nothing by itself."""


def apply(connection: psycopg.Connection[Any]) -> str | None:
    """Set roles, owner, rights and policies, inside the caller's transaction; None where all of it is as it should be.

    Otherwise one line: what this login may not do, and so was left as it was. Nothing else depends on it.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        (here,) = cursor.execute(_SQL["login"], {"tables": list(TABLES)}).fetchall()
        try:
            with connection.transaction():
                cursor.execute(_SQL["create"])
        except psycopg.errors.InsufficientPrivilege:
            return (
                "measurement_owner, measurement_pipeline, measurement_client and measurement_analyst are not set up: "
                f"{here['login']} may not create roles. All else works; a login that may can run `measurement-pipeline db "
                "upgrade` later"
            )
        if not here["owns_all"]:
            return f"the rights of the roles are left as they were: {here['login']} does not own the tables"
        left = []
        try:
            with connection.transaction():
                _own(cursor)
        except (psycopg.errors.InsufficientPrivilege, _OutsideError):
            left.append(
                f"the tables are not handed over to measurement_owner: {here['login']} may not do that. The roles have their "
                "rights all the same"
            )
        try:
            with connection.transaction():
                cursor.execute(_SQL["admit"])
        except psycopg.errors.InsufficientPrivilege as error:
            left.append(f"{error.diag.message_primary}, and {here['login']} cannot give it that right")
        tables = sql.SQL(", ").join(map(sql.Identifier, TABLES))
        cursor.execute(
            sql.SQL("revoke all on {} from measurement_pipeline, measurement_client, measurement_analyst").format(
                tables
            )
        )
        cursor.execute(_SQL["grant"])
        cursor.execute(_SQL["guard"])
        cursor.execute(_SQL["grant_views"])
        with suppress(psycopg.errors.InsufficientPrivilege), connection.transaction():
            cursor.execute(_SQL["grant_views_to_come"])
        for name, missing in _limit_analysts(cursor).items():
            left.append(f"{name} may read as an analyst without {', '.join(missing)}: {here['login']} may not set that")
        return "; ".join(left) or None


def _own(cursor: psycopg.Cursor[dict[str, Any]]) -> None:
    """Hand the tables to measurement_owner. Who owned them becomes a member first, and can do what it could."""
    tables = {"tables": list(TABLES)}
    for row in cursor.execute(_SQL["owners_outside"], tables).fetchall():
        # Unless the migration of another database on this server does it at this moment.
        with suppress(psycopg.errors.UniqueViolation), cursor.connection.transaction():
            cursor.execute(sql.SQL("grant measurement_owner to {}").format(sql.Identifier(row["owner"])))
    if cursor.execute(_SQL["owners_outside"], tables).fetchone() is not None:
        raise _OutsideError
    cursor.execute(_SQL["make_room"])
    for row in cursor.execute(_SQL["owned_otherwise"], tables).fetchall():
        kind = sql.SQL("view" if row["is_view"] else "table")
        cursor.execute(sql.SQL("alter {} {} owner to measurement_owner").format(kind, sql.Identifier(row["name"])))
    cursor.execute(_SQL["own_function"])
    for row in cursor.execute(_SQL["views_owned_otherwise"]).fetchall():
        view = sql.Identifier("analytics", row["name"])
        cursor.execute(sql.SQL("alter view {} owner to measurement_owner").format(view))


def _limit_analysts(cursor: psycopg.Cursor[dict[str, Any]]) -> dict[str, list[str]]:
    """Set the limits of the analysts' logins that lack them; by login, those that this one may not set."""
    unlimited: dict[str, list[str]] = {}
    for analyst in cursor.execute(_SQL["analysts"]).fetchall():
        login = sql.Identifier(analyst["name"])
        has = {row["name"] for row in cursor.execute(_SQL["settings"], {"login": analyst["name"]}).fetchall()}
        missing = {name: value for name, value in (LIMITS | LIMITS_BY_SUPERUSER).items() if name not in has}
        for name, value in missing.items():
            try:
                with cursor.connection.transaction():
                    _set(cursor, login, name, value)
            except psycopg.errors.InsufficientPrivilege:
                unlimited.setdefault(analyst["name"], []).append(name)
        if analyst["connections"] < 0:
            try:
                with cursor.connection.transaction():
                    limit = sql.Literal(ANALYSTS_CONNECTIONS)
                    cursor.execute(sql.SQL("alter role {} connection limit {}").format(login, limit))
            except psycopg.errors.InsufficientPrivilege:
                unlimited.setdefault(analyst["name"], []).append("a connection limit")
    return unlimited


def _set(cursor: psycopg.Cursor[dict[str, Any]], login: sql.Identifier, name: str, value: str) -> None:
    """In every database of the server: a login's sessions harm all of them."""
    statement = sql.SQL("alter role {} set {} = {}").format(login, sql.Identifier(name), sql.Literal(value))
    cursor.execute(statement)
