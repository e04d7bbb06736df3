"""On what terms captures are made, and by what means: handed in by whoever starts it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

from measurement_pipeline.vendors.apify.client import ApifyClient
from measurement_pipeline.vendors.spotify.client import SpotifyClient


@dataclass(frozen=True, slots=True)
class CaptureConfig:
    """`cap_usd` is an account's, of a calendar month (UTC).

    `start_seconds`: how long the answer to a start is waited for. `patience_seconds`: how long one run waits for the actor, until
    others have its slot. `settling_seconds`: a result may lack its last items for so long, and the number of them too.
    """

    database_url: str = field(repr=False)
    cap_usd: Decimal
    claim_timeout_seconds: float
    max_attempts: int
    heartbeat_seconds: float = 10.0
    poll_seconds: float = 20.0
    start_timeout_seconds: float = 30.0
    max_wait_seconds: float = 120.0
    result_settle_seconds: float = 10.0
    max_concurrent_chunks: int = 4
    # How long errors of a database that is away, or read-only, are outlasted.
    database_retry_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class CaptureDependencies:
    """New connections to the vendors. `new_spotify` None: tracks that are not known yet stay unmapped."""

    new_actor: Callable[[], ApifyClient] = field(repr=False)
    new_spotify: Callable[[], SpotifyClient] | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class CaptureServices:
    """Terms and means of a deployment that captures."""

    config: CaptureConfig
    dependencies: CaptureDependencies
