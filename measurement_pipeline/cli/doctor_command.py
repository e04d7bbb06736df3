"""`doctor`: check every part of the deployment and print one line each, with the next step. Read-only; spends no hit.

The checks are in the modules `doctor_*`; this module selects them and prints their results.
Without DATABASE_URL, an existing embedded server is started for the checks; none is created.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
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
from measurement_pipeline.cli.checks import (
    CheckGroup,
    CheckResult,
    CheckStatus,
    fail,
    ok,
    report_causes_once,
    run_checks,
)
from measurement_pipeline.cli.environment import deployment_home, open_environment, should_use_doubles
from measurement_pipeline.local.embedded_postgres import EmbeddedServerError
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.settings import Kind, Settings, SettingsError

# Longer than the time limits of a database connection (10 s) and of a vendor (8 s).
_LONGEST_SECONDS = 20.0


@click.command("doctor")
@sandbox_command.port_option
@output.json_option
@click.pass_context
def command(ctx: click.Context, *, sandbox_port: int | None, as_json: bool) -> None:
    """Check every part of the deployment and print one line each, with the next step. Exit status 1 if a line says FAIL."""
    results = report_causes_once(list(_run_all(ctx.obj, sandbox_command.find_doubles(sandbox_port, ctx.obj))))
    if not as_json:
        for line in results:
            output.print_line(f"{line.status:<5} {line.name:<18} {' '.join(line.message.split())}")
    failed = sum(line.status is CheckStatus.FAIL for line in results)
    warned = sum(line.status is CheckStatus.WARN for line in results)
    if as_json:
        output.print_json({"healthy": not failed, "lines": [_json_line(result) for result in results]})
    else:
        output.print_line("")
        output.print_line(f"{failed} FAIL, {warned} warn" if failed or warned else "all checks passed")
    ctx.exit(1 if failed else 0)


def _run_all(state: Path | None, doubles: Mapping[str, str]) -> Iterator[CheckResult]:
    try:
        settings = Settings.read(os.environ)
        if should_use_doubles(settings):
            settings = Settings.read({**os.environ, **doubles})
        kind = settings.kind
    except SettingsError as error:
        yield fail("settings", str(error))
        return
    with ExitStack() as stack:
        try:
            environment = stack.enter_context(open_environment(os.environ, state=state, doubles=doubles, create=False))
        except SettingsError as error:
            yield fail("settings", str(error))
            return
        except (EmbeddedServerError, OSError) as error:
            reason = str(error)
            groups: dict[str, CheckGroup] = {"database": lambda: _report_missing_server(reason)}
        else:
            groups = {
                "database": lambda: doctor_database.check_database(environment),
                "Dagster's storage": lambda: doctor_dagster.check_dagster(environment),
            }
        yield ok("settings", _describe_kind(kind))
        try:
            sandbox_command.require_running_doubles(settings, kind)
        except CommandError as error:
            # `dev` runs the doubles and the daemon.
            no_doubles = fail("doubles", error.message, cause="daemon")
            groups["doubles"] = lambda: iter([no_doubles])
        else:
            groups |= {
                "Songstats key": lambda: doctor_vendors.check_songstats_key(settings),
                "Stripe key": lambda: doctor_vendors.check_stripe_key(settings, kind),
                "Apify token": lambda: doctor_vendors.check_apify_token(settings),
                "Spotify client": lambda: doctor_vendors.check_spotify_client(settings),
            }
        groups[doctor_api.NAME] = lambda: doctor_api.check_api(settings, deployment_home(kind, state))
        yield from run_checks(groups, seconds=_LONGEST_SECONDS)
        yield doctor_vendors.check_webhook(settings)


def _json_line(result: CheckResult) -> dict[str, str]:
    # The keys are a contract: scripts read them.
    return {"name": result.name, "verdict": result.status, "words": result.message, "cause": result.cause}


def _describe_kind(kind: Kind) -> str:
    return {"sandbox": "sandbox: vendor doubles", "live": "LIVE: real vendors, real money"}[kind]


def _report_missing_server(reason: str) -> Iterator[CheckResult]:
    yield fail("database", f"no embedded server: {reason}")
    yield fail("Dagster's storage", "not checked: it is on the same server", cause="database")
