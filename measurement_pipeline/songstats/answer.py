"""What came back from one call to Songstats, or how it failed to.

Plain values: no I/O and no clock. What an answer means is `historic_stats`; making the call is
`client`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from measurement_pipeline import outbound


class Failure(StrEnum):
    """How a call ended without a complete answer."""

    TIMEOUT = "timeout"
    """The time allowed for the whole call ran out, connecting included."""
    UNREACHED = "unreached"
    """No connection could be made (refused, no such host, no route): nothing was sent."""
    CONNECTION = "connection"
    """Reset or closed before a status line came, or something that is not HTTP."""
    INCOMPLETE = "incomplete"
    """A status line came, but the body was cut short: length, chunking, gzip, or our own limit."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One call's answer.

    `status_code` is None where no status line came; it is set beside a `failure` where only the
    body was lost. `headers` have lower-case names and hold no credentials. `body` is decoded and
    complete, or empty after a failure. `detail` is one line for a person about the failure. Raises
    ValueError where there is neither status nor failure.
    """

    status_code: int | None
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    failure: Failure | None = None
    detail: str = ""

    def __post_init__(self) -> None:
        if self.status_code is None and self.failure is None:
            raise ValueError("an answer without a status code needs a failure that says why")

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait as the vendor asks, 0 to 30 days; None where it asks nothing readable."""
        return outbound.retry_after(self.headers)
