"""An operator's pause of purchases: what it stops, until when and why. Pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from measurement_pipeline.domain.text import utc_minute

MAX_REASON_LENGTH = 500


class PausableVendor(StrEnum):
    """A vendor that costs money for each call."""

    SONGSTATS = "songstats"
    APIFY = "apify"


@dataclass(frozen=True, slots=True)
class PauseScope:
    """What a pause stops: the purchases of one account, those from one vendor, or, with neither, all of them."""

    account: UUID | None = None
    vendor: PausableVendor | None = None

    def __str__(self) -> str:
        if self.account is not None:
            return f"purchases of account {self.account}"
        return "all purchases" if self.vendor is None else f"purchases from {self.vendor.value.capitalize()}"

    @property
    def options(self) -> str:
        """The options of `pause` and `resume` that name this scope."""
        if self.account is not None:
            return f" --account {self.account}"
        return "" if self.vendor is None else f" --vendor {self.vendor.value}"


@dataclass(frozen=True, slots=True)
class PurchasePause:
    """One pause. `paused_until` None: it lasts until it is resumed."""

    scope: PauseScope
    reason: str
    paused_by: str
    paused_at: datetime
    paused_until: datetime | None

    @property
    def cause(self) -> str:
        """One sentence: what is paused, by whom, until when and why."""
        end = "until it is resumed" if self.paused_until is None else f"until {utc_minute(self.paused_until)}"
        what = str(self.scope)
        return f"{what[0].upper()}{what[1:]} paused by {self.paused_by} {end}: {self.reason}."

    @property
    def next_step(self) -> str:
        """How it ends."""
        resume = f"`measurement-pipeline resume{self.scope.options}`"
        return f"{resume} ends the pause{'' if self.paused_until is None else ' earlier'}."
