"""Totals of whole catalogues, added up once a minute for whoever asks: of 100,000 recordings that takes most of a second."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import UUID

_TTL_SECONDS = 60.0
_MAX_ENTRIES = 1_000
# A few of them at once, and not one for each that asks: each is heavy.
_THREADS = 4


class TotalsCache:
    """For any thread; those that ask for the same at once get the same: the totals, or the error that adding up came to.

    `patience_seconds`: what has not been begun so long after it was asked for is not begun, since nobody waits for it any more.
    """

    def __init__(self, patience_seconds: float, *, now: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience_seconds
        self._now = now
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(_THREADS, "totals")
        self._entries: dict[tuple[UUID, UUID], _Entry] = {}

    def get(self, account: UUID, catalog: UUID, compute: Callable[[], dict[str, Any]]) -> Future[dict[str, Any]]:
        """The totals of an account's catalogue, a minute old at most, or what `add_up` raises: then the next call tries anew.

        Or TimeoutError, where others were before it for too long.
        """

        def in_time() -> dict[str, Any]:
            if self._now() - asked_at > self._patience:
                raise TimeoutError("too many catalogues are being added up")
            return compute()

        with self._lock:
            asked_at = self._now()
            kept = self._entries.pop((account, catalog), None)
            if kept is None or kept.is_expired(asked_at):
                kept = _Entry(asked_at, self._threads.submit(in_time))
            self._entries[account, catalog] = kept  # put back last
            while len(self._entries) > _MAX_ENTRIES:
                del self._entries[next(iter(self._entries))]
        return kept.totals

    def close(self) -> None:
        """Begin nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Entry:
    requested_at: float
    totals: Future[dict[str, Any]]

    def is_expired(self, now: float) -> bool:
        """Whether it is to be added up anew; never while it is being added up."""
        if not self.totals.done():
            return False
        return now - self.requested_at > _TTL_SECONDS or self.totals.cancelled() or self.totals.exception() is not None
