"""HTTP requests over a few persistent connections; each sends the next request after the last response.

They are sent by a process of their own (`python -m measurement_pipeline_bench.http_load`), so that it delays no other thread.
"""

import http.client
import json
import subprocess
import sys
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
    """Send `requests` from another process, with `at_once` in flight at any time."""
    order = {"port": port, "requests": requests, "at_once": at_once, "headers": dict(headers or {})}
    done = subprocess.run(
        [sys.executable, "-m", "measurement_pipeline_bench.http_load"],
        input=json.dumps(order).encode(),
        stdout=subprocess.PIPE,
        check=True,
    )
    found = json.loads(done.stdout)
    times = sorted(found["milliseconds"])
    return Load(
        len(times) / found["seconds"],
        times[len(times) // 2],
        times[min(len(times) - 1, int(len(times) * 0.99))],
        Counter(found["statuses"]),
    )


def _send(order: Mapping[str, Any]) -> dict[str, Any]:
    requests, at_once = order["requests"], order["at_once"]
    shares = [requests[at::at_once] for at in range(at_once)]
    since = time.perf_counter()
    with ThreadPoolExecutor(at_once) as threads:
        answers = [one for some in threads.map(_client(order["port"], order["headers"]), shares) for one in some]
    seconds = time.perf_counter() - since
    return {
        "seconds": seconds,
        "milliseconds": [taken for taken, _ in answers],
        "statuses": [status for _, status in answers],
    }


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


if __name__ == "__main__":
    json.dump(_send(json.load(sys.stdin)), sys.stdout)
