"""Every request a vendor received, so that hits can be counted at the vendor's end.

Keys travel in headers, which are never looked at here; a query parameter that is named like one is
left out.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime

_SECRET_PARAMETERS = frozenset({"apikey", "api_key", "key", "token"})


@dataclass(slots=True)
class LoggedRequest:
    """One request. `status` is None while it is unanswered, for ever where it never was answered.

    `fault` says that it met one.
    """

    n: int
    method: str
    path: str
    query: dict[str, str]
    isrc: str | None
    at: str
    status: int | None = None
    fault: bool = False


class RequestLog:
    """The requests since start, or since they were last forgotten. `n` never starts again."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._received: list[LoggedRequest] = []
        self._by_path: Counter[str] = Counter()
        self._last = 0

    def add(self, method: str, path: str, query: dict[str, str]) -> LoggedRequest:
        """Notes a request as it comes in; its status is filled in by whoever answers it."""
        self._last += 1
        shown = {name: value for name, value in query.items() if name.lower() not in _SECRET_PARAMETERS}
        entry = LoggedRequest(self._last, method, path, shown, query.get("isrc"), self._clock().isoformat())
        self._received.append(entry)
        self._by_path[path] += 1
        return entry

    def find(self, path: str, isrc: str | None, since: int) -> list[dict[str, object]]:
        """Requests after number `since` whose path begins with `path`, oldest first."""
        return [asdict(entry) for entry in self._fitting(path, isrc, since)]

    def count(self, path: str, isrc: str | None, since: int) -> int:
        """How many there are; by path alone it costs next to nothing."""
        if isrc is None and since == 0:
            return sum(n for seen, n in self._by_path.items() if seen.startswith(path))
        return sum(1 for _ in self._fitting(path, isrc, since))

    def clear(self) -> None:
        """Forgets what was received so far."""
        self._received.clear()
        self._by_path.clear()

    def _fitting(self, path: str, isrc: str | None, since: int) -> Iterator[LoggedRequest]:
        return (
            entry
            for entry in self._received
            if entry.n > since and entry.path.startswith(path) and isrc in (None, entry.isrc)
        )
