"""Totals of whole catalogues, added up once a minute for whoever asks: of 100,000 recordings that takes most of a second."""

import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

_KEPT_SECONDS = 60.0
_KEPT_AT_MOST = 1_000


class KeptTotals:
    """For any thread; of those that ask for the same at once, one adds up and the others wait for it."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._of: dict[tuple[UUID, UUID], _Kept] = {}

    def get(self, account: UUID, catalog: UUID, add_up: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The totals of an account's catalogue, a minute old at most."""
        with self._lock:
            kept = self._of.pop((account, catalog), None) or _Kept()
            self._of[account, catalog] = kept  # put back last
            while len(self._of) > _KEPT_AT_MOST:
                del self._of[next(iter(self._of))]
        with kept.lock:
            if kept.totals is None or self._now() - kept.at > _KEPT_SECONDS:
                kept.totals, kept.at = add_up(), self._now()
            return kept.totals


class _Kept:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.totals: dict[str, Any] | None = None
        self.at = 0.0
