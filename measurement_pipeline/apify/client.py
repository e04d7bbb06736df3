"""Runs of the actor that reads Spotify's play counts: start one, look at it, find a lost one, fetch what it found."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import TracebackType
from typing import Self

ACTOR = "beatanalytics~spotify-play-count-scraper"


class RunStatus(StrEnum):
    """Where a run of an actor stands, in Apify's own words."""

    READY = "READY"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMING_OUT = "TIMING-OUT"
    TIMED_OUT = "TIMED-OUT"
    ABORTING = "ABORTING"
    ABORTED = "ABORTED"

    @property
    def ended(self) -> bool:
        """Whether it will change no more."""
        return self in {RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.TIMED_OUT, RunStatus.ABORTED}

    @property
    def succeeded(self) -> bool:
        """Whether its items are all that it was asked for."""
        return self is RunStatus.SUCCEEDED


@dataclass(frozen=True, slots=True)
class ActorRun:
    """One run of the actor, as it stood when it was looked at. `message` is the actor's own word on how it goes."""

    id: str
    status: RunStatus
    message: str | None
    dataset_id: str | None
    started_at: datetime | None
    finished_at: datetime | None


class ApifyActor:
    """One actor, run with one token. Every method raises an ApifyError where there is no answer that serves.

    Raises ValueError, which never holds the token, where a setting cannot be used.
    """

    def __init__(self, token: str, *, base_url: str, timeout_seconds: float = 30, actor: str = ACTOR) -> None:
        raise NotImplementedError

    def start(self, album_ids: Sequence[str]) -> ActorRun:
        """Start a run for these albums: one request, never repeated here, since each one that arrives is paid for."""
        raise NotImplementedError

    def look(self, run_id: str, *, wait_seconds: float = 0) -> ActorRun:
        """A run as it stands, or as it ends within `wait_seconds`. Free."""
        raise NotImplementedError

    def find(self, album_ids: Sequence[str], *, since: datetime) -> ActorRun | None:
        """The newest run that was started since then for just these albums, or None where there is none."""
        raise NotImplementedError

    def result(self, run: ActorRun) -> bytes:
        """The items of a run, whole and as received. Raises UnavailableError where some are not there yet."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the connections."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
