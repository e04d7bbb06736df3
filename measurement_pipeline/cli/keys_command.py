"""`keys`: create, list and revoke keys of the HTTP API. A key is shown only once, when it is created."""

import getpass
from datetime import UTC, datetime
from pathlib import Path

import click

from measurement_pipeline import services
from measurement_pipeline.api import keys
from measurement_pipeline.cli import lookup, output
from measurement_pipeline.cli.environment import open_database
from measurement_pipeline.cli.groups import Group
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.postgres import api_keys, operator_acts


def _not_blank(_ctx: click.Context, _param: click.Parameter, name: str) -> str:
    if not name.strip():
        raise click.BadParameter("the name is blank: give one that says what the key is for")
    return name


@click.group("keys", cls=Group)
def command() -> None:
    """Create, list and revoke API keys."""


@command.command("create")
@lookup.account_option
@click.option(
    "--name", required=True, callback=_not_blank, metavar="NAME", help="What the key is for. `keys list` shows it."
)
@click.option(
    "--expires",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    help="Refuse the key from this day on (UTC), YYYY-MM-DD. Default: it never expires.",
)
@output.json_option
@click.pass_obj
def create(state: Path | None, *, account: str, name: str, expires: datetime | None, as_json: bool) -> None:
    """Create a key for an account and print it. The key is not stored, so copy it now."""
    key, prefix = keys.generate_key()
    with open_database(state) as (environment, connection), connection.transaction():
        owner = lookup.find_account(connection, account)
        secret = services.key_secret(environment.settings, environment.kind)
        until = None if expires is None else expires.replace(tzinfo=UTC)
        added = api_keys.add(
            connection,
            account=owner,
            name=name,
            prefix=prefix,
            digest=keys.hash_key(key, secret=secret),
            expires_at=until,
        )
        if added is None:
            raise CommandError(f"a key with the prefix {prefix} already exists: run the command again")
        stored = api_keys.find(connection, prefix)
        if expires is not None and (stored is None or stored.refused_because is not None):
            raise CommandError(f"--expires {expires:%Y-%m-%d} is in the past (UTC): give a day in the future")
        detail = {"prefix": prefix, "account": str(owner), "name": name}
        operator_acts.record(connection, actor=getpass.getuser(), act="key created", detail=detail)
    if as_json:
        output.print_json({"key": key, "prefix": prefix, "account": owner, "name": name, "expires_at": until})
        return
    click.echo("this key is shown only once; send it as the header x-api-key", err=True)
    output.print_line(key)


@command.command("list")
@click.option("--account", metavar="ACCOUNT", help="List only those of this account. Give its UUID or its name.")
@output.json_option
@click.pass_obj
def list_(state: Path | None, *, account: str | None, as_json: bool) -> None:
    """List every key by its prefix: its account, when it was last used, and whether it is valid."""
    with open_database(state) as (_, connection):
        owner = lookup.find_optional_account(connection, account)
        found = api_keys.list_all(connection, account=owner)
    columns = {
        "key": "prefix",
        "account": "account",
        "name": "name",
        "created": "created_at",
        "expires": "expires_at",
        "last used": "last_used_at",
        "revoked": "revoked_at",
    }
    empty = "there is no key yet: `measurement-pipeline keys create` creates one"
    output.print_rows(found, columns, empty=empty, as_json=as_json)


@command.command("revoke")
@click.argument("prefix")
@click.pass_obj
def revoke(state: Path | None, *, prefix: str) -> None:
    """Revoke the key that begins with PREFIX, as `keys list` shows it."""
    with open_database(state) as (_, connection), connection.transaction():
        if not api_keys.revoke(connection, prefix):
            raise CommandError(f"no valid key has the prefix {prefix!r}: see `measurement-pipeline keys list`")
        operator_acts.record(connection, actor=getpass.getuser(), act="key revoked", detail={"prefix": prefix})
    output.print_line(f"{prefix} is revoked")
