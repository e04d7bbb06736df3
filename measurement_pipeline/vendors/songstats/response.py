"""The result of one Songstats call: a response or a failure.

Plain values, without I/O and clock. `client` makes the call, `historic_stats` classifies the response.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from measurement_pipeline.vendors.http import describe_foreign_response, parse_retry_after


class Failure(StrEnum):
    """Why a call ended without a complete response."""

    TIMEOUT = "timeout"
    """The time limit of the whole call passed, connecting included."""
    UNREACHED = "unreached"
    """No connection (refused, unknown host, no route): nothing was sent."""
    CONNECTION = "connection"
    """Reset or closed before a status line, or a reply that is not HTTP."""
    INCOMPLETE = "incomplete"
    """A status line came, but the body was cut short: by length, chunking, gzip, or the size limit."""
    FOREIGN = "not Songstats' own answer"
    """A complete response from another server: a CDN's challenge, a proxy's error page, a captive portal."""


@dataclass(frozen=True, slots=True)
class SongstatsResponse:
    """The response of one call.

    `status_code` is None if no status line came; beside a `failure` it is set if only the body was lost. `headers` have
    lower-case names and contain no credentials. `body` is decoded and complete, or empty after a failure. `detail` describes the
    failure in one line. Raises ValueError if there is neither a status nor a failure.
    """

    status_code: int | None
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    failure: Failure | None = None
    detail: str = ""

    def __post_init__(self) -> None:
        if self.status_code is None and self.failure is None:
            raise ValueError("a response without a status code needs a failure that explains it")

    @classmethod
    def received(cls, status_code: int, headers: Mapping[str, str], body: bytes) -> Self:
        """The response as received, or a FOREIGN failure without its body. The body must not contain the key."""
        foreign = describe_foreign_response(status_code, headers, body, is_vendor_error=_is_songstats_error)
        if foreign is not None:
            return cls(status_code, headers, b"", Failure.FOREIGN, foreign)
        return cls(status_code, headers, body)

    @property
    def retry_after(self) -> float | None:
        """Seconds of the `Retry-After` header, 0 to 30 days; None if it is missing or unreadable."""
        return parse_retry_after(self.headers)


def _is_songstats_error(value: object) -> bool:
    """Songstats' errors are `{"result": "error", "message": "…"}`."""
    if not isinstance(value, dict):
        return False
    result, message = value.get("result"), value.get("message")
    return isinstance(result, str) and result.strip().lower() == "error" and isinstance(message, str)
