"""What the deployment knows of Songstats before a call: breaker, pauses and hit budget. Pure."""

from dataclasses import dataclass
from datetime import datetime

from measurement_pipeline.domain.purchase_pause import PurchasePause


@dataclass(frozen=True, slots=True)
class VendorState:
    """Breaker and pause of the deployment. `pause_seconds_left` is 0 without a pause.

    `pauses_in_a_row`: pauses without a response between them. `is_probe_allowed`: the rest of the pause is our own guess, so
    `GET /status` may end it. `operator_pause`: the pause that an operator began, which stops every call.
    """

    breaker: str
    breaker_kind: str | None
    reason: str | None
    opened_at: datetime | None
    paused_until: datetime | None
    pause_reason: str | None
    is_probe_allowed: bool
    pause_seconds_left: float
    pauses_in_a_row: int
    now: datetime
    operator_pause: PurchasePause | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """Hits of the last 30 days against those allowed (limit − reserve)."""

    allowed: int
    hits: int
    in_flight: int
    calls_ever: int
    next_hit_frees_at: datetime | None

    @property
    def left(self) -> int:
        """Hits that may be spent now."""
        return max(0, self.allowed - self.hits)
