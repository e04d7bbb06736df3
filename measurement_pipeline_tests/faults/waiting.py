"""Wait for a condition instead of sleeping: the one deadline of all tests, far longer than a busy machine takes."""

import time
from collections.abc import Callable
from typing import Any


def until(condition: Callable[[], Any], *, seconds: float = 120.0, what: str = "what was waited for") -> None:
    """Ask `condition` until it is true. Raises `AssertionError` once `seconds` have gone by."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come in {seconds:.0f} s"
        time.sleep(0.01)
