"""Turns what a person calls an account or a catalogue into its id, or says why it could not."""

from uuid import UUID

import click

from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.postgres import names
from measurement_pipeline.postgres.database import Connection

account_option = click.option(
    "--account", required=True, metavar="ACCOUNT", help="The account. Give its UUID or its name."
)


def find_account(connection: Connection, text: str) -> UUID:
    """The account that `text` means. A UUID is taken as it is: accounts come from outside. Raises `CommandError`."""
    given = _uuid(text)
    if given is not None:
        return given
    found = names.find_accounts(connection, text)
    if not found:
        raise CommandError(f"no account is named {text!r}: expected its UUID, or the name of an account known here")
    if len(found) > 1:
        ids = ", ".join(map(str, found))
        raise CommandError(f"{len(found)} accounts are named {text!r}: expected the UUID of one: {ids}")
    return found[0]


def find_known_account(connection: Connection, text: str) -> UUID:
    """The same, of an account that has to be known here: a slip in a UUID is not to look like one that did nothing."""
    found = find_account(connection, text)
    if not names.is_account_known(connection, found):
        raise CommandError(f"there is no account {found}: expected the UUID or the name of an account known here")
    return found


def find_catalog(connection: Connection, text: str, *, of: UUID | None) -> UUID:
    """The catalogue whose id or name is `text`, among those of account `of` or of all. Raises `CommandError`."""
    found = names.find_catalogs(connection, id_=_uuid(text), name=text, account=of)
    whose = "" if of is None else f" of account {of}"
    if not found:
        raise CommandError(f"no catalogue{whose} is {text!r}: expected the id or the name of an imported catalogue")
    if len(found) > 1:
        ids = ", ".join(f"{one['id']} of account {one['account']}" for one in found)
        expected = "the id of one" if of is not None else "--account, to say whose, or the id of one"
        raise CommandError(f"{len(found)} catalogues{whose} are named {text!r}: expected {expected}: {ids}")
    return UUID(str(found[0]["id"]))


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
