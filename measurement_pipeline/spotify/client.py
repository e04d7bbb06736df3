"""Looking tracks up at Spotify: what was found, what it does not know, and what has to wait."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from measurement_pipeline.domain.capture import Track


class CredentialsRefusedError(Exception):
    """Spotify does not take the client's id and secret. The message holds neither."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """What became of the tracks asked for: each is in exactly one of `found`, `unknown` and `deferred`.

    `found` has them by the id that was asked, which need not be the id of the track that answered. `unknown`: Spotify says
    there is none. `deferred`: not asked, or not answered; `why` says why, and `retry_after_seconds` how long Spotify asks to
    wait, where it does.
    """

    found: dict[str, Track]
    unknown: frozenset[str]
    deferred: frozenset[str]
    retry_after_seconds: float | None
    why: str | None


class SpotifyClient:
    """Looks tracks up with a client's own credentials. Sleeps at most `longest_wait_seconds` in one look-up."""

    def __init__(
        self,
        client_id: str,
        client_secret: str,
        *,
        api_base: str,
        accounts_base: str,
        timeout_seconds: float = 20,
        sleep: Callable[[float], None] = time.sleep,
        longest_wait_seconds: float = 30,
        workers: int = 8,
    ) -> None:
        raise NotImplementedError

    def look_up(self, track_ids: Sequence[str]) -> Lookup:
        """Ask for these tracks. Raises CredentialsRefusedError; whatever else goes wrong defers what is left."""
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
