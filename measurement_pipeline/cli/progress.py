"""Waits for a request and shows its progress: a bar on a terminal, plain lines elsewhere. `receipt` prints its result."""

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
from measurement_pipeline.domain.blockers import call_blockers, describe_all
from measurement_pipeline.domain.measurement_job import Source, State
from measurement_pipeline.domain.text import counted
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.postgres import measurement_jobs, songstats_ledger
from measurement_pipeline.postgres.database import Connection

UNSETTLED = {State.QUEUED, State.ACCEPTED}

_POLL_SECONDS = 0.5
# Longer than a poll, because the budget counts the hits of 30 days.
_BLOCKER_SECONDS = 5.0
# The intake sensor ticks every 5 s, and its run takes about as long to start.
_INTAKE_SECONDS = 20.0
# The window of the average speed from which the remaining time is estimated.
_SPEED_SECONDS = 120.0
# Between two identical lines.
_REPEAT_SECONDS = 30.0


class ProgressDisplay(Protocol):
    """Shows progress."""

    def show(self, settled: int, asked: int, note: str) -> None:
        """Show how many of the requested recordings are settled, and a note."""
        ...


class _Bar:
    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None, note="")

    def show(self, settled: int, asked: int, note: str) -> None:
        self._bar.update(self._task, completed=settled, total=asked or None, note=note)


class _Lines:
    """For logs, where rich prints no bar: a line for every tenth, for every new note, and after a pause."""

    def __init__(self) -> None:
        self._last: tuple[int, str] | None = None
        self._last_at = 0.0

    def show(self, settled: int, asked: int, note: str) -> None:
        tenth = settled * 10 // asked if asked else 0
        if (tenth, note) == self._last and time.monotonic() < self._last_at + _REPEAT_SECONDS:
            return
        self._last, self._last_at = (tenth, note), time.monotonic()
        click.echo(f"{settled:,} of {asked:,} settled{f' ({note})' if note else ''}" if asked else note, err=True)


@contextmanager
def progress_display() -> Iterator[ProgressDisplay]:
    """Show a bar on a terminal and lines on stderr elsewhere, so that stdout holds only the result."""
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
    # Recordings settle in bursts, one per run. A short window would make the remaining time jump.
    with Progress(
        *columns, console=output.console(stderr=True), transient=True, speed_estimate_period=_SPEED_SECONDS
    ) as bar:
        yield _Bar(bar)


def wait_for_request(
    connection: Connection,
    job: UUID,
    *,
    hits_allowed: int,
    describe_end: Callable[[], str | None] = lambda: None,
    is_starting: Callable[[], bool] = lambda: False,
    intake_seconds: float = _INTAKE_SECONDS,
    poll_seconds: float = _POLL_SECONDS,
    blocker_seconds: float = _BLOCKER_SECONDS,
) -> dict[str, Any]:
    """Wait until the request is settled or rejected, show its progress and what blocks it, and return it.

    Prints one line if no run has accepted it after `intake_seconds`, and one if a running `dev` ends. `describe_end` returns
    how `dev` ended, or None; `is_starting` returns whether `dev` is still starting.
    """
    blocker, next_check_at = "", 0.0
    end: str | None = None
    warn_at = time.monotonic() + intake_seconds
    with progress_display() as display:
        while True:
            request = load_request(connection, job)
            if time.monotonic() >= warn_at and request["state"] == State.QUEUED and request["run_id"] is None:
                starting = is_starting()
                click.echo(_describe_missing_intake(intake_seconds, is_starting=starting), err=True)
                warn_at = time.monotonic() + intake_seconds if starting else math.inf
            if time.monotonic() >= next_check_at:
                before, end = end, describe_end()
                if end is not None and before is None:
                    click.echo(_describe_stopped_dev(end), err=True)
                blocker = describe_blocker(connection, hits_allowed=hits_allowed) or ""
                next_check_at = time.monotonic() + blocker_seconds
            # A capture covers albums, so its recordings are not settled one by one.
            asked = 0 if request["source"] == Source.CURRENT else request["asked"] or 0
            display.show(request["settled"], asked, describe_wait(request) or blocker)
            if request["state"] not in UNSETTLED:
                return request
            time.sleep(poll_seconds)


def _describe_stopped_dev(end: str) -> str:
    return (
        f"`measurement-pipeline dev` {end}, so nothing is bought. The request is stored and continues when `dev` runs again. "
        "This command keeps waiting; Ctrl-C ends it and changes nothing"
    )


def _describe_missing_intake(seconds: float, *, is_starting: bool) -> str:
    if is_starting:
        return f"not accepted after {seconds:.0f} s: `measurement-pipeline dev` is still starting, and accepts the request then"
    return (
        f"not accepted after {seconds:.0f} s: start `measurement-pipeline dev` or Dagster's daemon. The request stays queued; "
        "`measurement-pipeline doctor` shows what is not running"
    )


def load_request(connection: Connection, job: UUID) -> dict[str, Any]:
    """Return a request with its progress. Raises `CommandError` if there is none with this id."""
    request = measurement_jobs.show(connection, job)
    if request is None:
        raise CommandError(f"there is no request {job}: `measurement-pipeline jobs` lists the latest ones")
    return request


def describe_wait(job: dict[str, Any]) -> str:
    """What the request waits for, as text; empty if it does not wait."""
    if job["state"] == State.QUEUED:
        return job["error"] or "waiting for intake"
    if job["snapshot"] is not None:
        reason = f": {job['snapshot_error']}" if job["snapshot_error"] else ""
        return f"the capture of {counted(job['album_count'], 'album')} is {job['snapshot_state']}{reason}"
    return ""


def describe_blocker(connection: Connection, *, hits_allowed: int) -> str | None:
    """Why nothing is bought now: breaker, pause or budget. None if none of them stops purchases."""
    vendor = songstats_ledger.vendor_state(connection)
    budget = songstats_ledger.budget(connection, hits_allowed=hits_allowed)
    return describe_all(call_blockers(vendor, budget)[:1]) or None
