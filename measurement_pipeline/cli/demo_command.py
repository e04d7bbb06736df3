"""`demo`: run the whole pipeline once, with its own server, vendor doubles and Dagster.

It does not use the environment's deployment, and leaves no process running. `demo_report` prints the result.
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
from measurement_pipeline.cli.environment import CliEnvironment, open_environment, prepare_dagster
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
    """The demo took longer than its timeout."""


@dataclass(frozen=True, slots=True)
class DemoRequests:
    """The two requests for histories: of the account with a card, and of the one without."""

    paid: UUID
    unpaid: UUID


@click.command("demo")
@click.option(
    "--timeout", type=click.FloatRange(min=1), default=300.0, show_default=True, help="Give up after this many seconds."
)
@click.pass_obj
def command(state: Path | None, *, timeout: float) -> None:
    """Capture and backfill a sample catalogue with a real Dagster, a real PostgreSQL and vendor doubles."""
    variables = _demo_variables(os.environ)
    with ExitStack() as stack:
        stack.enter_context(supervisor.interruptible())
        sandbox = stack.enter_context(sandbox_command.run_doubles("demo", state))
        environment = stack.enter_context(
            open_environment(variables, state=state, doubles=sandbox.environment, name="demo")
        )
        stack.enter_context(acquire_instance_lock(environment.home, "demo"))
        output.print_banner(environment)
        migrate.upgrade(environment.database_url, kind=environment.kind)
        dagster = prepare_dagster(environment)
        connection = stack.enter_context(environment.connect())
        hits_before = _ledger_hits(connection, environment)
        sandbox_command.bind_to_database(sandbox, connection)
        catalogs = sample_accounts.seed_accounts(connection, sandbox)
        current = _submit(connection, sample_accounts.WITH_CARD, catalogs, source="current")
        services = [dagster.code_server(), dagster.daemon()]
        with supervisor.supervised(services) as running, progress.progress_display() as display:
            deadline = time.monotonic() + timeout
            try:
                # Today's counts first, because they rank the recordings for the purchase of histories.
                _wait_for_capture(connection, current, display, on_tick=running.check, deadline=deadline)
                requests = DemoRequests(
                    *(_submit(connection, account, catalogs, source="historical") for account in catalogs)
                )
                waits = _wait_for_backfill(
                    connection, environment, requests, display, on_tick=running.check, deadline=deadline
                )
            except _OutOfTimeError as error:
                last = "\n".join(_tail(service.log) for service in services)
                raise CommandError(f"{error} (logs: {dagster.logs})\n{last}") from error
            _wait_for_runs(environment, deadline=time.monotonic() + _LAST_RUN_SECONDS)
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
            raise CommandError("the request of the account with a card was not accepted: see its state above")


def _submit(connection: Connection, account: UUID, catalogs: Mapping[UUID, UUID], *, source: str) -> UUID:
    """Request measurements of an account's sample catalogue."""
    scope = {"catalog_id": str(catalogs[account])}
    return measurement_jobs.submit(connection, account=account, source=source, scope=scope)


def _demo_variables(variables: Mapping[str, str]) -> dict[str, str]:
    settings = {field.alias for field in Settings.model_fields.values()}
    ignored = sorted(name for name in variables if name in settings or name.startswith("DAGSTER_"))
    if ignored:
        click.echo(f"ignored, because the demo uses its own settings: {', '.join(ignored)}", err=True)
    return {name: value for name, value in variables.items() if name not in ignored} | _OVERRIDES


def _ledger_hits(connection: Connection, environment: CliEnvironment) -> int:
    return songstats_ledger.budget(connection, hits_allowed=environment.settings.hits_allowed).hits


def _wait_for_capture(
    connection: Connection,
    current: UUID,
    display: progress.ProgressDisplay,
    *,
    on_tick: Callable[[], None],
    deadline: float,
) -> None:
    """Show progress until the capture has ended. Raises `_OutOfTimeError` after the deadline."""
    while True:
        job = progress.load_request(connection, current)
        display.show(0, 0, progress.describe_wait(job) if job["snapshot"] or job["error"] else "Dagster is starting")
        if job["state"] not in progress.UNSETTLED:
            return
        if time.monotonic() > deadline:
            raise _OutOfTimeError(f"not captured in time: {progress.describe_wait(job)}")
        on_tick()
        time.sleep(_POLL_SECONDS)


def _wait_for_backfill(
    connection: Connection,
    environment: CliEnvironment,
    requests: DemoRequests,
    display: progress.ProgressDisplay,
    *,
    on_tick: Callable[[], None],
    deadline: float,
) -> str | None:
    """Show progress until both requests are settled and the queue is drained, and return what still waits, if anything.

    Raises `_OutOfTimeError` after the deadline.
    """
    while True:
        paid, unpaid = (
            progress.load_request(connection, requests.paid),
            progress.load_request(connection, requests.unpaid),
        )
        display.show(paid["settled"], paid["asked"] or 0, _describe_backfill(paid))
        answered = unpaid["state"] != State.QUEUED
        if answered and paid["state"] not in progress.UNSETTLED:
            return None
        waits = waiting_reason(connection, environment.settings) if paid["state"] == State.ACCEPTED else None
        if answered and waits:
            return waits
        if time.monotonic() > deadline:
            raise _OutOfTimeError(
                f"not drained in time: {paid['settled']} of {paid['asked'] or '?'} recordings are settled"
            )
        on_tick()
        time.sleep(_POLL_SECONDS)


def _wait_for_runs(environment: CliEnvironment, *, deadline: float) -> None:
    """Wait for runs that are about to end. If they were stopped now, Dagster would record them as cancelled."""
    # Imported late: it takes a second, in which the runs end.
    from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

    ended = {DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED}
    unfinished = RunsFilter(statuses=[status for status in DagsterRunStatus if status not in ended])
    os.environ.update(
        environment.variables
    )  # dagster.yaml reads its database from a variable, and no other code runs in this process
    with DagsterInstance.from_config(str(environment.dagster_home)) as instance:
        while instance.get_runs_count(unfinished) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)


def _tail(log: Path | None) -> str:
    if log is None or not log.exists():
        return ""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:])


def _describe_backfill(job: Mapping[str, object]) -> str:
    if job["state"] == State.QUEUED:
        return str(job["error"] or "waiting for intake")
    return "" if job["settled"] else "Dagster is planning"


def waiting_reason(connection: Connection, settings: Settings) -> str | None:
    """Why no recording can be bought for a while; None if one can. A pause by the demo's doubles is short."""
    state = health.read_backfill_state(
        connection,
        hits_allowed=settings.hits_allowed,
        operators_account=settings.backfill_account_id,
    )
    if state.backlog.in_progress:
        return None
    return describe_all([blocker for blocker in backfill_blockers(state) if blocker.kind in _ENDS_THE_DEMO][:1]) or None
