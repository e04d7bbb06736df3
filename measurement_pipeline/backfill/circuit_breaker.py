"""What answers say of the key and the vendor, rather than of a recording: pauses, refused keys, streaks.

Decides with `domain/backfill_queue` how many calls may be in the air and when calling must stop; the rows themselves are
`drain`'s.
"""

from collections import deque
from functools import partial

from measurement_pipeline.domain.backfill_queue import (
    BLANKS_THAT_CALL_FOR_A_PAUSE,
    BREAKER_OPENED,
    CAUSES_READ,
    FOREIGN,
    calls_allowed_in_the_air,
    interference,
    streak,
)
from measurement_pipeline.domain.outcome import Cause, Judgement
from measurement_pipeline.postgres import songstats_ledger as ledger
from measurement_pipeline.postgres.database import ReconnectingConnection
from measurement_pipeline.vendors.songstats.response import SongstatsResponse

_TELLING = frozenset({Cause.STORED, Cause.NO_HISTORY, Cause.REJECTED, Cause.MALFORMED})
_BLANK = frozenset({Cause.TRANSIENT, Cause.TIMEOUT})


class CircuitBreaker:
    """One run's trust in the vendor. `breaker_opened` and `pause_left` (seconds) say what ended it."""

    def __init__(self, line: ReconnectingConnection, *, concurrency: int) -> None:
        self.breaker_opened: str | None = None
        self.pause_left: float | None = None
        self._line = line
        self._concurrency = concurrency
        # (cause, song) of the answers, the latest first: earlier runs' too, so that a streak goes on across runs.
        self._answers: deque[tuple[str, str]] = deque(maxlen=CAUSES_READ)
        self._stored_in_this_run = False
        # There was a pause, and no answer since.
        self._throttled = False
        self._blanks = 0

    @property
    def open_reason(self) -> str | None:
        """Why nothing more may be called, or None."""
        if self.breaker_opened is not None:
            return f"{BREAKER_OPENED}{self.breaker_opened}"
        if self.pause_left is None:
            return None
        return "Songstats gives no usable answer: pausing" if self._blanks else "Songstats asks for a pause"

    async def begin(self) -> None:
        """Take up the streak where earlier runs left it: one of them may have died before it could open the breaker."""
        self._answers.extend(await self._line.execute_with_retry(ledger.recent_causes))
        self._throttled = await self._line.execute_with_retry(ledger.throttled) > 0
        await self._watch_the_streak()
        await self._watch_for_interference()

    def available_slots(self, in_the_air: int) -> int:
        """How many more calls may go out."""
        seen = streak([cause for cause, _ in self._answers])
        allowed = calls_allowed_in_the_air(
            seen,
            trusted=self._stored_in_this_run,
            concurrency=self._concurrency,
            blanks=self._blanks,
            throttled=self._throttled,
        )
        return allowed - in_the_air

    async def record_outcome(self, song: str, answer: SongstatsResponse, judgement: Judgement) -> None:
        """Take the answer to one call to heart. What is read again from what was kept tells nothing new."""
        if judgement.cause in _TELLING:
            self._answers.appendleft((judgement.cause, song))
            self._stored_in_this_run |= judgement.cause is Cause.STORED
            await self._watch_the_streak()
        blank = judgement.cause in _BLANK
        self._blanks = self._blanks + 1 if blank else 0
        share_is_too_high = False
        if blank and judgement.outcome is None:
            self._answers.appendleft((FOREIGN, song))
            share_is_too_high = await self._watch_for_interference(judgement.detail)
        if judgement.cause is Cause.REFUSED_KEY:
            await self._open_breaker("key", judgement.detail, [])
        elif judgement.cause is Cause.THROTTLED or (
            # A vendor that is away, a page that is not Songstats', or a 403 that `/status` does not explain: the recordings
            # are not to blame. After a pause the first such answer shows that the trouble lasts.
            blank
            and (
                (judgement.outcome is None and answer.failure is None)
                or share_is_too_high
                or self._throttled
                or self._blanks >= BLANKS_THAT_CALL_FOR_A_PAUSE
            )
        ):
            await self._pause(answer, judgement, blank=blank)
        elif judgement.cause in _TELLING and self._throttled and self.pause_left is None:
            self._throttled = False
            await self._line.execute_with_retry(ledger.unthrottle)

    async def _pause(self, answer: SongstatsResponse, judgement: Judgement, *, blank: bool) -> None:
        if blank:
            why = f"Songstats gives no usable answer ({judgement.detail})"
        elif answer.retry_after is None:
            why = "Songstats answers 429 and does not say for how long"
        else:
            why = "Songstats asked for it"
        # Of a vendor that stumbles, a healthy `/status` says nothing.
        wish = partial(ledger.pause, retry_after=answer.retry_after, why=why, blank=blank)
        self.pause_left = max(await self._line.execute_with_retry(wish), self.pause_left or 0.0)

    async def _watch_the_streak(self) -> None:
        reason = streak([cause for cause, _ in self._answers]).reason
        # Again with each answer that comes down once it is open: what was in the air is as doubtful.
        if reason is not None:
            await self._open_breaker("streak", reason, self._since_stored())

    async def _watch_for_interference(self, detail: str | None = None) -> bool:
        """Open the breaker where something else keeps answering for Songstats; whether its share calls for a pause."""
        seen = interference([cause for cause, _ in self._answers])
        if seen.reason is not None:
            # No row was settled on such an answer, so none is suspect.
            await self._open_breaker("streak", f"{seen.reason} (the last: {detail})" if detail else seen.reason, [])
        return seen.calls_for_a_pause

    async def _open_breaker(self, kind: str, reason: str, suspects: list[str]) -> None:
        await self._line.execute_with_retry(partial(ledger.open_breaker, kind=kind, reason=reason, suspects=suspects))
        self.breaker_opened = self.breaker_opened or reason

    def _since_stored(self) -> list[str]:
        found = []
        for cause, song in self._answers:
            if cause == Cause.STORED:
                break
            found.append(song)
        return found
