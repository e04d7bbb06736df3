"""Progress lines of a run: at most one every few seconds, whether or not anything was settled meanwhile."""

import time
from collections.abc import Callable

PROGRESS_SECONDS = 5.0


class ProgressLog:
    """Passes a line to `log` at most once every `every_seconds`."""

    def __init__(
        self,
        log: Callable[[str], None],
        *,
        every_seconds: float = PROGRESS_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._every = every_seconds
        self._clock = clock
        self._next = clock() + every_seconds

    def show(self, line: Callable[[], str]) -> None:
        """Log `line` if the interval has passed."""
        now = self._clock()
        if now >= self._next:
            self._next = now + self._every
            self._log(line())
