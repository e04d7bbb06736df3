"""What ops and sensors are handed: one object, made by the composition root from the settings.

It is a plain object and no `ConfigurableResource`, on purpose: the values of those are shown on the UI's resource page and kept
in run records, and two of them are secrets.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from uuid import UUID

from measurement_pipeline.backfill.run import Means
from measurement_pipeline.backfill.terms import Terms
from measurement_pipeline.capture.terms import Captures
from measurement_pipeline.domain.payment import Decision


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The money path's terms and means, and the question that is put to Stripe."""

    terms: Terms
    means: Means = field(repr=False)
    decide: Callable[[UUID], Decision] = field(repr=False)
    # Raises where the database is not this deployment's own; asked at the start of every tick and op, answered once.
    require_own_database: Callable[[], None] = field(repr=False, default=lambda: None)
    # None: this deployment captures nothing.
    captures: Captures | None = field(repr=False, default=None)
    silence_alarm_hours: float = field(repr=False, default=6.0)
    # Tells a person one message. None: there is no webhook.
    post_alert: Callable[[str], None] | None = field(repr=False, default=None)

    @property
    def cap_usd(self) -> Decimal | None:
        """What captures may cost an account in a month; None: none are made here."""
        return None if self.captures is None else self.captures.terms.cap_usd
