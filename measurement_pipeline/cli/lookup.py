"""Finds an account or a catalogue by id or name."""

from collections.abc import Sequence
from uuid import UUID

import click

from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.postgres import names
from measurement_pipeline.postgres.database import Connection

account_option = click.option(
    "--account", required=True, metavar="ACCOUNT", help="The account. Give its UUID or its name."
)


def find_account(connection: Connection, text: str) -> UUID:
    """Return the account with this UUID or name. Any UUID is accepted, because accounts are created elsewhere.

    Raises `CommandError`.
    """
    id_ = _parse_uuid(text)
    if id_ is not None:
        return id_
    matches = names.find_accounts(connection, text)
    if not matches:
        raise CommandError(f"no account is named {text!r}: give its UUID, or the name of an account in this database")
    if len(matches) > 1:
        ids = ", ".join(map(str, matches))
        raise CommandError(f"{len(matches)} accounts are named {text!r}: give the UUID of one of them: {ids}")
    return matches[0]


def find_optional_account(connection: Connection, text: str | None) -> UUID | None:
    """Like `find_account`; None for no text."""
    return None if text is None else find_account(connection, text)


def find_known_account(connection: Connection, text: str) -> UUID:
    """Like `find_account`, but reject an account that is not in this database: a mistyped UUID must not look unused."""
    account = find_account(connection, text)
    if not names.is_account_known(connection, account):
        raise CommandError(f"there is no account {account}: give the UUID or the name of an account in this database")
    return account


def find_catalog(connection: Connection, text: str, *, owner: UUID | None) -> UUID:
    """Return the catalogue with this id or name, of account `owner` or of any account. Raises `CommandError`."""
    matches = names.find_catalogs(connection, id_=_parse_uuid(text), name=text, account=owner)
    of_owner = "" if owner is None else f" of account {owner}"
    if not matches:
        raise CommandError(
            f"there is no catalogue {text!r}{of_owner}: give the id or the name of an imported catalogue"
        )
    if len(matches) > 1:
        ids = ", ".join(f"{match['id']} of account {match['account']}" for match in matches)
        next_step = (
            "give the id of one of them" if owner is not None else "add --account, or give the id of one of them"
        )
        raise CommandError(f"{len(matches)} catalogues{of_owner} are named {text!r}: {next_step}: {ids}")
    return UUID(str(matches[0]["id"]))


def split_commas(values: Sequence[str]) -> list[str]:
    """The values of an option that may be repeated, or given several values at once."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def _parse_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
