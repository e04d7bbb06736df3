"""What is to be done next for one chunk of a capture. Pure."""

from enum import StrEnum

from measurement_pipeline.apify.client import RunStatus
from measurement_pipeline.postgres.apify_runs import MALFORMED, NOT_STARTED, Bought


class Step(StrEnum):
    """The next thing to do; `OVER`: nothing more in this try."""

    START = "start"
    FIND = "find"
    LOOK = "look"
    FETCH = "fetch"
    MAP = "map"
    OVER = "over"


def next_step(bought: Bought | None, *, retry_number: int) -> Step:
    """What to do for a chunk whose latest run of the actor is `bought`.

    One that ended without a result is started anew once a try: the first try does not, the second one does once, and so on.
    """
    if bought is None or bought.status == NOT_STARTED:
        return Step.START
    if bought.is_mapped or bought.status == MALFORMED:
        return Step.OVER
    if bought.is_kept:
        return Step.MAP
    if bought.actor_run is None or bought.status is None:
        return Step.FIND
    status = RunStatus(bought.status)
    if status.succeeded:
        return Step.FETCH
    if status.ended:
        return Step.START if bought.failures <= retry_number else Step.OVER
    return Step.LOOK
