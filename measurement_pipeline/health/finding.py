"""What a check comes to: the one shape that the checks' rooms hand to Dagster and to the incidents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """How one check stands.

    `words` say it and, where it does not pass, what to do. `reason` names why in a word or two, the same for as long as it is the
    same; of one that passes, what may yet keep it from doing so. `serious`: it will not pass by itself, so a person is told.
    """

    passed: bool
    words: str
    serious: bool = False
    reason: str = ""
    figures: Mapping[str, int | float | str] = field(default_factory=dict)


def at(moment: datetime) -> str:
    """A moment as people read it here."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def examples(found: Sequence[str]) -> str:
    """The first few of many."""
    return ", ".join(found[:_EXAMPLES]) + (", …" if len(found) > _EXAMPLES else "")
