"""Temporary faults, set per path and per ISRC.

This module selects the fault of a request and changes the response; `broken_responses` sends it.
"""

import gzip
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from random import Random
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, TypeAdapter

from measurement_pipeline.sandbox import vendor_errors
from measurement_pipeline.sandbox.foreign_pages import PAGES, ForeignSender


@dataclass(frozen=True, slots=True)
class FaultResponse:
    """A complete HTTP response before it is sent. Header names are lower case."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class Gzip(StrEnum):
    """Encoding of a body. The Content-Length is that of the bytes sent, so it does not reveal a cut."""

    WHOLE = "whole"
    """As it should be."""
    NOT = "not"
    """Content-Encoding says gzip, but the body is not gzip."""
    SHORT = "short"
    """The stream stops half-way."""
    WRONG = "wrong"
    """Checksum and length at the end belong to another body."""


class Fault(BaseModel):
    """One fault.

    With `status`, `body`, `foreign` or `raw` the vendor does no work and returns just that. Without them it does its work, and
    then the delivery fails: a customer is created, a hit is counted, and the response is late, cut short or lost.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    path: str
    """A prefix, or a glob if it contains any of `*?[`."""
    method: str | None = None
    isrc: str | None = None
    count: int | None = Field(default=None, ge=1)
    """Number of requests; None: until cleared."""
    share: float = Field(default=1, gt=0, le=1)
    """Share of the matching requests, drawn by `seed`; the others continue to the next fault."""
    seed: str = ""
    status: int | None = Field(default=None, ge=200, le=599)
    body: str | None = None
    foreign: ForeignSender | None = Field(default=None, strict=False)
    """Something else answers instead of the vendor. `status` replaces the page's status."""
    headers: dict[str, str] = Field(default_factory=dict)
    retry_after: int | str | None = None
    delay: float = Field(default=0, ge=0)
    """Seconds before the response is sent."""
    cut: NonNegativeInt | Literal["anywhere"] | None = None
    """Bytes of the body after which the connection ends before its Content-Length. `anywhere`: drawn by `seed`."""
    close: bool = False
    """The connection ends without a response, or at the cut."""
    reset: bool = False
    """Like `close`, with a TCP reset."""
    hang: bool = False
    """Like `close`, but the connection stays open without further bytes."""
    gzip: Gzip | None = Field(default=None, strict=False)
    raw: str | None = None
    """Bytes sent instead of an HTTP response, one per character; then the connection ends or hangs."""

    @property
    def sends_a_status(self) -> bool:
        """Whether a status line is sent."""
        ends = self.close or self.reset or self.hang
        return self.raw is None and (self.cut is not None or not ends)

    def cut_at(self, size: int, draw: float) -> int | None:
        """Bytes of a body of `size` that are sent before the connection ends; None: not cut."""
        if self.cut == "anywhere":
            return int(draw * size)
        return self.cut

    def hits(self, method: str, path: str, isrc: str | None) -> bool:
        """Whether this fault applies to a request."""
        if self.method not in (None, method) or self.isrc not in (None, isrc):
            return False
        if any(sign in self.path for sign in "*?["):
            return fnmatchcase(path, self.path)
        return path.startswith(self.path)

    def answer(self, path: str) -> FaultResponse | None:
        """The response that replaces the vendor's work; None if the vendor does its work."""
        if self.foreign is not None:
            page = PAGES[self.foreign]
            return FaultResponse(self.status or page.status, page.body.encode(), dict(page.headers))
        if self.status is None and self.body is None and self.raw is None:
            return None
        status = self.status or 200
        body = vendor_errors.requested_error(path, status) if self.body is None else self.body.encode()
        return FaultResponse(status, body, {"content-type": "application/json"})

    def spoil(self, answer: FaultResponse) -> FaultResponse:
        """The response with this fault's headers and encoding."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        body = answer.body
        if self.gzip is not None:
            headers["content-encoding"] = "gzip"
            body = _packed(body, self.gzip)
        return FaultResponse(answer.status, body, answer.headers | headers)


FAULTS: TypeAdapter[Fault | list[Fault]] = TypeAdapter(Fault | list[Fault])
"""Reads one fault or several from JSON."""


class Faults:
    """The active faults. The oldest matching fault applies to a request."""

    def __init__(self) -> None:
        # A generator each, so that two equal faults do not hit the same requests.
        self._faults: list[tuple[Fault, Random]] = []
        self._ever = 0

    def add(self, faults: list[Fault]) -> None:
        """Adds faults after the existing ones."""
        for fault in faults:
            self._ever += 1
            self._faults.append((fault, Random(f"{fault.seed}:{self._ever}")))  # noqa: S311  # to be repeatable is the point

    def clear(self) -> None:
        """Removes all faults and resets the random draws."""
        self._faults = []
        self._ever = 0

    def listed(self) -> list[dict[str, object]]:
        """The active faults with their remaining counts."""
        return [fault.model_dump(mode="json", exclude_defaults=True) for fault, _ in self._faults]

    def take(self, method: str, path: str, isrc: str | None) -> tuple[Fault, float] | None:
        """The fault of a request, with its count reduced, and the position in [0, 1) of a random cut."""
        for place, (fault, draws) in enumerate(self._faults):
            if fault.hits(method, path, isrc) and (fault.share == 1 or draws.random() < fault.share):
                if fault.count == 1:
                    del self._faults[place]
                elif fault.count is not None:
                    self._faults[place] = (fault.model_copy(update={"count": fault.count - 1}), draws)
                return fault, draws.random()
        return None


def _packed(body: bytes, how: Gzip) -> bytes:
    if how is Gzip.NOT:
        return body
    packed = gzip.compress(body, mtime=0)
    if how is Gzip.SHORT:
        return packed[: len(packed) // 2]
    if how is Gzip.WRONG:
        return packed[:-8] + gzip.compress(body + b" ", mtime=0)[-8:]
    return packed
