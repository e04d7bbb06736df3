"""The names that clients, operators and analysts rely on still exist. `contract.json` lists them.

The contract may grow: a new name passes, and is pinned by adding it to `contract.json`. A removed or renamed one fails.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from measurement_pipeline.api.app import create_app
from measurement_pipeline.api.config import ApiConfig
from measurement_pipeline.api.errors import ErrorCode
from measurement_pipeline.cli import main
from measurement_pipeline.definitions import defs
from measurement_pipeline.domain.outcome import Outcome
from measurement_pipeline.domain.payment import Decision, PaymentVerdict
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.settings import Settings

CONTRACT: Mapping[str, list[str]] = json.loads(Path(__file__).with_name("contract.json").read_text(encoding="utf-8"))


def columns(connection: Connection) -> Iterator[str]:
    """`table.column type` of every base table."""
    rows = connection.execute(
        """
        select c.table_name, c.column_name, c.data_type
        from information_schema.columns as c
        join information_schema.tables as t using (table_schema, table_name)
        where c.table_schema = 'public' and t.table_type = 'BASE TABLE' and c.table_name <> 'alembic_version'
        """
    )
    for row in rows:
        yield f"{row['table_name']}.{row['column_name']} {row['data_type']}"


def column_values(connection: Connection) -> Iterator[str]:
    """`table.column=value` for each value that a check constraint lists: row states, outcomes, kinds."""
    rows = connection.execute(
        r"""
        select c.conrelid::regclass::text as table_name, a.attname as column_name, value[1] as value
        from pg_constraint as c
        join pg_attribute as a on a.attrelid = c.conrelid and c.conkey = array[a.attnum]
        cross join regexp_matches(pg_get_constraintdef(c.oid), '''([^'']*)''::text', 'g') as value
        where
            c.contype = 'c' and c.connamespace = 'public'::regnamespace
            and pg_get_constraintdef(c.oid) like '%= ANY (ARRAY[%'
        """
    )
    for row in rows:
        yield f"{row['table_name']}.{row['column_name']}={row['value']}"


def cli(command: click.Command = main, path: str = "measurement-pipeline") -> Iterator[str]:
    """`command`, `command --flag` and `command --flag=choice` of every command."""
    yield path
    for option in command.params:
        if isinstance(option, click.Option):
            for flag in (*option.opts, *option.secondary_opts):
                yield f"{path} {flag}"
                if isinstance(option.type, click.Choice):
                    yield from (f"{path} {flag}={choice}" for choice in option.type.choices)
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            subcommand = command.get_command(ctx, name)
            assert subcommand is not None
            yield from cli(subcommand, f"{path} {name}")


def http(openapi: Mapping[str, Any]) -> Iterator[str]:
    """`METHOD /path`, and with it each parameter, each field of the request body and each field of every response."""
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            route = f"{method.upper()} {path}"
            yield route
            for parameter in operation.get("parameters", []):
                yield f"{route} {parameter['in']} {parameter['name']}"
            bodies = [("request", operation.get("requestBody", {})), *operation["responses"].items()]
            for part, body in bodies:
                if part != "request":
                    yield f"{route} {part}"
                # All errors have one form, which is listed once.
                owner = "error" if part.startswith(("4", "5")) else f"{route} {part}"
                for media_type, content in body.get("content", {}).items():
                    for field in fields(content.get("schema", {}), openapi, ()):
                        yield f"{owner} {media_type} {field}"


def fields(schema: Mapping[str, Any], openapi: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """The dotted paths of all fields that `schema` may have, whichever of its forms a body takes."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        schema = openapi["components"]["schemas"][name]
    for form in (form for key in ("oneOf", "anyOf", "allOf") for form in schema.get(key, [])):
        yield from fields(form, openapi, path)
    yield from fields(schema["items"], openapi, path) if "items" in schema else ()
    for name, property_schema in schema.get("properties", {}).items():
        yield ".".join((*path, name))
        yield from fields(property_schema, openapi, (*path, name))


def openapi() -> dict[str, Any]:
    def decide(_account: object) -> Decision:
        return Decision(PaymentVerdict.UNKNOWN)

    return create_app(ApiConfig("postgresql://nowhere/nothing", decide, "a secret of 32 characters, or so")).openapi()


def definitions() -> Mapping[str, set[str]]:
    repository = defs.get_repository_def()
    return {
        "asset_keys": {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()},
        "jobs": {name for name in repository.job_names if not name.startswith("__")},
        "sensors": {sensor.name for sensor in repository.sensor_defs},
        "schedules": {schedule.name for schedule in repository.schedule_defs},
    }


CURRENT: Mapping[str, Callable[[Connection], set[str]]] = {
    "tables and columns": lambda connection: set(columns(connection)),
    "column values": lambda connection: set(column_values(connection)),
    "outcomes": lambda _: {outcome.value for outcome in Outcome},
    "asset keys": lambda _: definitions()["asset_keys"],
    "jobs": lambda _: definitions()["jobs"],
    "sensors": lambda _: definitions()["sensors"],
    "schedules": lambda _: definitions()["schedules"],
    "command line": lambda _: set(cli()),
    "HTTP routes and fields": lambda _: set(http(openapi())),
    "error codes": lambda _: {code.value for code in ErrorCode},
    "environment variables": lambda _: {str(field.alias) for field in Settings.model_fields.values()},
}


def test_every_name_of_the_contract_still_exists(connection: Connection):
    missing = {part: sorted(set(CONTRACT[part]) - current(connection)) for part, current in CURRENT.items()}
    lost = {part: names for part, names in missing.items() if names}
    assert not lost, f"names that outside programs rely on no longer exist: {lost}"


def test_the_contract_has_no_other_part_and_none_is_empty():
    assert set(CONTRACT) == set(CURRENT)
    assert all(CONTRACT.values())
