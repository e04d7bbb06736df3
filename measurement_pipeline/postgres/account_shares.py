"""The queue by account, and each account's share of the hits. The statements are in `account_shares.sql`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from psycopg.rows import tuple_row

from measurement_pipeline.domain.backfill_queue import DueRow, QueueRules
from measurement_pipeline.domain.completion import LastPlace
from measurement_pipeline.domain.fair_share import AccountShare, SpentHit
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("account_shares")


@dataclass(frozen=True, slots=True)
class WaitingAccount:
    """An account that can pay and has due rows. `cap_left`: hits left under its own limit; None: it has none."""

    account: UUID
    weight: int
    cap_left: int | None
    waiting: int


@dataclass(frozen=True, slots=True)
class OpenAccount:
    """An account with recordings to buy. `counted`: its hits of the last 30 days, where it has a `cap`."""

    account: UUID
    weight: int
    cap: int | None
    waiting: int
    counted: int


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """What is due to an account, and what it had.

    `waiting`: recordings to buy. `share`: of the next hits, as long as the same accounts wait. `hits`: in the last 30 days.
    `credit`: hits that it is behind its share; negative: ahead.
    """

    account: UUID
    name: str | None
    weight: int
    cap: int | None
    waiting: int
    hits: int
    share: float
    credit: float


def assign_changed(connection: Connection, rules: QueueRules) -> int:
    """Update the account of the queue's rows where who pays has changed; returns the number of rows."""
    return connection.execute(_SQL["assign_changed"], _parameters(rules)).rowcount


def waiting_accounts(
    connection: Connection, rules: QueueRules, *, covered: Sequence[str] = (), most: int
) -> list[WaitingAccount]:
    """The accounts that can pay and have due rows outside `covered`. At most `most` rows of each are counted."""
    parameters = {**_parameters(rules), "covered": list(covered), "most": most}
    return [WaitingAccount(**row) for row in connection.execute(_SQL["waiting"], parameters)]


def next_rows(
    connection: Connection,
    rules: QueueRules,
    *,
    by_rank: Mapping[UUID, int],
    by_age: Mapping[UUID, int],
    covered: Sequence[str],
) -> list[DueRow]:
    """The best ranked and the oldest due rows of each account outside `covered`, as many as given, in no order."""
    accounts = list(by_rank)
    parameters = {
        **_parameters(rules),
        "accounts": accounts,
        "by_rank": [by_rank[account] for account in accounts],
        "by_age": [by_age[account] for account in accounts],
        "covered": list(covered),
    }
    with connection.cursor(row_factory=tuple_row) as cursor:
        # Ten thousand rows: tuples, and a number instead of each row's account, take half the time.
        found = cursor.execute(_SQL["next_rows"], parameters).fetchall()
    return [DueRow(song, rank, since, accounts[place - 1]) for song, place, rank, since in found]


def unparsed_rows(
    connection: Connection, rules: QueueRules, *, accounts: Sequence[UUID], covered: Sequence[str], most: int
) -> list[DueRow]:
    """Due rows of none of `accounts` that need no hit, because their response is stored. Best rank first."""
    parameters = {**_parameters(rules), "accounts": list(accounts), "covered": list(covered), "most": most}
    return [DueRow(**row) for row in connection.execute(_SQL["unparsed_rows"], parameters)]


def due(connection: Connection, rules: QueueRules) -> list[DueRow]:
    """Every due row, best rank first, oldest first among equals. A pause, the breaker and the budget are not considered."""
    assign_changed(connection, rules)
    return [DueRow(**row) for row in connection.execute(_SQL["due"], _parameters(rules))]


def count_due(connection: Connection, rules: QueueRules) -> int:
    """How many rows are due, as far as the last plan knows who pays. Only reads."""
    return int((connection.execute(_SQL["count_due"], _parameters(rules)).fetchone() or {})["due"])


def due_among(
    connection: Connection, rules: QueueRules, songs: Sequence[str], *, covered: Sequence[str]
) -> list[DueRow]:
    """The due rows among `songs` of all accounts."""
    parameters = {**_parameters(rules), "songs": list(songs), "covered": list(covered)}
    return [DueRow(**row) for row in connection.execute(_SQL["due_among"], parameters)]


def planned_by_account(connection: Connection, covered: Sequence[str]) -> dict[UUID | None, int]:
    """How many rows of unfinished runs still need a hit, by account."""
    if not covered:
        return {}
    found = connection.execute(_SQL["covered"], {"covered": list(covered)})
    return {row["account"]: row["planned"] for row in found}


def open_accounts(connection: Connection, *, also: Collection[UUID] = ()) -> list[OpenAccount]:
    """All accounts with recordings to buy, and those of `also`."""
    return [OpenAccount(**row) for row in connection.execute(_SQL["open_accounts"], {"also": list(also)})]


def read_statuses(connection: Connection) -> list[AccountStatus]:
    """Accounts with recordings to buy, or with hits in the last 30 days; most recordings first."""
    return [AccountStatus(**row) for row in connection.execute(_SQL["statuses"])]


def cap_frees_in(connection: Connection, account: UUID, place: int) -> float | None:
    """Seconds until `place` (from 1) of the account's counted hits expire; None if fewer are counted."""
    found = connection.execute(_SQL["cap_frees_in"], {"account": account, "before": place - 1}).fetchone()
    return None if found is None else float(found["seconds"])


def last_places(connection: Connection, jobs: Sequence[UUID]) -> dict[UUID, dict[UUID | None, LastPlace]]:
    """For each accepted request with recordings to buy: the place of its last one, by the account that pays."""
    places: dict[UUID, dict[UUID | None, LastPlace]] = {}
    for row in connection.execute(_SQL["last_places"], {"jobs": list(jobs)}):
        place = LastPlace(row["waiting"], by_rank=row["by_rank"], by_age=row["by_age"])
        places.setdefault(row["job"], {})[row["account"]] = place
    return places


def lock(connection: Connection) -> None:
    """Let no other planner change the shares until the transaction ends."""
    connection.execute(_SQL["lock"])


def read_shares(connection: Connection) -> list[AccountShare[UUID]]:
    """What the last plan stored."""
    return [AccountShare(**row) for row in connection.execute(_SQL["shares"])]


def hits_since(connection: Connection) -> list[SpentHit[UUID]]:
    """The calls that the stored shares do not include."""
    return [SpentHit(**row) for row in connection.execute(_SQL["hits_since"])]


def store_shares(connection: Connection, changed: Sequence[AccountShare[UUID]], *, shared_up_to: int | None) -> None:
    """Store the shares that changed, and the last call that they include (None: unchanged)."""
    if changed:
        parameters = {
            "accounts": [share.account for share in changed],
            "credits": [share.credit for share in changed],
            "waiting": [share.is_waiting for share in changed],
            "hits": [share.hits for share in changed],
        }
        connection.execute(_SQL["store_shares"], parameters)
    if shared_up_to is not None:
        connection.execute(_SQL["store_position"], {"shared_up_to": shared_up_to})


def _parameters(rules: QueueRules) -> dict[str, object]:
    return {
        "claim_timeout": rules.claim_timeout_seconds,
        "max_attempts": rules.max_attempts,
        "operators_account": rules.operators_account,
    }
