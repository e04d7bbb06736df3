"""`db`: migrate the measurement database, and show its schema, stamp and address."""

import os
from pathlib import Path

import click

from measurement_pipeline.cli import output
from measurement_pipeline.cli.environment import open_environment
from measurement_pipeline.cli.groups import Group
from measurement_pipeline.health.messages import describe_lock_holders
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.postgres import address, conninfo, migrate, sessions
from measurement_pipeline.postgres.database import LockTimeout


@click.group("db", cls=Group)
def command() -> None:
    """Manage the measurement database: migrate it, and show its state and address."""


@command.command("upgrade")
@output.json_option
@click.pass_obj
def upgrade(state: Path | None, *, as_json: bool) -> None:
    """Migrate the database to this version and grant its roles. A new database is stamped sandbox or live permanently.

    "roles" lists grants that this login may not make; it is null if all are made.
    """
    with open_environment(os.environ, state=state) as environment:
        before = migrate.current_version(environment.database_url)
        try:
            missing_grants = migrate.upgrade(environment.database_url, kind=environment.kind)
        except LockTimeout as error:
            with environment.connect() as connection:
                blockers = describe_lock_holders(sessions.list_likely_blockers(connection))
            raise CommandError(
                f"the migration waited 30 s for a lock and changed nothing. {blockers} Then run the command again"
            ) from error
        after = migrate.expected_version()
        if as_json:
            output.print_json({"kind": environment.kind, "before": before, "schema": after, "roles": missing_grants})
        elif before == after:
            output.print_line(f"{environment.database_location}: already at schema {after} ({environment.kind})")
        else:
            output.print_line(
                f"{environment.database_location}: from schema {before or 'none'} to {after} ({environment.kind})"
            )
        if missing_grants and not as_json:
            output.print_line(f"roles: {missing_grants}")


@command.command("url")
@click.option("--dagster", is_flag=True, help="Print the address of Dagster's own storage instead.")
@click.pass_obj
def url(state: Path | None, *, dagster: bool) -> None:
    """Print the database's address, password included, as psql and pg_dump take it.

    An embedded server runs only while `dev` or a command runs.
    """
    with open_environment(os.environ, state=state) as environment:
        if dagster:
            address.create_if_absent(environment.dagster_url)
        # Not as it was set: settings may name SQLAlchemy's driver, which PostgreSQL's own tools reject.
        output.print_line(
            conninfo.uri(conninfo.parse(environment.dagster_url if dagster else environment.database_url))
        )


@command.command("status")
@output.json_option
@click.pass_context
def status(ctx: click.Context, *, as_json: bool) -> None:
    """Show the schema version and the kind of the database. Exit status 1 unless it is ready for use."""
    with open_environment(os.environ, state=ctx.obj) as environment:
        current, stamp, expected = (
            migrate.current_version(environment.database_url),
            migrate.get_stamp(environment.database_url),
            migrate.expected_version(),
        )
        ready = current == expected and stamp == environment.kind
        if as_json:
            output.print_json(
                {
                    "ready": ready,
                    "schema": current,
                    "expected_schema": expected,
                    "stamp": stamp,
                    "kind": environment.kind,
                    "embedded": environment.is_embedded,
                    "where": environment.database_location,
                }
            )
        else:
            schema_note = (
                None if current == expected else f"this version needs {expected}: run `measurement-pipeline db upgrade`"
            )
            stamp_note = (
                None
                if stamp in {None, environment.kind}
                else f"but the settings name {environment.kind} vendors: set DATABASE_URL to a database of that kind"
            )
            output.console().print(
                output.build_facts(
                    {
                        "database": environment.database_location,
                        "schema": f"{current or 'none'}{f' ({schema_note})' if schema_note else ''}",
                        "stamp": f"{stamp or 'none'}{f' ({stamp_note})' if stamp_note else ''}",
                        "ready": ready,
                    }
                )
            )
    ctx.exit(0 if ready else 1)
