"""Log of all requests that a vendor received, so that hits can be counted on the vendor's side.

Headers, which contain keys, are not logged; neither are query parameters with the name of a key.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime

_SECRET_PARAMETERS = frozenset({"apikey", "api_key", "key", "token"})


@dataclass(slots=True)
class LoggedRequest:
    """One request. `status` is None until it is answered. `fault`: a fault applied to it."""

    n: int
    method: str
    path: str
    query: dict[str, str]
    isrc: str | None
    at: str
    status: int | None = None
    fault: bool = False


class RequestLog:
    """The requests since the start or the last reset. `n` is never reset."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._received: list[LoggedRequest] = []
        self._by_path: Counter[str] = Counter()
        self._last = 0

    def add(self, method: str, path: str, query: dict[str, str]) -> LoggedRequest:
        """Logs an incoming request. The caller sets its status later."""
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
        """Number of requests; by path only, it is cheap."""
        if isrc is None and since == 0:
            return sum(n for seen, n in self._by_path.items() if seen.startswith(path))
        return sum(1 for _ in self._fitting(path, isrc, since))

    def clear(self) -> None:
        """Deletes the logged requests."""
        self._received.clear()
        self._by_path.clear()

    def _fitting(self, path: str, isrc: str | None, since: int) -> Iterator[LoggedRequest]:
        return (
            entry
            for entry in self._received
            if entry.n > since and entry.path.startswith(path) and isrc in (None, entry.isrc)
        )
