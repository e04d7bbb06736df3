"""The outcome of one call to Songstats: records that the parser, the queue and the ledger share. Pure.

`vendors/songstats/historic_stats` parses a response; `backfill_queue` decides what becomes of the row.
"""

from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import NamedTuple


class Outcome(StrEnum):
    """What a settled row says of its recording. The first three belong to `done` rows, the others to `failed` ones."""

    STORED = "stored"
    NO_HISTORY = "no_history"
    REJECTED = "rejected"
    MALFORMED = "malformed"
    EXHAUSTED = "exhausted"
    TRANSIENT = "transient"


class Cause(StrEnum):
    """The result of a call: the `reason` of its ledger row."""

    STORED = "stored"
    NO_HISTORY = "no history"
    REJECTED = "rejected"
    MALFORMED = "malformed"
    THROTTLED = "throttled"
    REFUSED_KEY = "refused key"
    TRANSIENT = "transient"
    TIMEOUT = "timeout: unknown"
    CRASHED = "crashed: unknown"


class DailyCount(NamedTuple):
    """A cumulative count, or a level, on one day (00:00 UTC of that date).

    A tuple, because a history has hundreds of them and a frozen dataclass takes three times as long to create.
    """

    day: date
    value: int


@dataclass(frozen=True, slots=True)
class History:
    """A recording's history on one platform: each series ascending, one point a day.

    `dropped` counts the unusable play-count points by reason.
    """

    play_counts: tuple[DailyCount, ...]
    popularity: tuple[DailyCount, ...] = ()
    dropped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one response means.

    `outcome` is None if it says nothing of the recording (throttled, key refused).
    `billable` is None if it is unknown whether the vendor counted the hit.
    `detail` is one line for a person, without secrets or line breaks.
    """

    outcome: Outcome | None
    billable: bool | None
    cause: Cause
    detail: str
    history: History | None = None
