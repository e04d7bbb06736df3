"""What responses say of the key and the vendor, rather than of a recording: pauses, refused keys, streaks.

Limits the calls in flight and stops them, by the rules of `domain/backfill_queue`. `worker` owns the rows.
"""

import asyncio
from collections import deque
from functools import partial

from measurement_pipeline.domain.backfill_queue import (
    BREAKER_OPENED,
    CAUSES_READ,
    FOREIGN,
    UNUSABLE_BEFORE_PAUSE,
    count_interference,
    count_streak,
    max_calls_in_flight,
)
from measurement_pipeline.domain.drift import Drift, Shape, compare_shapes
from measurement_pipeline.domain.outcome import Cause, Judgement
from measurement_pipeline.postgres import songstats_ledger
from measurement_pipeline.postgres.database import ReconnectingConnection
from measurement_pipeline.vendors.songstats.answer_shape import shape_of_history
from measurement_pipeline.vendors.songstats.response import SongstatsResponse

_INFORMATIVE = frozenset({Cause.STORED, Cause.NO_HISTORY, Cause.REJECTED, Cause.MALFORMED})
_UNUSABLE = frozenset({Cause.TRANSIENT, Cause.TIMEOUT})


class CircuitBreaker:
    """The circuit breaker of one run. `breaker_reason` or `pause_seconds_left` is set once calls must stop.

    `has_stored`: whether a stored history was recorded in this run.
    """

    def __init__(self, connection: ReconnectingConnection, *, concurrency: int) -> None:
        self.breaker_reason: str | None = None
        self.pause_seconds_left: float | None = None
        self._connection = connection
        self._concurrency = concurrency
        # (cause, song) of the responses, latest first; earlier runs' too, so that a streak continues across runs.
        self._recent_causes: deque[tuple[str, str]] = deque(maxlen=CAUSES_READ)
        self.has_stored = False
        # There was a pause, and no response since.
        self._is_after_pause = False
        self._unusable = 0
        # The forms of earlier answers, until the first answer of the day is compared with them. Empty: it was already.
        self._earlier_shapes: list[Shape] = []

    @property
    def stop_reason(self) -> str | None:
        """Why calls must stop, or None."""
        if self.breaker_reason is not None:
            return f"{BREAKER_OPENED}{self.breaker_reason}"
        if self.pause_seconds_left is None:
            return None
        return "Songstats gives no usable response: pausing" if self._unusable else "Songstats asks for a pause"

    async def load_history(self) -> None:
        """Continue the streak of earlier runs: one of them may have died before it could open the breaker."""
        self._recent_causes.extend(await self._connection.execute_with_retry(songstats_ledger.recent_causes))
        self._is_after_pause = await self._connection.execute_with_retry(songstats_ledger.throttled) > 0
        await self._check_streak()
        await self._check_interference()
        bodies = await self._connection.execute_with_retry(songstats_ledger.load_bodies_before_today)
        # In a thread: heartbeats continue while a hundred answers are parsed.
        self._earlier_shapes = await asyncio.to_thread(_read_shapes, bodies)

    def available_slots(self, in_flight: int) -> int:
        """How many more calls may start."""
        streak = count_streak([cause for cause, _ in self._recent_causes])
        allowed = max_calls_in_flight(
            streak,
            has_stored=self.has_stored,
            concurrency=self._concurrency,
            unusable=self._unusable,
            is_after_pause=self._is_after_pause,
        )
        return allowed - in_flight

    async def record_outcome(self, song: str, response: SongstatsResponse, judgement: Judgement) -> None:
        """Record the response to one call. A stored response that is parsed again is no new evidence."""
        if judgement.cause in _INFORMATIVE:
            self._recent_causes.appendleft((judgement.cause, song))
            self.has_stored |= judgement.cause is Cause.STORED
            if judgement.cause is Cause.STORED:
                await self._check_form(response)
            await self._check_streak()
        is_unusable = judgement.cause in _UNUSABLE
        self._unusable = self._unusable + 1 if is_unusable else 0
        share_is_too_high = False
        if is_unusable and judgement.outcome is None:
            self._recent_causes.appendleft((FOREIGN, song))
            share_is_too_high = await self._check_interference(judgement.detail)
        if judgement.cause is Cause.REFUSED_KEY:
            await self._open_breaker("key", judgement.detail, [])
        elif judgement.cause is Cause.THROTTLED or (
            # The vendor is down, a page is not Songstats' own, or `/status` does not explain a 403: the recordings are not the
            # cause. After a pause the first such response shows that the problem lasts.
            is_unusable
            and (
                (judgement.outcome is None and response.failure is None)
                or share_is_too_high
                or self._is_after_pause
                or self._unusable >= UNUSABLE_BEFORE_PAUSE
            )
        ):
            await self._pause(response, judgement, is_unusable=is_unusable)
        elif judgement.cause in _INFORMATIVE and self._is_after_pause and self.pause_seconds_left is None:
            self._is_after_pause = False
            await self._connection.execute_with_retry(songstats_ledger.unthrottle)

    async def _pause(self, response: SongstatsResponse, judgement: Judgement, *, is_unusable: bool) -> None:
        if is_unusable:
            reason = f"Songstats gives no usable response ({judgement.detail})"
        elif response.retry_after is None:
            reason = "Songstats answers 429 and does not say for how long"
        else:
            reason = "Songstats asked for it"
        # For a vendor that gives unusable responses, a healthy `/status` proves nothing.
        begin_pause = partial(
            songstats_ledger.pause, retry_after=response.retry_after, why=reason, is_unusable=is_unusable
        )
        self.pause_seconds_left = max(
            await self._connection.execute_with_retry(begin_pause), self.pause_seconds_left or 0.0
        )

    async def _check_streak(self) -> None:
        reason = count_streak([cause for cause, _ in self._recent_causes]).reason
        # Also for each response that arrives once it is open: the calls in flight are as doubtful.
        if reason is not None:
            await self._open_breaker("streak", reason, self._songs_since_stored())

    async def _check_form(self, response: SongstatsResponse) -> None:
        """Open the breaker if the first stored answer of the day lacks a field that every earlier one has, or changes a type."""
        earlier, self._earlier_shapes = self._earlier_shapes, []
        latest = shape_of_history(response.body)
        drift = Drift() if latest is None else compare_shapes(earlier, latest)
        if drift != Drift():
            await self._connection.execute_with_retry(partial(songstats_ledger.record_drift, drift=drift))
        if drift.is_serious:
            await self._open_breaker("drift", drift.reason, [])

    async def _check_interference(self, detail: str | None = None) -> bool:
        """Open the breaker if something other than Songstats keeps answering; whether its share requires a pause."""
        found = count_interference([cause for cause, _ in self._recent_causes])
        if found.reason is not None:
            # No row was settled on such a response, so none is suspect.
            await self._open_breaker("streak", f"{found.reason} (the last: {detail})" if detail else found.reason, [])
        return found.needs_pause

    async def _open_breaker(self, kind: str, reason: str, suspects: list[str]) -> None:
        await self._connection.execute_with_retry(
            partial(songstats_ledger.open_breaker, kind=kind, reason=reason, suspects=suspects)
        )
        self.breaker_reason = self.breaker_reason or reason

    def _songs_since_stored(self) -> list[str]:
        songs = []
        for cause, song in self._recent_causes:
            if cause == Cause.STORED:
                break
            songs.append(song)
        return songs


def _read_shapes(bodies: list[bytes]) -> list[Shape]:
    return [shape for shape in map(shape_of_history, bodies) if shape is not None]
