"""What came back from one call to Songstats, or how it failed to.

Plain values: no I/O and no clock. What an answer means is `historic_stats`; making the call is
`client`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from measurement_pipeline.vendors import http


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
    FOREIGN = "not Songstats' own answer"
    """A whole answer that something else gave: a CDN's challenge, a proxy's error page, a captive portal."""


@dataclass(frozen=True, slots=True)
class SongstatsResponse:
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

    @classmethod
    def received(cls, status_code: int, headers: Mapping[str, str], body: bytes) -> Self:
        """The answer as received, or a FOREIGN failure without its body. The body must not contain the key."""
        foreign = http.describe_foreign_response(status_code, headers, body, is_vendor_error=_is_songstats_error)
        if foreign is not None:
            return cls(status_code, headers, b"", Failure.FOREIGN, foreign)
        return cls(status_code, headers, body)

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait as the vendor asks, 0 to 30 days; None where it asks nothing readable."""
        return http.parse_retry_after(self.headers)


def _is_songstats_error(value: object) -> bool:
    """Songstats' errors are `{"result": "error", "message": "…"}`."""
    if not isinstance(value, dict):
        return False
    result, message = value.get("result"), value.get("message")
    return isinstance(result, str) and result.strip().lower() == "error" and isinstance(message, str)
