"""Lets a sensor's tick wait for work, so that new work is noticed in a fraction of a second.

Dagster's daemon starts a tick of each sensor every 5 s, whatever the sensor's interval is. A tick that finds nothing to do
therefore waits for work until just before the daemon's next loop, instead of ending at once (docs/decisions/0033).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event

# The rest of the daemon's 5 s is for the tick's own bookkeeping: the daemon's loop skips a sensor whose tick has not ended.
DAEMON_TICK_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class TickWait:
    """How long a tick may wait; 0: not at all. `queue_changed`: rows were enqueued, set by one sensor for another."""

    seconds: float = 0.0
    queue_changed: Event = field(default_factory=Event, repr=False)

    def deadline(self) -> float:
        """The end of the time of a tick that starts now."""
        return time.monotonic() + self.seconds

    def wait(self, deadline: float, is_changed: Callable[[], bool], *, poll_seconds: float) -> bool:
        """Wait until `is_changed`, asked every `poll_seconds`. False: the tick's time has ended."""
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(poll_seconds, left))
            if is_changed():
                return True
        return False
