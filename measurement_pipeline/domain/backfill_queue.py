"""The rules of the backfill queue: row states, what a response does to a row, retries, pauses and the circuit breaker. Pure.

What may be claimed is SQL (`postgres/backfill_queue.sql`), because it must be decided under a lock. `plan`
selects the rows of the next runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from measurement_pipeline.domain.backoff import exponential_backoff
from measurement_pipeline.domain.outcome import Cause, DailyCount, Judgement, Outcome


class Status(StrEnum):
    """The state of a row. `done`, and `failed` with `malformed` or `exhausted`, are settled."""

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

# So many rejected or malformed responses, or responses without a history, and none stored between: the breaker opens.
REJECTIONS_BEFORE_BREAKER = 5
NO_HISTORIES_BEFORE_BREAKER = 25

# The failure text of a run that opened the breaker begins so; its incident is recognised by it.
BREAKER_OPENED = "the breaker opened: "

# So many unusable responses in a row (none, or the vendor's own error) pause the deployment.
UNUSABLE_BEFORE_PAUSE = 5

# The cause of a response that is not Songstats' own, or of a 403 that `/status` does not explain.
FOREIGN = "foreign"
# So many foreign responses among the last FOREIGN_WINDOW pause the deployment.
FOREIGN_BEFORE_PAUSE = 5
FOREIGN_WINDOW = 40
# So many separate episodes of foreign responses among the last CAUSES_READ open the breaker.
FOREIGN_EPISODES_BEFORE_BREAKER = 10
CAUSES_READ = 100

# The longest wait inside a run; a longer one ends the run, and the planner continues later.
MAX_WAIT_IN_RUN_SECONDS = 30.0

_FIRST_BACKOFF_SECONDS = 60.0
MAX_BACKOFF_SECONDS = 6 * 3600.0
_FIRST_PAUSE_SECONDS = 5.0
_MAX_GUESSED_PAUSE_SECONDS = 900.0
# `Retry-After: 2592000` has been seen: no call would have been made for 30 days.
MAX_PAUSE_WITHOUT_PROBE_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class QueueRules:
    """What decides whether a row is due, beside the row itself: the same for all processes of a deployment."""

    claim_timeout_seconds: float
    max_attempts: int
    operators_account: UUID | None


@dataclass(frozen=True, slots=True)
class DueRow:
    """A row that may be bought now. `waiting_since` is its age in the queue. `account`: who pays; None: it needs no hit."""

    song: str
    rank_score: int
    waiting_since: datetime
    account: UUID | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A row that this run owns under `lease` as long as it renews its heartbeat."""

    song: str
    lease: int
    attempts: int
    unread_response: int | None
    has_history: bool


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A row as a run reads it. `is_alive`: in progress, and its owner still renews it."""

    song: str
    status: Status
    outcome: Outcome | None
    claimed_by: str | None
    not_before: datetime | None
    last_error: str | None
    is_alive: bool


@dataclass(frozen=True, slots=True)
class Settlement:
    """The new state of a row. `not_before_seconds`: wait by the database's clock; None: due at once.

    `attempt_back`: the attempt does not count, because the row was not the cause.
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
    """The settlement of a row after one response.

    `attempts` counts this one. `retry_soon_seconds`: the run itself retries after this time. None: it does not, and the row waits
    for a backoff that doubles with each attempt.
    """
    if judgement.outcome is None:
        # The response says nothing of the recording. A pause or the breaker, not the row, prevents an immediate retry.
        wait = None
        if judgement.cause is Cause.TRANSIENT:
            # Something other than Songstats may answer for this recording alone. Then no pause follows, so the row waits.
            wait = backoff_seconds(1) if retry_soon_seconds is None else retry_soon_seconds
        return Settlement(Status.PENDING, None, not_before_seconds=wait, attempt_back=True)
    if judgement.outcome is not Outcome.TRANSIENT:
        return Settlement(STATUS_OF_OUTCOME[judgement.outcome], judgement.outcome)
    if retry_soon_seconds is not None:
        # The same run tries again, and a run counts one attempt, so the cap does not apply yet.
        return Settlement(Status.PENDING, None, not_before_seconds=retry_soon_seconds)
    if attempts >= max_attempts:
        return Settlement(Status.FAILED, Outcome.EXHAUSTED)
    return Settlement(Status.PENDING, None, not_before_seconds=backoff_seconds(attempts))


def backoff_seconds(attempts: int) -> float:
    """How long a row waits after this many runs without a response: 1 min, 2, 4, … up to 6 h."""
    return exponential_backoff(attempts - 1, first_seconds=_FIRST_BACKOFF_SECONDS, max_seconds=MAX_BACKOFF_SECONDS)


def max_call_lead_seconds(requests_per_second: float) -> float:
    """How far ahead a call slot can be taken at this pace: the longest wait of a run, and a batch of calls."""
    return MAX_WAIT_IN_RUN_SECONDS + (max(1.0, 1 / requests_per_second) if requests_per_second else 0.0)


def seconds_before_probe(pause: float, *, retry_after: float | None, is_guess: bool) -> float:
    """How long a pause lasts before `GET /status` may end it.

    `retry_after` is a floor for one day. Without that limit one response could stop all purchases for weeks. The part of a pause
    that is a guess may be probed at once.
    """
    minimum = (retry_after or 0.0) if is_guess else pause
    return min(minimum, MAX_PAUSE_WITHOUT_PROBE_SECONDS)


def pause_seconds(retry_after: float | None, *, pauses_before: int) -> float:
    """How long the deployment pauses: `retry_after`, or 5 s doubling to 15 min.

    After pauses without a response between them (`pauses_before`), `retry_after` is only a floor: it was not enough before.
    """
    guess = exponential_backoff(
        pauses_before, first_seconds=_FIRST_PAUSE_SECONDS, max_seconds=_MAX_GUESSED_PAUSE_SECONDS
    )
    if retry_after is None:
        return guess
    return max(retry_after, guess) if pauses_before else retry_after


@dataclass(frozen=True, slots=True)
class Streak:
    """The responses since the last stored history: the evidence against the key or the vendor."""

    rejections: int = 0
    no_histories: int = 0

    @property
    def reason(self) -> str | None:
        """Why the breaker opens, or None."""
        if self.rejections >= REJECTIONS_BEFORE_BREAKER:
            count = f"{self.rejections} rejected or malformed responses"
        elif self.no_histories >= NO_HISTORIES_BEFORE_BREAKER:
            count = f"{self.no_histories} responses without a history"
        else:
            return None
        return f"{count} and not one stored between: the key or the vendor changed, not the recordings"


def count_streak(causes: Sequence[str]) -> Streak:
    """The streak in the ledger's `causes`, latest first."""
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

    `recent` counts foreign responses among the last FOREIGN_WINDOW. `episodes` counts their runs among the last CAUSES_READ: an
    outage of any length is one episode, and a lasting share of foreign responses makes many.
    """

    recent: int = 0
    episodes: int = 0

    @property
    def needs_pause(self) -> bool:
        """Whether the share of foreign responses is too high to continue."""
        return self.recent >= FOREIGN_BEFORE_PAUSE

    @property
    def reason(self) -> str | None:
        """Why the breaker opens, or None."""
        if self.episodes < FOREIGN_EPISODES_BEFORE_BREAKER:
            return None
        return (
            f"something other than Songstats answered {self.episodes} separate times within the last {CAUSES_READ} responses: "
            "look for a CDN challenge, a proxy or a captive portal between this machine and Songstats"
        )


def count_interference(causes: Sequence[str]) -> Interference:
    """How often something other than Songstats answered, from `causes`, latest first."""
    read = causes[:CAUSES_READ]
    starts = sum(
        cause == FOREIGN and (place + 1 == len(read) or read[place + 1] != FOREIGN) for place, cause in enumerate(read)
    )
    return Interference(recent=read[:FOREIGN_WINDOW].count(FOREIGN), episodes=starts)


def max_calls_in_flight(
    streak: Streak, *, has_stored: bool, concurrency: int, unusable: int = 0, is_after_pause: bool = False
) -> int:
    """How many calls may be in flight at once.

    Until a history has been stored (`has_stored`), and during a streak, no more calls are in flight than the streak has left. So
    a wrong key costs exactly as many hits as open the breaker, whatever the concurrency. The same holds for `unusable` responses
    in a row. After a pause (`is_after_pause`) a single call tests whether the pause was enough.
    """
    if is_after_pause:
        concurrency = 1
    slots = NO_HISTORIES_BEFORE_BREAKER - streak.no_histories
    if unusable:
        slots = min(slots, UNUSABLE_BEFORE_PAUSE - unusable)
    if not has_stored or streak.rejections:
        slots = min(slots, REJECTIONS_BEFORE_BREAKER - streak.rejections)
    return max(0, min(concurrency, slots))
