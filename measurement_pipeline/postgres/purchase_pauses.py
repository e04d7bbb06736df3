"""Operators' pauses of purchases: begin, end and list. The statements are in `purchase_pauses.sql`.

`songstats_ledger.reserve` and `apify_runs.record_intent` obey them.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from measurement_pipeline.domain.measurement_job import State
from measurement_pipeline.domain.purchase_pause import PausableVendor, PauseScope, PurchasePause
from measurement_pipeline.postgres import operator_acts, payment_decisions
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("purchase_pauses")


class PauseEndsInThePastError(ValueError):
    """The end of a pause is not in the future, by the database's clock."""


def begin(
    connection: Connection, scope: PauseScope, *, until: datetime | None, reason: str, actor: str
) -> PurchasePause:
    """Pause `scope` from now on, in place of an earlier pause of the same scope. Nothing is reserved once this returns.

    Waits for reservations that have begun. Raises `PauseEndsInThePastError`.
    """
    parameters = {**_parameters(scope), "reason": reason, "until": until, "actor": actor}
    with connection.transaction():
        connection.execute(_SQL["lock"])
        if scope.account is not None:
            payment_decisions.ensure_account(connection, scope.account)
        connection.execute(_SQL["end"], parameters)
        row = connection.execute(_SQL["begin"], parameters).fetchone()
        if row is None:
            raise PauseEndsInThePastError(f"the pause would end at {until}, which is not in the future")
        pause = to_pause(row)
        operator_acts.record(connection, actor=actor, act="purchases paused", detail=_detail(pause))
    return pause


def end(connection: Connection, scope: PauseScope, *, actor: str) -> PurchasePause | None:
    """End the pause of exactly `scope`; None if none holds."""
    with connection.transaction():
        rows = connection.execute(_SQL["end"], {**_parameters(scope), "actor": actor}).fetchall()
        if not rows:
            return None
        pause = to_pause(rows[-1])
        operator_acts.record(connection, actor=actor, act="purchases resumed", detail=_detail(pause))
    return pause


def list_active(connection: Connection) -> list[PurchasePause]:
    """The pauses that hold now, those of everything first."""
    return [to_pause(row) for row in connection.execute(_SQL["active"])]


def of_songstats(connection: Connection) -> PurchasePause | None:
    """The pause that stops every call to Songstats, or None."""
    row = connection.execute(_SQL["of_songstats"]).fetchone()
    return None if row is None else to_pause(row)


def of_capture(connection: Connection, snapshot: UUID) -> PurchasePause | None:
    """The pause that stops new actor runs of a capture, or None."""
    row = connection.execute(_SQL["of_capture"], {"snapshot": snapshot}).fetchone()
    return None if row is None else to_pause(row)


def of_open_captures(connection: Connection) -> list[PurchasePause]:
    """The pauses that stop any open capture."""
    return [to_pause(row) for row in connection.execute(_SQL["of_open_captures"])]


def of_job(connection: Connection, job: dict[str, Any]) -> PurchasePause | None:
    """The pause that holds an open request, or None. `job`: its row."""
    if job["state"] != State.ACCEPTED:
        return None
    parameters = {"account": job["account"], "source": job["source"]}
    row = connection.execute(_SQL["of_job"], parameters).fetchone()
    return None if row is None else to_pause(row)


def of_songs(
    connection: Connection, songs: Sequence[str], *, operators_account: UUID | None
) -> dict[str, PurchasePause]:
    """For each of `songs` that a paused account wants, the pause."""
    found = connection.execute(_SQL["songs"], {"songs": list(songs), "operators_account": operators_account})
    return {row.pop("song"): to_pause(row) for row in found}


def list_recent(connection: Connection, *, account: UUID | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """The latest pauses, newest first, also those that have ended."""
    return connection.execute(_SQL["recent"], {"account": account, "limit": limit}).fetchall()


def to_pause(row: dict[str, Any]) -> PurchasePause:
    """The pause of a row with the columns of the table."""
    vendor = None if row["vendor"] is None else PausableVendor(row["vendor"])
    return PurchasePause(
        PauseScope(row["account"], vendor), row["reason"], row["paused_by"], row["paused_at"], row["paused_until"]
    )


def _parameters(scope: PauseScope) -> dict[str, Any]:
    return {"account": scope.account, "vendor": None if scope.vendor is None else scope.vendor.value}


def _detail(pause: PurchasePause) -> dict[str, Any]:
    until = None if pause.paused_until is None else pause.paused_until.isoformat()
    return {"what": str(pause.scope), "reason": pause.reason, "until": until}
