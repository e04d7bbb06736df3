"""What answers say of the key and the vendor, rather than of a recording: pauses, refused keys, streaks.

Decides with `domain/backfill_queue` how many calls may be in the air and when calling must stop; the rows themselves are
`drain`'s.
"""

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
from measurement_pipeline.domain.outcome import Cause, Judgement
from measurement_pipeline.postgres import songstats_ledger as ledger
from measurement_pipeline.postgres.database import ReconnectingConnection
from measurement_pipeline.vendors.songstats.response import SongstatsResponse

_INFORMATIVE = frozenset({Cause.STORED, Cause.NO_HISTORY, Cause.REJECTED, Cause.MALFORMED})
_UNUSABLE = frozenset({Cause.TRANSIENT, Cause.TIMEOUT})


class CircuitBreaker:
    """One run's trust in the vendor. `breaker_opened` and `pause_left` (seconds) say what ended it."""

    def __init__(self, connection: ReconnectingConnection, *, concurrency: int) -> None:
        self.breaker_reason: str | None = None
        self.pause_seconds_left: float | None = None
        self._connection = connection
        self._concurrency = concurrency
        # (cause, song) of the answers, the latest first: earlier runs' too, so that a streak goes on across runs.
        self._recent_causes: deque[tuple[str, str]] = deque(maxlen=CAUSES_READ)
        self._has_stored = False
        # There was a pause, and no answer since.
        self._is_after_pause = False
        self._unusable = 0

    @property
    def stop_reason(self) -> str | None:
        """Why nothing more may be called, or None."""
        if self.breaker_reason is not None:
            return f"{BREAKER_OPENED}{self.breaker_reason}"
        if self.pause_seconds_left is None:
            return None
        return "Songstats gives no usable answer: pausing" if self._unusable else "Songstats asks for a pause"

    async def load_history(self) -> None:
        """Take up the streak where earlier runs left it: one of them may have died before it could open the breaker."""
        self._recent_causes.extend(await self._connection.execute_with_retry(ledger.recent_causes))
        self._is_after_pause = await self._connection.execute_with_retry(ledger.throttled) > 0
        await self._check_streak()
        await self._check_interference()

    def available_slots(self, in_flight: int) -> int:
        """How many more calls may go out."""
        seen = count_streak([cause for cause, _ in self._recent_causes])
        allowed = max_calls_in_flight(
            seen,
            has_stored=self._has_stored,
            concurrency=self._concurrency,
            unusable=self._unusable,
            is_after_pause=self._is_after_pause,
        )
        return allowed - in_flight

    async def record_outcome(self, song: str, response: SongstatsResponse, judgement: Judgement) -> None:
        """Take the answer to one call to heart. What is read again from what was kept tells nothing new."""
        if judgement.cause in _INFORMATIVE:
            self._recent_causes.appendleft((judgement.cause, song))
            self._has_stored |= judgement.cause is Cause.STORED
            await self._check_streak()
        blank = judgement.cause in _UNUSABLE
        self._unusable = self._unusable + 1 if blank else 0
        share_is_too_high = False
        if blank and judgement.outcome is None:
            self._recent_causes.appendleft((FOREIGN, song))
            share_is_too_high = await self._check_interference(judgement.detail)
        if judgement.cause is Cause.REFUSED_KEY:
            await self._open_breaker("key", judgement.detail, [])
        elif judgement.cause is Cause.THROTTLED or (
            # A vendor that is away, a page that is not Songstats', or a 403 that `/status` does not explain: the recordings
            # are not to blame. After a pause the first such answer shows that the trouble lasts.
            blank
            and (
                (judgement.outcome is None and response.failure is None)
                or share_is_too_high
                or self._is_after_pause
                or self._unusable >= UNUSABLE_BEFORE_PAUSE
            )
        ):
            await self._pause(response, judgement, is_unusable=blank)
        elif judgement.cause in _INFORMATIVE and self._is_after_pause and self.pause_seconds_left is None:
            self._is_after_pause = False
            await self._connection.execute_with_retry(ledger.unthrottle)

    async def _pause(self, response: SongstatsResponse, judgement: Judgement, *, is_unusable: bool) -> None:
        if is_unusable:
            why = f"Songstats gives no usable answer ({judgement.detail})"
        elif response.retry_after is None:
            why = "Songstats answers 429 and does not say for how long"
        else:
            why = "Songstats asked for it"
        # Of a vendor that stumbles, a healthy `/status` says nothing.
        wish = partial(ledger.pause, retry_after=response.retry_after, why=why, blank=is_unusable)
        self.pause_seconds_left = max(await self._connection.execute_with_retry(wish), self.pause_seconds_left or 0.0)

    async def _check_streak(self) -> None:
        reason = count_streak([cause for cause, _ in self._recent_causes]).reason
        # Again with each answer that comes down once it is open: what was in the air is as doubtful.
        if reason is not None:
            await self._open_breaker("streak", reason, self._songs_since_stored())

    async def _check_interference(self, detail: str | None = None) -> bool:
        """Open the breaker where something else keeps answering for Songstats; whether its share calls for a pause."""
        seen = count_interference([cause for cause, _ in self._recent_causes])
        if seen.reason is not None:
            # No row was settled on such an answer, so none is suspect.
            await self._open_breaker("streak", f"{seen.reason} (the last: {detail})" if detail else seen.reason, [])
        return seen.needs_pause

    async def _open_breaker(self, kind: str, reason: str, suspects: list[str]) -> None:
        await self._connection.execute_with_retry(
            partial(ledger.open_breaker, kind=kind, reason=reason, suspects=suspects)
        )
        self.breaker_reason = self.breaker_reason or reason

    def _songs_since_stored(self) -> list[str]:
        found = []
        for cause, song in self._recent_causes:
            if cause == Cause.STORED:
                break
            found.append(song)
        return found
