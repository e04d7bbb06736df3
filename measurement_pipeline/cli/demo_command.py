"""`demo`: the whole pipeline once, on a server, doubles and a Dagster of its own.

Nothing of the environment's deployment is touched, and nothing of its own is left running. What is printed at the
end is `demo_report`.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import click

from measurement_pipeline.cli import demo_report, output, progress, sample_accounts, sandbox_command
from measurement_pipeline.cli.environment import CliEnvironment, Doubles, open_environment, prepare_dagster
from measurement_pipeline.domain.blockers import BlockerKind, backfill_blockers, describe_all
from measurement_pipeline.domain.measurement_job import State
from measurement_pipeline.local import supervisor
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.local.instance_lock import acquire_instance_lock
from measurement_pipeline.postgres import health, measurement_jobs, migrate, songstats_ledger
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.settings import Settings

_OVERRIDES = {"SONGSTATS_REQUESTS_PER_SECOND": "0"}
_POLL_SECONDS = 0.5
_TAIL_LINES = 40
_ENDS_THE_DEMO = frozenset({BlockerKind.BREAKER, BlockerKind.BUDGET, BlockerKind.RETRIES})
_LAST_RUN_SECONDS = 15.0


class _OutOfTimeError(RuntimeError):
    """The demo took longer than it was given."""


@dataclass(frozen=True, slots=True)
class DemoRequests:
    """The requests for histories of a demo: one of an account with a card, one of an account without."""

    paid: UUID
    unpaid: UUID


@click.command("demo")
@click.option(
    "--timeout", type=click.FloatRange(min=1), default=300.0, show_default=True, help="Give up after this many seconds."
)
@click.pass_obj
def command(state: Path | None, *, timeout: float) -> None:
    """Capture and backfill a sample catalogue through a real Dagster on a real PostgreSQL, with doubles for vendors."""
    variables = _demo_variables(os.environ)
    with ExitStack() as stack:
        stack.enter_context(supervisor.interruptible())
        sandbox = stack.enter_context(sandbox_command.run_doubles("demo", state))
        doubles = Doubles.from_keys(sandbox.songstats_url, sandbox)
        environment = stack.enter_context(open_environment(variables, state=state, doubles=doubles, name="demo"))
        stack.enter_context(acquire_instance_lock(environment.home, "demo"))
        output.print_banner(environment)
        migrate.upgrade(environment.database_url, kind=environment.kind)
        dagster = prepare_dagster(environment)
        connection = stack.enter_context(environment.connect())
        hits_before = _ledger_hits(connection, environment)
        sandbox_command.bind_to_database(sandbox, connection)
        catalogs = sample_accounts.seed_accounts(connection, sandbox)
        current = _ask(connection, sample_accounts.WITH_CARD, catalogs, source="current")
        its_services = [dagster.code_server(), dagster.daemon()]
        with supervisor.supervised(its_services) as running, progress.progress_display() as meter:
            deadline = time.monotonic() + timeout
            try:
                # First what is displayed today: it ranks what the histories are then bought by.
                _until_captured(connection, current, meter, tend=running.check, deadline=deadline)
                requests = DemoRequests(
                    *(_ask(connection, account, catalogs, source="historical") for account in catalogs)
                )
                waits = _until_drained(connection, environment, requests, meter, tend=running.check, deadline=deadline)
            except _OutOfTimeError as error:
                last = "\n".join(_tail(service.log) for service in its_services)
                raise CommandError(f"{error} (logs: {dagster.logs})\n{last}") from error
            _let_runs_end(environment, deadline=time.monotonic() + _LAST_RUN_SECONDS)
        demo_report.print_demo_report(
            connection,
            environment,
            current=progress.load_request(connection, current),
            paid=progress.load_request(connection, requests.paid),
            unpaid=progress.load_request(connection, requests.unpaid),
            vendor_hits=sandbox.hits(),
            ledger_hits=_ledger_hits(connection, environment) - hits_before,
            waits=waits,
        )
        if progress.load_request(connection, requests.paid)["state"] not in {State.DONE, State.ACCEPTED}:
            raise CommandError("the request of the account with a card was not accepted: see above")


def _ask(connection: Connection, account: UUID, catalogs: Mapping[UUID, UUID], *, source: str) -> UUID:
    """A request of an account for its sample catalogue."""
    scope = {"catalog_id": str(catalogs[account])}
    return measurement_jobs.submit(connection, account=account, source=source, scope=scope)


def _demo_variables(variables: Mapping[str, str]) -> dict[str, str]:
    settings = {field.alias for field in Settings.model_fields.values()}
    ignored = sorted(name for name in variables if name in settings or name.startswith("DAGSTER_"))
    if ignored:
        click.echo(f"ignored, since the demo brings its own: {', '.join(ignored)}", err=True)
    return {name: value for name, value in variables.items() if name not in ignored} | _OVERRIDES


def _ledger_hits(connection: Connection, environment: CliEnvironment) -> int:
    return songstats_ledger.budget(connection, hits_allowed=environment.settings.hits_allowed).hits


def _until_captured(
    connection: Connection, current: UUID, meter: progress.ProgressDisplay, *, tend: Callable[[], None], deadline: float
) -> None:
    """Show progress until the capture is over, whichever way. Raises `_OutOfTimeError` where time is up first."""
    while True:
        job = progress.load_request(connection, current)
        meter.show(0, 0, progress.describe_wait(job) if job["snapshot"] or job["error"] else "Dagster is starting")
        if job["state"] not in progress.UNSETTLED:
            return
        if time.monotonic() > deadline:
            raise _OutOfTimeError(f"not captured in time: {progress.describe_wait(job)}")
        tend()
        time.sleep(_POLL_SECONDS)


def _until_drained(
    connection: Connection,
    environment: CliEnvironment,
    requests: DemoRequests,
    meter: progress.ProgressDisplay,
    *,
    tend: Callable[[], None],
    deadline: float,
) -> str | None:
    """Show progress until both requests are answered and the queue is drained; what is left waiting, if anything is.

    Raises `_OutOfTimeError` where time is up first.
    """
    while True:
        paid, unpaid = (
            progress.load_request(connection, requests.paid),
            progress.load_request(connection, requests.unpaid),
        )
        meter.show(paid["settled"], paid["asked"] or 0, _note(paid))
        answered = unpaid["state"] != State.QUEUED
        if answered and paid["state"] not in progress.UNSETTLED:
            return None
        waits = _why_it_waits(connection, environment) if paid["state"] == State.ACCEPTED else None
        if answered and waits:
            return waits
        if time.monotonic() > deadline:
            raise _OutOfTimeError(
                f"not drained in time: {paid['settled']} of {paid['asked'] or '?'} recordings are settled"
            )
        tend()
        time.sleep(_POLL_SECONDS)


def _let_runs_end(environment: CliEnvironment, *, deadline: float) -> None:
    """Wait for the runs that are ending: stopped in their last second, they would be remembered as cancelled."""
    # A second to import, spent while they end.
    from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

    ended = {DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED}
    unfinished = RunsFilter(statuses=[status for status in DagsterRunStatus if status not in ended])
    os.environ.update(
        environment.variables
    )  # dagster.yaml names its database by a variable; this process is the demo's alone
    with DagsterInstance.from_config(str(environment.dagster_home)) as instance:
        while instance.get_runs_count(unfinished) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)


def _tail(log: Path | None) -> str:
    if log is None or not log.exists():
        return ""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:])


def _note(job: Mapping[str, object]) -> str:
    if job["state"] == State.QUEUED:
        return str(job["error"] or "waiting for intake")
    return "" if job["settled"] else "Dagster is planning"


def _why_it_waits(connection: Connection, environment: CliEnvironment) -> str | None:
    """Why nothing more happens for a while; None if something may. A pause of the demo's double is short."""
    state = health.read_backfill_state(
        connection,
        hits_allowed=environment.settings.hits_allowed,
        operators_account=environment.settings.backfill_account_id,
    )
    if state.backlog.in_progress:
        return None
    return describe_all([one for one in backfill_blockers(state) if one.kind in _ENDS_THE_DEMO][:1]) or None
