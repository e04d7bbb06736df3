"""Decides the next step for one chunk of a capture. Pure."""

from collections.abc import Collection, Iterable
from enum import StrEnum

from measurement_pipeline.postgres.apify_runs import GONE, MALFORMED, NOT_STARTED, ActorRunRow
from measurement_pipeline.vendors.apify.client import RunStatus


class Step(StrEnum):
    """The next step of a chunk. `FINISHED`: nothing more in this attempt."""

    START = "start"
    FIND = "find"
    POLL = "poll"
    FETCH = "fetch"
    MAP = "map"
    FINISHED = "finished"


def next_step(run: ActorRunRow | None, *, restartable: Collection[int]) -> Step:
    """The next step for a chunk with the latest actor run `run`. `restartable`: rows that another start may follow."""
    if run is None or run.status == NOT_STARTED:
        return Step.START
    if run.is_mapped or run.status == MALFORMED:
        return Step.FINISHED
    if run.has_result:
        return Step.MAP
    if run.actor_run is None or run.status is None:
        return Step.FIND
    if has_failed(run):
        return Step.START if run.is_superseded or run.id in restartable else Step.FINISHED
    return Step.FETCH if RunStatus(run.status).has_succeeded else Step.POLL


def rows_to_restart(runs: Iterable[ActorRunRow], *, is_retry: bool) -> frozenset[int]:
    """The failed runs that this attempt may start again: those of a retry, if another chunk was captured.

    Decided once per attempt, so that an attempt pays for a chunk once at most. The first attempt pays for nothing again. If
    nothing was captured, only an operator may pay again.
    """
    all_runs = list(runs)
    if not is_retry or not any(run.has_result for run in all_runs):
        return frozenset()
    return frozenset(run.id for run in all_runs if has_failed(run))


def has_failed(run: ActorRunRow) -> bool:
    """Whether an actor run ended without a result."""
    if run.has_result or run.status in {None, NOT_STARTED, MALFORMED}:
        return False
    if run.status == GONE:
        return True
    status = RunStatus(str(run.status))
    return status.has_ended and not status.has_succeeded
