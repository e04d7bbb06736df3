"""Watching a request: a progress bar where a person looks, plain lines elsewhere. Its receipt in the end is `receipt`."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from uuid import UUID

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from measurement_pipeline.cli import output
from measurement_pipeline.domain.measurement_job import Source, State
from measurement_pipeline.domain.text import counted
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.postgres import measurement_jobs, songstats_ledger
from measurement_pipeline.postgres.database import Connection

UNSETTLED = {State.QUEUED, State.ACCEPTED}

_POLL_SECONDS = 0.5
# The budget counts 30 days of hits: not at every look.
_HELD_SECONDS = 5.0
# The sensor of intake looks every 5 s, and a run of it takes as long again to start.
_INTAKE_SECONDS = 20.0
# Over which the speed is averaged that the time left is computed from.
_SPEED_SECONDS = 120.0
# Between two plain lines that say the same.
_REPEAT_SECONDS = 30.0


class ProgressDisplay(Protocol):
    """Where progress is shown."""

    def show(self, settled: int, asked: int, note: str) -> None:
        """Say that so many of those asked for are settled."""
        ...


class _Bar:
    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None, note="")

    def show(self, settled: int, asked: int, note: str) -> None:
        self._bar.update(self._task, completed=settled, total=asked or None, note=note)


class _Lines:
    """For logs: a line when a tenth more is settled, or what is said changes, or nothing was said for a while."""

    def __init__(self) -> None:
        self._said: tuple[int, str] | None = None
        self._said_at = 0.0

    def show(self, settled: int, asked: int, note: str) -> None:
        tenth = settled * 10 // asked if asked else 0
        if (tenth, note) == self._said and time.monotonic() < self._said_at + _REPEAT_SECONDS:
            return
        self._said, self._said_at = (tenth, note), time.monotonic()
        click.echo(f"{settled:,} of {asked:,} settled{f' ({note})' if note else ''}" if asked else note, err=True)


@contextmanager
def progress_display() -> Iterator[ProgressDisplay]:
    """A bar on a terminal, lines on stderr elsewhere, so that stdout stays the result's."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("settled"),
        TimeElapsedColumn(),
        TextColumn("elapsed,"),
        TimeRemainingColumn(),
        TextColumn("left"),
        TextColumn("{task.fields[note]}"),
    )
    # Recordings settle in bursts of a run: a short window would make the time left jump.
    with Progress(
        *columns, console=output.console(stderr=True), transient=True, speed_estimate_period=_SPEED_SECONDS
    ) as bar:
        yield _Bar(bar)


def wait_for_request(
    connection: Connection,
    job: UUID,
    *,
    hits_allowed: int,
    why_gone: Callable[[], str | None] = lambda: None,
    intake_seconds: float = _INTAKE_SECONDS,
    poll_seconds: float = _POLL_SECONDS,
    hold_seconds: float = _HELD_SECONDS,
) -> dict[str, Any]:
    """Wait until the request is done or refused, showing its progress and what blocks it; the request as it is then.

    Prints one line where nothing has taken it in after `intake_seconds`, and one where a `dev` that ran has ended: `why_gone`
    returns how it ended, or None while it runs.
    """
    held, ask_again_at = "", 0.0
    gone: str | None = None
    missed_at = time.monotonic() + intake_seconds
    with progress_display() as shown:
        while True:
            found = load_request(connection, job)
            if time.monotonic() >= missed_at and found["state"] == State.QUEUED and found["run_id"] is None:
                click.echo(_describe_missing_intake(intake_seconds), err=True)
                missed_at = math.inf
            if time.monotonic() >= ask_again_at:
                before, gone = gone, why_gone()
                if gone is not None and before is None:
                    click.echo(_describe_stopped_dev(gone), err=True)
                held = describe_blocker(connection, hits_allowed=hits_allowed) or ""
                ask_again_at = time.monotonic() + hold_seconds
            # A capture is made by album: its recordings are not settled one by one.
            asked = 0 if found["source"] == Source.CURRENT else found["asked"] or 0
            shown.show(found["settled"], asked, describe_wait(found) or held)
            if found["state"] not in UNSETTLED:
                return found
            time.sleep(poll_seconds)


def _describe_stopped_dev(how: str) -> str:
    return (
        f"`measurement-pipeline dev` {how}, so nothing is bought. The request is kept and goes on when `dev` runs again. This "
        "command goes on waiting; Ctrl-C ends it and changes nothing"
    )


def _describe_missing_intake(seconds: float) -> str:
    return (
        f"nothing has taken the request in for {seconds:.0f} s: is `measurement-pipeline dev`, or Dagster's daemon, running? "
        "`measurement-pipeline doctor` says so; the request stays queued until it is"
    )


def load_request(connection: Connection, job: UUID) -> dict[str, Any]:
    """A request with its progress. Raises `CommandError` where there is none of that id."""
    found = measurement_jobs.show(connection, job)
    if found is None:
        raise CommandError(f"there is no request {job}")
    return found


def describe_wait(job: dict[str, Any]) -> str:
    """What the request waits for, where it waits."""
    if job["state"] == State.QUEUED:
        return job["error"] or "waiting for intake"
    if job["snapshot"] is not None:
        waits_for = f": {job['snapshot_error']}" if job["snapshot_error"] else ""
        return f"the capture of {counted(job['album_count'], 'album')} is {job['snapshot_state']}{waits_for}"
    return ""


def describe_blocker(connection: Connection, *, hits_allowed: int) -> str | None:
    """Why nothing is bought at the moment: breaker, pause or budget; None where none of them is in the way."""
    vendor = songstats_ledger.deployment(connection)
    if vendor.breaker == "open":
        return f"nothing is bought: the breaker is open: {vendor.reason}; see `measurement-pipeline breaker show`"
    if vendor.why_paused is not None:
        return f"nothing is bought: {vendor.why_paused}"
    budget = songstats_ledger.budget(connection, hits_allowed=hits_allowed)
    return None if budget.left else f"nothing is bought: {output.format_budget(budget)}"
