"""What the API is handed: one object, made by the composition root from the settings. Plain values and means, no behaviour."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from uuid import UUID

from measurement_pipeline.domain.payment import Decision


@dataclass(frozen=True, slots=True)
class JwtConfig:
    """Whose tokens are taken: exactly one of `jwks_url` and `secret` says what their signatures are checked with."""

    issuer: str
    audience: str
    algorithm: str
    jwks_url: str | None = None
    secret: str | None = field(repr=False, default=None)


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """The API's terms and means.

    `decide` is the question that is put to Stripe. `cap_usd` None: no captures are made here. `bearer` None: tokens are not
    taken. `requests_per_minute` of one account; 0: no limit. `answer_within_seconds`: a POST that takes longer is answered
    without the figures, and goes on.
    """

    database_url: str = field(repr=False)
    decide: Callable[[UUID], Decision] = field(repr=False)
    key_secret: str = field(repr=False)
    cap_usd: Decimal | None = None
    hits_allowed: int = 0
    eur_per_hit: float = 0.0
    bearer: JwtConfig | None = None
    cors_origins: Sequence[str] = ()
    requests_per_minute: int = 0
    answer_within_seconds: float = 4.0
    read_within_seconds: float = 10.0
    body_within_seconds: float = 20.0
    database_within_seconds: float = 5.0
