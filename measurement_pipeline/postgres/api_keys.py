"""API keys: create, find, list and revoke. The caller defines the format and the digest of a key.

The statements are in `api_keys.sql`. The database's clock decides whether a key has expired.
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
class StoredKey:
    """A stored key. `refused_because`: revoked or expired, None if valid.

    `is_use_unrecorded`: its last recorded use is older than a minute.
    """

    id: UUID
    account: UUID
    digest: bytes
    refused_because: str | None
    is_use_unrecorded: bool


def add(
    connection: Connection, *, account: UUID, name: str, prefix: str, digest: bytes, expires_at: datetime | None = None
) -> UUID | None:
    """Store a key; return its id, or None if the prefix is taken."""
    with connection.transaction():
        ensure_account(connection, account)
        found = connection.execute(
            _SQL["add"],
            {"account": account, "name": name, "prefix": prefix, "digest": digest, "expires_at": expires_at},
        ).fetchone()
    return None if found is None else UUID(str(found["id"]))


def find(connection: Connection, prefix: str) -> StoredKey | None:
    """The key with this prefix, or None."""
    row = connection.execute(_SQL["find"], {"prefix": prefix}).fetchone()
    return None if row is None else StoredKey(**row)


def record_use(connection: Connection, key: UUID) -> None:
    """Record the use of a key, at most once a minute."""
    connection.execute(_SQL["used"], {"key": key})


def list_all(connection: Connection, *, account: UUID | None = None) -> list[dict[str, Any]]:
    """All keys, or those of `account`, oldest first, without digests."""
    return connection.execute(_SQL["listed"], {"account": account}).fetchall()


def revoke(connection: Connection, prefix: str) -> bool:
    """Revoke a key; return whether there was a key that was not revoked."""
    return connection.execute(_SQL["revoke"], {"prefix": prefix}).fetchone() is not None
