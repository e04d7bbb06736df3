"""What is to be done next for one chunk of a capture. Pure."""

from collections.abc import Collection, Iterable
from enum import StrEnum

from measurement_pipeline.postgres.apify_runs import GONE, MALFORMED, NOT_STARTED, ActorRunRow
from measurement_pipeline.vendors.apify.client import RunStatus


class Step(StrEnum):
    """The next thing to do; `OVER`: nothing more in this try."""

    START = "start"
    FIND = "find"
    POLL = "look"
    FETCH = "fetch"
    MAP = "map"
    FINISHED = "over"


def next_step(bought: ActorRunRow | None, *, restartable: Collection[int]) -> Step:
    """What to do for a chunk whose latest run of the actor is `bought`. `again`: rows that may be followed by another start."""
    if bought is None or bought.status == NOT_STARTED:
        return Step.START
    if bought.is_mapped or bought.status == MALFORMED:
        return Step.FINISHED
    if bought.has_result:
        return Step.MAP
    if bought.actor_run is None or bought.status is None:
        return Step.FIND
    if has_failed(bought):
        return Step.START if bought.is_superseded or bought.id in restartable else Step.FINISHED
    return Step.FETCH if RunStatus(bought.status).has_succeeded else Step.POLL


def rows_to_restart(bought: Iterable[ActorRunRow], *, is_retry: bool) -> frozenset[int]:
    """The rows that a try may follow with another start: those that had failed when it began, where other parts were captured.

    Decided once a try, so that a part is bought once more a try at most. The first try of a run buys nothing again, and where
    nothing was captured it is a person's to pay again.
    """
    all_of_it = list(bought)
    if not is_retry or not any(one.has_result for one in all_of_it):
        return frozenset()
    return frozenset(one.id for one in all_of_it if has_failed(one))


def has_failed(bought: ActorRunRow) -> bool:
    """Whether a run of the actor is over and brought nothing."""
    if bought.has_result or bought.status in {None, NOT_STARTED, MALFORMED}:
        return False
    if bought.status == GONE:
        return True
    status = RunStatus(str(bought.status))
    return status.has_ended and not status.has_succeeded
