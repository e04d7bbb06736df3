"""Result of a health check, as passed to Dagster and to the incidents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_MAX_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class HealthResult:
    """Result of one check.

    `message` states the result and, if the check fails, the next step. `reason` is a short, stable name of the cause; if the
    check passes, of a cause that may make it fail later. `should_alert`: the problem does not end by itself, so alert a person.
    """

    passed: bool
    message: str
    should_alert: bool = False
    reason: str = ""
    metadata: Mapping[str, int | float | str] = field(default_factory=dict)


def format_examples(texts: Sequence[str]) -> str:
    """Return the first few texts, and an ellipsis if there are more."""
    return ", ".join(texts[:_MAX_EXAMPLES]) + (", …" if len(texts) > _MAX_EXAMPLES else "")
