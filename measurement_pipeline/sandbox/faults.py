"""What goes wrong for a while: faults set from outside, per path and per ISRC.

Which fault a request meets is decided here; how an answer is spoiled on the wire is `front`.
"""

import json
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer, before it goes out. Header names are lower case."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class Fault(BaseModel):
    """One thing that goes wrong.

    With `status` or `body` the vendor does nothing and answers just that. Without them it does its
    work and then the delivery is spoiled: a customer is created, a hit is counted, and the answer
    is late, cut short or lost.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    path: str
    """A prefix, or a glob where it holds any of `*?[`."""
    method: str | None = None
    isrc: str | None = None
    count: int | None = Field(default=None, ge=1)
    """For how many requests; None: until cleared."""
    status: int | None = Field(default=None, ge=200, le=599)
    body: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    retry_after: int | str | None = None
    delay: float = Field(default=0, ge=0)
    """Seconds before the answer goes out."""
    cut: int | None = Field(default=None, ge=0)
    """Bytes of the body after which the connection ends, although all of it was promised."""
    close: bool = False
    """The connection ends without any answer."""
    reset: bool = False
    """As `close`, with a TCP reset."""

    def hits(self, method: str, path: str, isrc: str | None) -> bool:
        """Whether a request meets this fault."""
        if self.method not in (None, method) or self.isrc not in (None, isrc):
            return False
        if any(sign in self.path for sign in "*?["):
            return fnmatchcase(path, self.path)
        return path.startswith(self.path)

    def answer(self, path: str) -> Answer | None:
        """What the vendor says instead of doing its work; None where it does it."""
        if self.status is None and self.body is None:
            return None
        status = self.status or 200
        body = vendor_error(path, status) if self.body is None else self.body.encode()
        return Answer(status, body, {"content-type": "application/json"})

    def spoil(self, answer: Answer) -> Answer:
        """The answer with this fault's headers."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        return Answer(answer.status, answer.body, answer.headers | headers)


FAULTS: TypeAdapter[Fault | list[Fault]] = TypeAdapter(Fault | list[Fault])
"""Reads one fault or several from JSON."""


class Faults:
    """The faults that are set. A request meets the one that was set first of those that fit it."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, faults: list[Fault]) -> None:
        """Sets more faults, behind those there are."""
        self._faults += faults

    def clear(self) -> None:
        """Ends all faults."""
        self._faults = []

    def listed(self) -> list[dict[str, object]]:
        """What is set, with the counts that are left."""
        return [fault.model_dump(exclude_defaults=True) for fault in self._faults]

    def take(self, method: str, path: str, isrc: str | None) -> Fault | None:
        """The fault that a request meets, used up by one."""
        for place, fault in enumerate(self._faults):
            if fault.hits(method, path, isrc):
                if fault.count == 1:
                    del self._faults[place]
                elif fault.count is not None:
                    self._faults[place] = fault.model_copy(update={"count": fault.count - 1})
                return fault
        return None


def vendor_error(path: str, status: int) -> bytes:
    """An error body in the shape of the vendor whose path it is."""
    if path.startswith("/v1/"):
        kind = "invalid_request_error" if status < 500 else "api_error"
        error = {"type": kind, "message": f"The double was told to answer {status}."}
        if status == 429:
            error["code"] = "rate_limit"
        return json.dumps({"error": error}).encode()
    return json.dumps({"result": "error", "message": f"The double was told to answer {status}."}).encode()
