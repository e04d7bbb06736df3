"""Keys of the HTTP API: made, looked up, listed, revoked. What a key looks like, and its digest, is the caller's.

The statements are in `api_keys.sql`. Whether a key has expired is asked of the database's clock.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.payment_decisions import ensure_account
from measurement_pipeline.postgres.sql import statements

_SQL = statements("api_keys")


@dataclass(frozen=True, slots=True)
class KeyOnFile:
    """A key as it is known here. `refused_because`: it is revoked, or has expired; None: it is good.

    `use_unnoted`: its use was not written down for a minute.
    """

    id: UUID
    account: UUID
    digest: bytes
    refused_because: str | None
    use_unnoted: bool


def add(
    connection: Connection, *, account: UUID, name: str, prefix: str, digest: bytes, expires_at: datetime | None = None
) -> UUID | None:
    """Put a key on file; None where one of that prefix is there already."""
    with connection.transaction():
        ensure_account(connection, account)
        found = connection.execute(
            _SQL["add"],
            {"account": account, "name": name, "prefix": prefix, "digest": digest, "expires_at": expires_at},
        ).fetchone()
    return None if found is None else UUID(str(found["id"]))


def find(connection: Connection, prefix: str) -> KeyOnFile | None:
    """The key that begins so."""
    row = connection.execute(_SQL["find"], {"prefix": prefix}).fetchone()
    return None if row is None else KeyOnFile(**row)


def used(connection: Connection, key: UUID) -> None:
    """Write down that a key was accepted, at most once a minute."""
    connection.execute(_SQL["used"], {"key": key})


def listed(connection: Connection, *, account: UUID | None = None) -> list[dict[str, Any]]:
    """All keys, or the account's, the oldest first; without their digests."""
    return connection.execute(_SQL["listed"], {"account": account}).fetchall()


def revoke(connection: Connection, prefix: str) -> bool:
    """Accept a key no more; whether there was one that was accepted until now."""
    return connection.execute(_SQL["revoke"], {"prefix": prefix}).fetchone() is not None
