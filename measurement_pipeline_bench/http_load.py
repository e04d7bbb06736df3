"""HTTP requests over a few persistent connections; each sends the next request after the last response."""

import http.client
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

Request = tuple[str, str, Mapping[str, Any] | None]
"""Method, path and body."""


@dataclass(frozen=True, slots=True)
class Load:
    """The results of so many requests. Times in milliseconds."""

    per_second: float
    p50: float
    p99: float
    statuses: Counter[int]


def send(port: int, requests: Sequence[Request], *, at_once: int, headers: Mapping[str, str] | None = None) -> Load:
    """Send `requests`, with `at_once` in flight at any time."""
    shares = [requests[at::at_once] for at in range(at_once)]
    since = time.perf_counter()
    with ThreadPoolExecutor(at_once) as threads:
        answers = [one for some in threads.map(_client(port, headers or {}), shares) for one in some]
    seconds = time.perf_counter() - since
    times = sorted(taken for taken, _ in answers)
    return Load(
        len(answers) / seconds,
        times[len(times) // 2],
        times[min(len(times) - 1, int(len(times) * 0.99))],
        Counter(status for _, status in answers),
    )


def _client(port: int, headers: Mapping[str, str]) -> Callable[[Sequence[Request]], list[tuple[float, int]]]:
    def client(requests: Sequence[Request]) -> list[tuple[float, int]]:
        found = []
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for method, path, body in requests:
            since = time.perf_counter()
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {**headers, "Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            found.append(((time.perf_counter() - since) * 1000, answer.status))
        connection.close()
        return found

    return client
