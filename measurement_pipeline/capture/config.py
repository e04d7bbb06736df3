"""Configuration and dependencies of captures."""

from collections.abc import Callable
from dataclasses import dataclass, field

from measurement_pipeline.domain.capture import CaptureLimits
from measurement_pipeline.vendors.apify.client import ApifyClient
from measurement_pipeline.vendors.spotify.client import SpotifyClient


@dataclass(frozen=True, slots=True)
class CaptureConfig:
    """Limits of captures.

    `start_timeout_seconds`: timeout of the request that starts the actor. `max_wait_seconds`: how long one run waits for the
    actor before it frees its slot. `result_settle_seconds`: how long a result may lack its last items, and their count too.
    `database_retry_seconds`: how long errors of an unavailable or read-only database are retried.
    """

    database_url: str = field(repr=False)
    limits: CaptureLimits
    claim_timeout_seconds: float
    max_attempts: int
    heartbeat_seconds: float = 10.0
    poll_seconds: float = 20.0
    start_timeout_seconds: float = 30.0
    max_wait_seconds: float = 120.0
    result_settle_seconds: float = 10.0
    max_concurrent_chunks: int = 4
    database_retry_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class CaptureDependencies:
    """New connections to the vendors. Without `new_spotify`, tracks that are not known yet stay unmapped."""

    new_actor: Callable[[], ApifyClient] = field(repr=False)
    new_spotify: Callable[[], SpotifyClient] | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class CaptureServices:
    """Configuration and dependencies of a deployment that makes captures."""

    config: CaptureConfig
    dependencies: CaptureDependencies
