"""Roles of the database and their rights, applied after every migration as far as the migrating login may.

Rights are in `roles.sql`. The server's administrator creates logins and makes them members of a role.
"""

from contextlib import suppress
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from measurement_pipeline.postgres.sql import statements

_SQL = statements("roles")

# An explicit list, because the schema may contain tables of other owners.
TABLES = (
    "account_songs",
    "active_purchase_pauses",
    "accounts",
    "alembic_version",
    "api_keys",
    "apify_runs",
    "catalog_songs",
    "catalogs",
    "client_logins",
    "deployment",
    "history_imports",
    "incidents",
    "job_callbacks",
    "latest_counts",
    "measurement_job_songs",
    "measurement_jobs",
    "operator_acts",
    "payment_decisions",
    "playcount_series",
    "playcount_snapshots",
    "playcount_spent_this_month",
    "purchase_pauses",
    "run_heartbeats",
    "song_identifiers",
    "song_latest_counts",
    "song_measurements",
    "songs",
    "songstats_backfill_queue",
    "songstats_call_gate",
    "songstats_open_rows",
    "songstats_quota_ledger",
    "songstats_responses",
    "songstats_shares",
    "songstats_unread_responses",
    "songstats_wanted",
    "vendor_drifts",
    "vendor_state",
)
"""The tables and views that the migrations create."""

# Limits that protect the server from analysts' queries: statements and open transactions end. An open transaction would prevent
# VACUUM from removing dead rows of the queue. Members do not inherit a role's settings, so each login gets them; existing
# settings stay. Only a superuser can set the limit on temporary files.
LIMITS = {
    "statement_timeout": "2min",
    "idle_in_transaction_session_timeout": "1min",
    "default_transaction_read_only": "on",
    "max_parallel_workers_per_gather": "0",
    # The planner overestimates the views' rows, and JIT compilation would take longer than the query.
    "jit": "off",
}
# Settings that only a superuser may change.
LIMITS_BY_SUPERUSER = {"temp_file_limit": "10GB"}
ANALYSTS_CONNECTIONS = 2
"""Default number of concurrent sessions of an analyst's login; an administrator may change it.

Each query uses a core, and the pipeline's statements wait if none is free. On two cores, a claim's p99 was 1.7 times the idle one
beside one query, and 2.9 times beside two (`make bench`). Not 1, because a closed session still counts for a moment, and a new
connection in that moment would be rejected.
"""


class _OwnerLosesAccessError(Exception):
    """An owner would lose its tables, because its membership of measurement_owner does not inherit rights."""


def apply(connection: psycopg.Connection[Any]) -> str | None:
    """Set roles, owner, rights and policies in the caller's transaction. Returns None if everything was set.

    Otherwise returns one line on what this login may not do, which is unchanged then. Nothing else depends on it.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        (here,) = cursor.execute(_SQL["login"], {"tables": list(TABLES)}).fetchall()
        try:
            with connection.transaction():
                cursor.execute(_SQL["create"])
        except psycopg.errors.InsufficientPrivilege:
            return (
                "measurement_owner, measurement_pipeline, measurement_client and measurement_analyst are not set up: "
                f"{here['login']} may not create roles. Everything else works; run `measurement-pipeline db upgrade` later "
                "with a login that may create roles"
            )
        if not here["owns_all"]:
            return f"the rights of the roles are unchanged: {here['login']} does not own the tables"
        left = []
        try:
            with connection.transaction():
                _transfer_ownership(cursor)
        except (psycopg.errors.InsufficientPrivilege, _OwnerLosesAccessError):
            left.append(
                f"measurement_owner does not own the tables: {here['login']} may not change the owner. The roles have their "
                "rights"
            )
        try:
            with connection.transaction():
                cursor.execute(_SQL["grant_usage"])
        except psycopg.errors.InsufficientPrivilege as error:
            left.append(f"{error.diag.message_primary}, and {here['login']} may not grant that right")
        tables = sql.SQL(", ").join(map(sql.Identifier, TABLES))
        cursor.execute(
            sql.SQL("revoke all on {} from measurement_pipeline, measurement_client, measurement_analyst").format(
                tables
            )
        )
        cursor.execute(_SQL["grant"])
        cursor.execute(_SQL["row_policies"])
        cursor.execute(_SQL["grant_views"])
        with suppress(psycopg.errors.InsufficientPrivilege), connection.transaction():
            cursor.execute(_SQL["grant_views_to_come"])
        for name, missing in _limit_analysts(cursor).items():
            left.append(f"analyst login {name} lacks {', '.join(missing)}: {here['login']} may not set that")
        return "; ".join(left) or None


def _transfer_ownership(cursor: psycopg.Cursor[dict[str, Any]]) -> None:
    """Make measurement_owner the owner of the tables. The previous owner becomes a member first and keeps its access."""
    tables = {"tables": list(TABLES)}
    for row in cursor.execute(_SQL["owners_outside"], tables).fetchall():
        # A migration of another database on this server may do the same at this moment.
        with suppress(psycopg.errors.UniqueViolation), cursor.connection.transaction():
            cursor.execute(sql.SQL("grant measurement_owner to {}").format(sql.Identifier(row["owner"])))
    if cursor.execute(_SQL["owners_outside"], tables).fetchone() is not None:
        raise _OwnerLosesAccessError
    cursor.execute(_SQL["grant_create"])
    for row in cursor.execute(_SQL["owned_otherwise"], tables).fetchall():
        kind = sql.SQL("view" if row["is_view"] else "table")
        cursor.execute(sql.SQL("alter {} {} owner to measurement_owner").format(kind, sql.Identifier(row["name"])))
    cursor.execute(_SQL["own_function"])
    for row in cursor.execute(_SQL["views_owned_otherwise"]).fetchall():
        view = sql.Identifier("analytics", row["name"])
        cursor.execute(sql.SQL("alter view {} owner to measurement_owner").format(view))


def _limit_analysts(cursor: psycopg.Cursor[dict[str, Any]]) -> dict[str, list[str]]:
    """Set the missing limits of analysts' logins; return, by login, the limits that this login may not set."""
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
    """Set it in every database of the server, because a login's sessions load all of them."""
    statement = sql.SQL("alter role {} set {} = {}").format(login, sql.Identifier(name), sql.Literal(value))
    cursor.execute(statement)
