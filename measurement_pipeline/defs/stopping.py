"""Log a cancelled run, or one whose process is terminated, in one line.

Dagster interrupts the op with an exception and logs it twice, each time with the op's stack trace. To the person who pressed
"Terminate" that looks like a crash.
"""

import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

import dagster as dg

from measurement_pipeline.defs.dagster_private import DagsterUserCodeProcessError, SerializableErrorInfo
from measurement_pipeline.defs.storage import STORAGE_ERRORS

logger = logging.getLogger(__name__)

CANCELLED = "Cancelled: the responses of in-flight calls are stored, the other rows are released and stay due."
TERMINATED = (
    "The process of this run received SIGTERM: the responses of in-flight calls are stored, the other rows stay due."
)

_Step = TypeVar("_Step", bound=Callable[..., Any])


class RunStoppedError(dg.DagsterExecutionInterruptedError, DagsterUserCodeProcessError):
    """An interrupt that Dagster logs as one line: because of the second base, it logs the given error without a stack trace."""

    def __init__(self, line: str) -> None:
        error = SerializableErrorInfo(line, [], None)
        DagsterUserCodeProcessError.__init__(  # type: ignore[no-untyped-call]
            self, line, user_code_process_error_infos=[error]
        )


def stops_in_one_line(step: _Step) -> _Step:
    """Decorate the function of an op, asset or check: an interrupt becomes one line in the run's log."""
    if inspect.isgeneratorfunction(step):

        @wraps(step)
        def generator(context: Any, *args: Any, **inputs: Any) -> Iterator[Any]:
            with _in_one_line(context):
                yield from step(context, *args, **inputs)

        return cast("_Step", generator)

    @wraps(step)
    def function(context: Any, *args: Any, **inputs: Any) -> Any:
        with _in_one_line(context):
            return step(context, *args, **inputs)

    return cast("_Step", function)


@contextmanager
def _in_one_line(context: Any) -> Iterator[None]:
    try:
        yield
    except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt):
        raise RunStoppedError(CANCELLED if _is_cancelled(context) else TERMINATED) from None


def _is_cancelled(context: Any) -> bool:
    """Whether a person cancelled the run. False if Dagster's storage is unavailable, because then it is not known."""
    try:
        run = context.instance.get_run_by_id(context.run_id)
    except STORAGE_ERRORS as error:
        logger.warning("cannot read whether the run was cancelled: %s", type(error).__name__)
        return False
    return run is not None and run.status in {dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED}
