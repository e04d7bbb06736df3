"""The rules of a queue row: its states, what one answer makes of it, how long it waits, and when trust ends.

What may be claimed is SQL (`postgres/backfill_queue.sql`), because it must be decided under a lock; which rows to ask
for is `plan`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from measurement_pipeline.domain.outcome import Cause, DailyCount, Judgement, Outcome


class Status(StrEnum):
    """Where a row stands. `done` and `failed` with `malformed` or `exhausted` are settled."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    DONE = "done"
    FAILED = "failed"


STATUS_OF_OUTCOME = {
    Outcome.STORED: Status.DONE,
    Outcome.NO_HISTORY: Status.DONE,
    Outcome.REJECTED: Status.DONE,
    Outcome.MALFORMED: Status.FAILED,
    Outcome.EXHAUSTED: Status.FAILED,
    Outcome.TRANSIENT: Status.FAILED,
}

# Rejected or malformed answers, then no-history answers, that may come without one stored between before trust ends.
REJECTIONS_BEFORE_BREAKER = 5
NO_HISTORIES_BEFORE_BREAKER = 25

# How the failure of a run that opened the breaker begins, by which its incident is known again.
BREAKER_OPENED = "the breaker opened: "

# Answers in a row that tell nothing (no answer, or the vendor's own error) before the deployment stays away for a while.
UNUSABLE_BEFORE_PAUSE = 5

# How an answer that is not Songstats' own (or a 403 that `/status` does not explain) is named among the causes.
FOREIGN = "foreign"
# Of the last FOREIGN_WINDOW answers, so many that are not Songstats' own make the deployment pause.
FOREIGN_BEFORE_PAUSE = 5
FOREIGN_WINDOW = 40
# Songstats' own answers came back, and then others again: so many times within the answers read open the breaker.
FOREIGN_EPISODES_BEFORE_BREAKER = 10
CAUSES_READ = 100

# What may be waited for inside a run; anything longer ends the run and is the planner's to take up again.
MAX_WAIT_IN_RUN_SECONDS = 30.0

_FIRST_BACKOFF_SECONDS = 60.0
MAX_BACKOFF_SECONDS = 6 * 3600.0
_FIRST_PAUSE_SECONDS = 5.0
_MAX_GUESSED_PAUSE_SECONDS = 900.0
# `Retry-After: 2592000` has been seen: for 30 days nobody would have asked again.
MAX_PAUSE_WITHOUT_PROBE_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class QueueRules:
    """What decides whether a row is due, beside the row: the same for all processes of a deployment."""

    claim_timeout_seconds: float
    max_attempts: int
    operators_account: UUID | None


@dataclass(frozen=True, slots=True)
class DueRow:
    """A row that may be bought now. `waiting_since` is its age in the queue."""

    song: str
    rank_score: int
    waiting_since: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """A row that this run owns as long as it beats, under `lease`."""

    song: str
    lease: int
    attempts: int
    unread_response: int | None
    has_history: bool


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A row as a run finds it. `alive`: in progress, and its owner beats."""

    song: str
    status: Status
    outcome: Outcome | None
    claimed_by: str | None
    not_before: datetime | None
    last_error: str | None
    is_alive: bool


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a row becomes. `not_before_seconds` counts from the database's clock; None: due at once.

    `attempt_back` gives the attempt back: the row was not to blame.
    """

    status: Status
    outcome: Outcome | None
    not_before_seconds: float | None = None
    attempt_back: bool = False


@dataclass(frozen=True, slots=True)
class SettledRow:
    """One row's change, and the measurements that commit with it."""

    claim: Claim
    settlement: Settlement
    cause: Cause | None = None
    status_code: int | None = None
    error: str | None = None
    response_id: int | None = None
    play_counts: Sequence[DailyCount] = ()
    popularity: Sequence[DailyCount] = ()


def settle(judgement: Judgement, *, attempts: int, max_attempts: int, retry_soon_seconds: float | None) -> Settlement:
    """What one answer makes of its row.

    `attempts` counts this one. `retry_soon_seconds`: the run itself will come back in so many seconds; None once it
    will not, and the row waits out a backoff that doubles with each attempt.
    """
    if judgement.outcome is None:
        # Nothing was learnt of the recording. A pause or the breaker, not the row, keeps it from being asked at once.
        wait = None
        if judgement.cause is Cause.TRANSIENT:
            # Something other than Songstats may answer for this recording alone: then no pause follows, so the row waits.
            wait = backoff_seconds(1) if retry_soon_seconds is None else retry_soon_seconds
        return Settlement(Status.PENDING, None, not_before_seconds=wait, attempt_back=True)
    if judgement.outcome is not Outcome.TRANSIENT:
        return Settlement(STATUS_OF_OUTCOME[judgement.outcome], judgement.outcome)
    if retry_soon_seconds is not None:
        # The same run tries again, and a run counts one attempt: the cap is not asked yet.
        return Settlement(Status.PENDING, None, not_before_seconds=retry_soon_seconds)
    if attempts >= max_attempts:
        return Settlement(Status.FAILED, Outcome.EXHAUSTED)
    return Settlement(Status.PENDING, None, not_before_seconds=backoff_seconds(attempts))


def backoff_seconds(attempts: int) -> float:
    """How long a row waits after so many runs failed to get an answer for it: 1 min, 2, 4, … up to 6 h."""
    return float(min(_FIRST_BACKOFF_SECONDS * 2 ** (max(attempts, 1) - 1), MAX_BACKOFF_SECONDS))


def max_call_lead_seconds(requests_per_second: float) -> float:
    """How far ahead a call can be booked at this pace: the longest wait of a run for its first call, and a batch of calls."""
    return MAX_WAIT_IN_RUN_SECONDS + (max(1.0, 1 / requests_per_second) if requests_per_second else 0.0)


def seconds_before_probe(pause: float, *, retry_after: float | None, is_guess: bool) -> float:
    """How long a pause of so many seconds is kept before `GET /status` may end it.

    What the vendor asked for (`retry_after`) is a floor for a day: a longer one would stop all buying for as long as one answer
    says so, and is tested once a day. A pause that is a guess beyond `retry_after` is tested from there on.
    """
    kept = (retry_after or 0.0) if is_guess else pause
    return min(kept, MAX_PAUSE_WITHOUT_PROBE_SECONDS)


def pause_seconds(retry_after: float | None, *, pauses_before: int) -> float:
    """How long the deployment stays away after a 429: what the vendor says, else 5 s doubling to 15 min.

    A `retry_after` that was waited out in vain (`pauses_before`: pauses without an answer between) is still a floor,
    but no longer believed to be enough.
    """
    guess = float(min(_FIRST_PAUSE_SECONDS * 2 ** min(pauses_before, 10), _MAX_GUESSED_PAUSE_SECONDS))
    if retry_after is None:
        return guess
    return max(retry_after, guess) if pauses_before else retry_after


@dataclass(frozen=True, slots=True)
class Streak:
    """What has come back since the last stored history: the evidence against the key or the vendor."""

    rejections: int = 0
    no_histories: int = 0

    @property
    def reason(self) -> str | None:
        """Why trust has ended, or None while it has not."""
        if self.rejections >= REJECTIONS_BEFORE_BREAKER:
            seen = f"{self.rejections} rejected or malformed answers"
        elif self.no_histories >= NO_HISTORIES_BEFORE_BREAKER:
            seen = f"{self.no_histories} answers without a history"
        else:
            return None
        return f"{seen} and not one stored between: the key or the vendor changed, not the recordings"


def count_streak(causes: Sequence[str]) -> Streak:
    """The streak in `causes`, the latest first, as the ledger tells them."""
    rejections = no_histories = 0
    for cause in causes:
        if cause == Cause.STORED:
            break
        rejections += cause in {Cause.REJECTED, Cause.MALFORMED}
        no_histories += cause == Cause.NO_HISTORY
    return Streak(rejections, no_histories)


@dataclass(frozen=True, slots=True)
class Interference:
    """How often something other than Songstats answered.

    `recent` counts the last FOREIGN_WINDOW answers. `episodes` counts runs of such answers among the last CAUSES_READ: an outage
    of any length is one episode, and a lasting share of such answers makes many.
    """

    recent: int = 0
    episodes: int = 0

    @property
    def needs_pause(self) -> bool:
        """Whether the share of such answers is too high to go on."""
        return self.recent >= FOREIGN_BEFORE_PAUSE

    @property
    def reason(self) -> str | None:
        """Why the breaker opens, or None."""
        if self.episodes < FOREIGN_EPISODES_BEFORE_BREAKER:
            return None
        return (
            f"something other than Songstats answered {self.episodes} separate times within the last {CAUSES_READ} answers: look "
            "for a CDN challenge, a proxy or a captive portal between this machine and Songstats"
        )


def count_interference(causes: Sequence[str]) -> Interference:
    """How often something other than Songstats answered, from `causes`, the latest first."""
    read = causes[:CAUSES_READ]
    starts = sum(
        cause == FOREIGN and (place + 1 == len(read) or read[place + 1] != FOREIGN) for place, cause in enumerate(read)
    )
    return Interference(recent=read[:FOREIGN_WINDOW].count(FOREIGN), episodes=starts)


def max_calls_in_flight(
    streak: Streak, *, has_stored: bool, concurrency: int, unusable: int = 0, is_after_pause: bool = False
) -> int:
    """How many calls may be under way at once.

    Until a history has been stored (`has_stored`), and while a streak is under way, no more are in the air than the streak
    has left to go: a wrong key costs exactly as many hits as it takes to open the breaker, whatever the concurrency. The
    same goes for `unusable`, the answers in a row that told nothing. After a pause (`is_after_pause`) one call asks for all
    whether it is over.
    """
    if is_after_pause:
        concurrency = 1
    room = NO_HISTORIES_BEFORE_BREAKER - streak.no_histories
    if unusable:
        room = min(room, UNUSABLE_BEFORE_PAUSE - unusable)
    if not has_stored or streak.rejections:
        room = min(room, REJECTIONS_BEFORE_BREAKER - streak.rejections)
    return max(0, min(concurrency, room))
