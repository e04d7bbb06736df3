"""What a check comes to: the one shape that the checks' rooms hand to Dagster and to the incidents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

_MAX_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class HealthResult:
    """How one check stands.

    `words` say it and, where it does not pass, what to do. `reason` names why in a word or two, the same for as long as it is the
    same; of one that passes, what may yet keep it from doing so. `serious`: it will not pass by itself, so a person is told.
    """

    passed: bool
    message: str
    should_alert: bool = False
    reason: str = ""
    metadata: Mapping[str, int | float | str] = field(default_factory=dict)


def format_minute(moment: datetime) -> str:
    """A moment as people read it here."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def format_examples(found: Sequence[str]) -> str:
    """The first few of many."""
    return ", ".join(found[:_MAX_EXAMPLES]) + (", …" if len(found) > _MAX_EXAMPLES else "")
