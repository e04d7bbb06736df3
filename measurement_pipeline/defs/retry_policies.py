"""How often, and after how long, an op is retried inside its run. Longer waits are the planner's.

Ops have no `dg.RetryPolicy`, because with one Dagster turns a cancellation into a retry, and the cancelled run continues to its
end. Requesting the retry ourselves does not affect interrupts.
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
    """About 2, 4 and 8 seconds, with jitter so that two runs do not retry at the same moment."""
    return base_wait_seconds(retry_number) + random.uniform(-0.5, 0.5)  # noqa: S311 - nothing secret about it


@contextmanager
def retry_on_error(retry_number: int) -> Iterator[None]:
    """Turn an error into a retry, so that a restarting database does not fail a run. The error of the last attempt is raised."""
    try:
        yield
    except (dg.Failure, dg.RetryRequested, dg.DagsterError):
        raise
    except Exception as error:
        if retry_number >= MAX_RETRIES:
            raise
        raise dg.RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=seconds_before(retry_number)) from error
