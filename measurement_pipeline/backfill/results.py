"""The results of a backfill run as plain values; Dagster, the CLI and the tests each format them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Self
from uuid import UUID

from measurement_pipeline.domain.outcome import History, Outcome


class ResultKind(StrEnum):
    """What a run did with one recording."""

    SETTLED = "settled"  # bought (or parsed from a stored response) and settled as done
    ALREADY_STORED = "already stored"  # it was done before; no hit
    FAILED = "failed"  # settled as failed
    DEFERRED = "deferred"  # left for later; no verdict on the recording
    LEFT = "left"  # not this run's to touch


@dataclass(frozen=True, slots=True)
class HistorySummary:
    """What is shown of a stored history. Its points are in the database: a run of thousands must not hold them all."""

    points: int
    popularity_points: int
    dropped: Mapping[str, int]
    first_day: date
    last_day: date
    latest_count: int
    plays: str

    @classmethod
    def of(cls, history: History) -> Self:
        """The summary of a history with at least one point."""
        counts = history.play_counts
        return cls(
            points=len(counts),
            popularity_points=len(history.popularity),
            dropped=history.dropped,
            first_day=counts[0].day,
            last_day=counts[-1].day,
            latest_count=counts[-1].value,
            plays=sparkline([point.value for point in counts]),
        )


@dataclass(frozen=True, slots=True)
class RecordingResult:
    """One recording of a run. `reason` is for a person; `hit` says whether a call was spent on it in this run."""

    song: str
    kind: ResultKind
    outcome: Outcome | None = None
    reason: str | None = None
    history: HistorySummary | None = None
    status_code: int | None = None
    hit: bool = False
    digest: str | None = None
    account: UUID | None = None
    job: UUID | None = None


@dataclass(slots=True)
class RunSummary:
    """How a run ended. `stop_reason`: why it left rows unfinished. `unfinished`: song → why, in an operator's run."""

    claimed: int = 0
    calls: int = 0
    by_kind: dict[ResultKind, int] = field(default_factory=dict)
    by_outcome: dict[Outcome, int] = field(default_factory=dict)
    deferred: dict[str, int] = field(default_factory=dict)
    stop_reason: str | None = None
    breaker_reason: str | None = None
    retry_in_seconds: float | None = None
    unfinished: dict[str, str] = field(default_factory=dict)
    # Read from the database at the end of the run, so that it covers all attempts of the run.
    failed: dict[str, Outcome] = field(default_factory=dict)

    def count(self, recording: RecordingResult) -> None:
        """Add one recording to the totals."""
        self.by_kind[recording.kind] = self.by_kind.get(recording.kind, 0) + 1
        if recording.outcome is not None and recording.kind is not ResultKind.ALREADY_STORED:
            self.by_outcome[recording.outcome] = self.by_outcome.get(recording.outcome, 0) + 1
        if recording.kind is ResultKind.DEFERRED:
            reason = recording.reason or "deferred"
            self.deferred[reason] = self.deferred.get(reason, 0) + 1

    def total(self, kind: ResultKind) -> int:
        """How many recordings have this result."""
        return self.by_kind.get(kind, 0)


def sparkline(values: Mapping[date, int] | list[int], *, width: int = 24) -> str:
    """A line of block characters that shows how a count grew; empty for fewer than two values."""
    series = list(values.values()) if isinstance(values, Mapping) else values
    if len(series) < 2:
        return ""
    step = max(1, len(series) // width)
    gains = [max(0, b - a) for a, b in zip(series[::step], series[step::step], strict=False)] or [0]
    top = max(gains) or 1
    return "".join("▁▂▃▄▅▆▇█"[gain * 7 // top] for gain in gains)
