"""The state of one lookup, shared by its worker threads: its results so far, and how long it may still wait."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from measurement_pipeline.domain.capture import SpotifyTrack

# After so many requests without a response, each tried several times, the lookup stops.
_MAX_FAILURES = 3
# If Spotify rejects (403) so many tracks and answers for none, it rejects the client and not these tracks.
_MAX_REJECTIONS = 50


@dataclass
class LookupBatch:
    """The results of one lookup. Once `is_stopped`, no further request is sent, and the remaining tracks are deferred."""

    sleep: Callable[[float], None]
    wait_budget_seconds: float
    found: dict[str, SpotifyTrack] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    single_ids: list[str] = field(default_factory=list)
    is_stopped: bool = False
    retry_after_seconds: float | None = None
    reason: str | None = None
    _failures: int = 0
    _rejections: int = 0
    _backoffs: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def backoff_epoch(self) -> int:
        """The number of waits so far. Blocks while another worker waits."""
        with self._lock:
            return self._backoffs

    def back_off(self, epoch: int, seconds: float, reason: str, *, retry_after: float | None = None) -> None:
        """Wait before the next attempt, unless another worker has waited since `epoch`. Stop if the budget is too small."""
        with self._lock:
            if self._backoffs != epoch or self.is_stopped:
                return
            if seconds > self.wait_budget_seconds:
                self.is_stopped, self.reason, self.retry_after_seconds = True, reason, retry_after
                return
            self.wait_budget_seconds -= seconds
            self.sleep(seconds)
            self._backoffs += 1

    def record_unreadable_track(self, reason: str) -> None:
        """One track of a response is unreadable."""
        with self._lock:
            self.reason = self.reason or reason

    def record_rejection(self, reason: str) -> None:
        """Spotify rejects one track. The lookup continues unless Spotify rejects all of the first tracks."""
        with self._lock:
            self._rejections += 1
            self.reason = self.reason or reason
            if self._rejections >= _MAX_REJECTIONS and not self.found and not self.unknown:
                self.is_stopped, self.reason = True, reason

    def record_failure(self, reason: str) -> None:
        """One request ended without a usable response."""
        with self._lock:
            self._failures += 1
            if not self.is_stopped:
                self.reason = reason
                self.is_stopped = self._failures >= _MAX_FAILURES

    def stop(self, reason: str) -> None:
        """Send no further request."""
        with self._lock:
            if not self.is_stopped:
                self.is_stopped, self.reason = True, reason
