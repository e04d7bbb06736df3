"""What a deployment consists of. Apart from `resources`, so that the HTTP API, which uses it too, does not load Dagster."""

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from uuid import UUID

from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.backfill.run import BackfillDependencies
from measurement_pipeline.capture.config import CaptureServices
from measurement_pipeline.domain.payment import Decision


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What a deployment consists of, as the composition makes it. `resource_definitions` hands it out in parts."""

    terms: BackfillConfig
    means: BackfillDependencies = field(repr=False)
    decide: Callable[[UUID], Decision] = field(repr=False)
    # Raises where the database is not this deployment's own; asked at the start of every tick and op, answered once.
    require_own_database: Callable[[], None] = field(repr=False, default=lambda: None)
    # None: this deployment captures nothing.
    captures: CaptureServices | None = field(repr=False, default=None)
    silence_alarm_hours: float = field(repr=False, default=6.0)
    # Tells a person one message. None: there is no webhook.
    post_alert: Callable[[str], None] | None = field(repr=False, default=None)

    @property
    def cap_usd(self) -> Decimal | None:
        """What captures may cost an account in a month; None: none are made here."""
        return None if self.captures is None else self.captures.config.cap_usd
