"""One look-up while it is under way: what came of it so far, and how long it may still wait. Its workers share it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from measurement_pipeline.domain.capture import SpotifyTrack

# Requests without an answer, each tried several times, after which the rest is not asked any more.
_FAILURES = 3
# Tracks refused (403) while no other track was answered: then Spotify refuses the client, not these tracks.
_REFUSALS = 50


@dataclass
class LookupBatch:
    """What is known of the tracks asked for. `over`: no further request is made, and what is left waits for another day."""

    sleep: Callable[[float], None]
    patience: float
    found: dict[str, SpotifyTrack] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    one_by_one: list[str] = field(default_factory=list)
    over: bool = False
    retry_after: float | None = None
    why: str | None = None
    _failures: int = 0
    _refusals: int = 0
    _waits: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def turn(self) -> int:
        """Waits while another worker does, and says how many waits there were."""
        with self._lock:
            return self._waits

    def back_off(self, turn: int, seconds: float, why: str, *, retry_after: float | None = None) -> None:
        """Wait that long before the next try, unless somebody has waited since `turn`; end where patience is too short."""
        with self._lock:
            if self._waits != turn or self.over:
                return
            if seconds > self.patience:
                self.over, self.why, self.retry_after = True, why, retry_after
                return
            self.patience -= seconds
            self.sleep(seconds)
            self._waits += 1

    def odd(self, why: str) -> None:
        """What was said of one track cannot be read."""
        with self._lock:
            self.why = self.why or why

    def refused(self, why: str) -> None:
        """Spotify refuses one track. The others are asked for, unless it refuses each of the first many."""
        with self._lock:
            self._refusals += 1
            self.why = self.why or why
            if self._refusals >= _REFUSALS and not self.found and not self.unknown:
                self.over, self.why = True, why

    def failed(self, why: str) -> None:
        """One request stays without an answer that can be read."""
        with self._lock:
            self._failures += 1
            if not self.over:
                self.why = why
                self.over = self._failures >= _FAILURES

    def give_up(self, why: str) -> None:
        """Ask for nothing more."""
        with self._lock:
            if not self.over:
                self.over, self.why = True, why
