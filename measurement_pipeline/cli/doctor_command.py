"""`doctor`: checks every part of the deployment, one line each, with what to do. It only reads, and spends no hit.

The checks are in the modules `doctor_*`. This module chooses them and prints their lines.
Where DATABASE_URL is not set, an embedded server that exists is started for the checks; none is created.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import click

from measurement_pipeline.cli import (
    doctor_api,
    doctor_dagster,
    doctor_database,
    doctor_vendors,
    output,
    sandbox_command,
)
from measurement_pipeline.cli.checks import CheckResult, CheckStatus, Questions, ask, fail, ok, report_causes_once
from measurement_pipeline.cli.environment import Doubles, home_of, opened, wants_doubles
from measurement_pipeline.local.embedded_postgres import EmbeddedServerError
from measurement_pipeline.local.errors import RefusedError
from measurement_pipeline.settings import Kind, Settings, SettingsError

# A database that is away is known after 10 s, a vendor after 8.
_LONGEST_SECONDS = 20.0


@click.command("doctor")
@sandbox_command.port_option
@output.json_option
@click.pass_context
def command(ctx: click.Context, *, sandbox_port: int | None, as_json: bool) -> None:
    """Check every part of the deployment and print a line for each, with what to do. Exit status 1 where one FAILs."""
    said = report_causes_once(list(_diagnosis(ctx.obj, sandbox_command.at_port(sandbox_port, ctx.obj))))
    if not as_json:
        for line in said:
            output.say(f"{line.verdict:<5} {line.name:<18} {' '.join(line.words.split())}")
    failed = sum(line.verdict is CheckStatus.FAIL for line in said)
    warned = sum(line.verdict is CheckStatus.WARN for line in said)
    if as_json:
        output.as_json({"healthy": not failed, "lines": [asdict(line) for line in said]})
    else:
        output.say("")
        output.say(f"{failed} FAIL, {warned} warn" if failed or warned else "all is well")
    ctx.exit(1 if failed else 0)


def _diagnosis(state: Path | None, doubles: Doubles) -> Iterator[CheckResult]:
    try:
        settings = Settings.read(os.environ)
        if wants_doubles(settings):
            settings = Settings.read({**os.environ, **doubles.environment()})
        kind = settings.kind
    except SettingsError as error:
        yield fail("settings", str(error))
        return
    with ExitStack() as stack:
        try:
            target = stack.enter_context(opened(os.environ, state=state, doubles=doubles, make=False))
        except SettingsError as error:
            yield fail("settings", str(error))
            return
        except (EmbeddedServerError, OSError) as error:
            why = str(error)
            groups: dict[str, Questions] = {"database": lambda: _no_server(why)}
        else:
            groups = {
                "database": lambda: doctor_database.lines(target),
                "Dagster's storage": lambda: doctor_dagster.lines(target),
            }
        yield ok("settings", _in_words(kind))
        try:
            sandbox_command.require_doubles(settings, kind)
        except RefusedError as error:
            # `dev` runs the doubles and the daemon.
            no_doubles = fail("doubles", error.message, cause="daemon")
            groups["doubles"] = lambda: iter([no_doubles])
        else:
            groups |= {
                "Songstats key": lambda: doctor_vendors.songstats(settings),
                "Stripe key": lambda: doctor_vendors.stripe(settings, kind),
                "Apify token": lambda: doctor_vendors.apify(settings),
                "Spotify client": lambda: doctor_vendors.spotify(settings),
            }
        groups[doctor_api.NAME] = lambda: doctor_api.lines(settings, home_of(kind, state))
        yield from ask(groups, seconds=_LONGEST_SECONDS)
        yield doctor_vendors.webhook(settings)


def _in_words(kind: Kind) -> str:
    return {"sandbox": "sandbox: the vendors are doubles", "live": "LIVE: real vendors, real money"}[kind]


def _no_server(why: str) -> Iterator[CheckResult]:
    yield fail("database", f"no embedded server: {why}")
    yield fail("Dagster's storage", "not checked: it is on the same server", cause="database")
