"""Configuration and dependencies of the HTTP API. `services.py` creates them from the settings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from measurement_pipeline.domain.capture import CaptureLimits
from measurement_pipeline.domain.payment import Decision


@dataclass(frozen=True, slots=True)
class JwtConfig:
    """Accepted issuer, audience and algorithm of bearer tokens. Exactly one of `jwks_url` and `secret` verifies signatures."""

    issuer: str
    audience: str
    algorithm: str
    jwks_url: str | None = None
    secret: str | None = field(repr=False, default=None)


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """Configuration and dependencies of the HTTP API.

    `decide` asks Stripe whether an account has a valid card. `capture_limits` None: captures are disabled. `bearer` None: bearer
    tokens are not accepted. `requests_per_minute` applies to each account; 0 means no limit. A POST that takes longer than
    `answer_within_seconds` gets an answer without the counts, and its processing continues.
    """

    database_url: str = field(repr=False)
    decide: Callable[[UUID], Decision] = field(repr=False)
    key_secret: str = field(repr=False)
    capture_limits: CaptureLimits | None = None
    hits_allowed: int = 0
    eur_per_hit: float = 0.0
    requests_per_second: float = 0.0
    bearer: JwtConfig | None = None
    cors_origins: Sequence[str] = ()
    requests_per_minute: int = 0
    answer_within_seconds: float = 4.0
    read_within_seconds: float = 10.0
    body_within_seconds: float = 20.0
    database_within_seconds: float = 5.0
