"""How often, and after how long, an op is tried again inside its run. Longer waits are the planner's.

No `dg.RetryPolicy`, on purpose: where an op has one, Dagster turns a cancellation into a retry, and the run goes on to its end
as if nobody had cancelled it. Asking for the retry ourselves leaves interrupts alone.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from measurement_pipeline.domain.backoff import exponential_backoff

MAX_RETRIES = 3


def base_wait_seconds(retry_number: int) -> float:
    """The wait before a retry, without jitter: 2, 4 and 8 seconds."""
    return exponential_backoff(retry_number, first_seconds=2.0, max_seconds=60.0)


def seconds_before(retry_number: int) -> float:
    """About 2, 4 and 8 seconds, so that two runs do not come back in step."""
    return base_wait_seconds(retry_number) + random.uniform(-0.5, 0.5)  # noqa: S311 - nothing secret about it


@contextmanager
def retry_on_error(retry_number: int) -> Iterator[None]:
    """A database that restarts is no reason to fail a run: an error asks for another try, the last one is raised."""
    try:
        yield
    except (dg.Failure, dg.RetryRequested, dg.DagsterError):
        raise
    except Exception as error:
        if retry_number >= MAX_RETRIES:
            raise
        raise dg.RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=seconds_before(retry_number)) from error
