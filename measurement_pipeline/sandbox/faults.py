"""What goes wrong for a while: faults set from outside, per path and per ISRC.

Which fault a request meets, and what it makes of the answer, is decided here; how that goes out on
the wire is `wire`.
"""

import gzip
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from random import Random
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, TypeAdapter

from measurement_pipeline.sandbox import vendor_errors
from measurement_pipeline.sandbox.foreign_pages import PAGES, Foreign


@dataclass(frozen=True, slots=True)
class FaultResponse:
    """A whole HTTP answer, before it goes out. Header names are lower case."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class Gzip(StrEnum):
    """How a body is packed. The length that is promised is that of what goes out, so it tells nothing."""

    WHOLE = "whole"
    """As it should be."""
    NOT = "not"
    """It is called gzip and is none."""
    SHORT = "short"
    """The stream stops half-way."""
    WRONG = "wrong"
    """The checksum and length at its end are those of another body."""


class Fault(BaseModel):
    """One thing that goes wrong.

    With `status`, `body`, `foreign` or `raw` the vendor does nothing and answers just that. Without them it
    does its work and then the delivery is spoiled: a customer is created, a hit is counted, and the
    answer is late, cut short or lost.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    path: str
    """A prefix, or a glob where it holds any of `*?[`."""
    method: str | None = None
    isrc: str | None = None
    count: int | None = Field(default=None, ge=1)
    """For how many requests; None: until cleared."""
    share: float = Field(default=1, gt=0, le=1)
    """Of the requests that fit, how many meet it, drawn by `seed`; the others go on to the next fault."""
    seed: str = ""
    status: int | None = Field(default=None, ge=200, le=599)
    body: str | None = None
    foreign: Foreign | None = Field(default=None, strict=False)
    """Something else answers in the vendor's place. `status`, where it is set, replaces that of the page."""
    headers: dict[str, str] = Field(default_factory=dict)
    retry_after: int | str | None = None
    delay: float = Field(default=0, ge=0)
    """Seconds before the answer goes out."""
    cut: NonNegativeInt | Literal["anywhere"] | None = None
    """Bytes of the body after which the connection ends, although all of it was promised. `anywhere`: drawn by `seed`."""
    close: bool = False
    """The connection ends without any answer, or where it is cut."""
    reset: bool = False
    """As `close`, with a TCP reset."""
    hang: bool = False
    """As `close`, but the connection stays open, and nothing more comes."""
    gzip: Gzip | None = Field(default=None, strict=False)
    raw: str | None = None
    """What goes out instead of an HTTP answer, one byte a character; then the connection ends, or hangs."""

    @property
    def sends_a_status(self) -> bool:
        """Whether a status line goes out."""
        ends = self.close or self.reset or self.hang
        return self.raw is None and (self.cut is not None or not ends)

    def cut_at(self, size: int, draw: float) -> int | None:
        """Bytes of a body of `size` that go out before the connection ends; None: the answer is not cut."""
        if self.cut == "anywhere":
            return int(draw * size)
        return self.cut

    def hits(self, method: str, path: str, isrc: str | None) -> bool:
        """Whether a request meets this fault."""
        if self.method not in (None, method) or self.isrc not in (None, isrc):
            return False
        if any(sign in self.path for sign in "*?["):
            return fnmatchcase(path, self.path)
        return path.startswith(self.path)

    def answer(self, path: str) -> FaultResponse | None:
        """What the vendor says instead of doing its work; None where it does it."""
        if self.foreign is not None:
            page = PAGES[self.foreign]
            return FaultResponse(self.status or page.status, page.body.encode(), dict(page.headers))
        if self.status is None and self.body is None and self.raw is None:
            return None
        status = self.status or 200
        body = vendor_errors.told_to(path, status) if self.body is None else self.body.encode()
        return FaultResponse(status, body, {"content-type": "application/json"})

    def spoil(self, answer: FaultResponse) -> FaultResponse:
        """The answer with this fault's headers and packing."""
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
    """The faults that are set. A request meets the one that was set first of those that fit it."""

    def __init__(self) -> None:
        # Each with its own draws, so that two that are set alike do not strike the same requests.
        self._faults: list[tuple[Fault, Random]] = []
        self._ever = 0

    def add(self, faults: list[Fault]) -> None:
        """Sets more faults, behind those there are."""
        for fault in faults:
            self._ever += 1
            self._faults.append((fault, Random(f"{fault.seed}:{self._ever}")))  # noqa: S311  # to be repeatable is the point

    def clear(self) -> None:
        """Ends all faults. Those that are set next are drawn as the first ones were."""
        self._faults = []
        self._ever = 0

    def listed(self) -> list[dict[str, object]]:
        """What is set, with the counts that are left."""
        return [fault.model_dump(mode="json", exclude_defaults=True) for fault, _ in self._faults]

    def take(self, method: str, path: str, isrc: str | None) -> tuple[Fault, float] | None:
        """The fault that a request meets, used up by one, and where in [0, 1) it may be cut."""
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
