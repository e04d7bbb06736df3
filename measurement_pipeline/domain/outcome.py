"""What one call to Songstats came to: the vocabulary shared by the parser, the queue and the ledger.

How an answer is read is `songstats/historic_stats`; what becomes of the row is `backfill_queue`.
"""

from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum


class Outcome(StrEnum):
    """What is known of a recording. The first three are `done` rows, the others `failed` ones."""

    STORED = "stored"
    NO_HISTORY = "no_history"
    REJECTED = "rejected"
    MALFORMED = "malformed"
    EXHAUSTED = "exhausted"
    TRANSIENT = "transient"


class Cause(StrEnum):
    """Why a hit was spent: the `reason` of a ledger row."""

    STORED = "stored"
    NO_HISTORY = "no history"
    REJECTED = "rejected"
    MALFORMED = "malformed"
    THROTTLED = "throttled"
    REFUSED_KEY = "refused key"
    TRANSIENT = "transient"
    TIMEOUT = "timeout: unknown"
    CRASHED = "crashed: unknown"


@dataclass(frozen=True, slots=True)
class DailyCount:
    """A cumulative count, or a level, on one day (00:00 UTC of that date)."""

    day: date
    value: int


@dataclass(frozen=True, slots=True)
class History:
    """A recording's history on one platform: each series ascending, one point a day.

    `dropped` counts the play-count points that were left out, by reason in words.
    """

    play_counts: tuple[DailyCount, ...]
    popularity: tuple[DailyCount, ...] = ()
    dropped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judgement:
    """How one answer is to be taken.

    `outcome` is None where nothing was learnt of the recording (throttled, key refused).
    `billable` is None where it is not known whether the vendor counted the hit.
    `detail` is one line for a person, free of secrets and of line breaks.
    """

    outcome: Outcome | None
    billable: bool | None
    cause: Cause
    detail: str
    history: History | None = None
