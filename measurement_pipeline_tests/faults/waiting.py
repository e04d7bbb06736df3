"""Waits for conditions instead of sleeping. All tests share one deadline, far longer than a busy machine needs."""

import time
from collections.abc import Callable
from typing import Any


def wait_until(
    condition: Callable[[], Any], *, seconds: float = 120.0, every: float = 0.01, what: str = "what was waited for"
) -> None:
    """Poll `condition` until it is true. Raises `AssertionError` after `seconds`.

    A condition that starts work in other processes, such as a query of Dagster's UI, takes CPU from what it waits for: poll it
    `every` quarter of a second.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(every)
