"""Cache of catalogue totals. Those of 100,000 recordings take a tenth of a second of CPU, so they are computed once a minute."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import UUID

_TTL_SECONDS = 60.0
_MAX_ENTRIES = 1_000
# Each computation is heavy, so only a few run at once.
_THREADS = 4


class TotalsCache:
    """Compute and cache totals. Thread-safe. Concurrent requests for the same catalogue share one computation and its error.

    A computation that has waited for `timeout_seconds` is not started, because its client has given up.
    """

    def __init__(self, timeout_seconds: float, *, now: Callable[[], float] = time.monotonic) -> None:
        self._timeout_seconds = timeout_seconds
        self._now = now
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(_THREADS, "totals")
        self._entries: dict[tuple[UUID, UUID], _Entry] = {}

    def get(self, account: UUID, catalog: UUID, compute: Callable[[], dict[str, Any]]) -> Future[dict[str, Any]]:
        """Return the totals of an account's catalogue, at most a minute old.

        The future raises what `compute` raises, and `TimeoutError` if the queue was too long. Errors are not cached.
        """

        def compute_in_time() -> dict[str, Any]:
            if self._now() - requested_at > self._timeout_seconds:
                raise TimeoutError("totals not computed: other computations took too long")
            return compute()

        with self._lock:
            requested_at = self._now()
            entry = self._entries.pop((account, catalog), None)
            if entry is None or entry.is_expired(requested_at):
                entry = _Entry(requested_at, self._threads.submit(compute_in_time))
            self._entries[account, catalog] = entry  # inserted last: the first entries are the least recently used
            while len(self._entries) > _MAX_ENTRIES:
                del self._entries[next(iter(self._entries))]
        return entry.totals

    def close(self) -> None:
        """Start no further computation."""
        self._threads.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Entry:
    requested_at: float
    totals: Future[dict[str, Any]]

    def is_expired(self, now: float) -> bool:
        """Return whether to compute it again. A running computation does not expire."""
        if not self.totals.done():
            return False
        has_failed = self.totals.cancelled() or self.totals.exception() is not None
        return has_failed or now - self.requested_at > _TTL_SECONDS
