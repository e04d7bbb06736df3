"""Simulated drains: who gets the hits, and how far estimated completions are off. Writes the chart and the table of the docs.

Usage: python -m measurement_pipeline_bench.shares. It runs the planner's own rules (`domain/fair_share`, `domain/completion`) on
invented queues, without a database, in about a minute.
"""

import heapq
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from statistics import median, quantiles

from measurement_pipeline.analytics.charts import LIGHT_OR_DARK, line_chart
from measurement_pipeline.domain.completion import Completion, LastPlace, Quota, complete, hits_until
from measurement_pipeline.domain.fair_share import AccountShare, FairShare, share_out
from measurement_pipeline.domain.plan import PLACES_PER_OLDEST_ROW

DOCS = Path(__file__).parents[1] / "docs"
PAGE, CHART = DOCS / "explanation" / "fair-share.md", DOCS / "images" / "fair-share.svg"
TABLE = "<!-- errors -->", "<!-- /errors -->"

ALLOWED = 900
_WINDOW = 30.0
_DAY_SECONDS = 86_400.0
_START = datetime(2026, 1, 1, tzinfo=UTC)
_DRAINS = 20


@dataclass(frozen=True, slots=True)
class Request:
    """A request of `account` for so many recordings, on a day. `rank`: how its recordings are ranked beside others."""

    account: str
    recordings: int
    day: float
    rank: int = 0


@dataclass
class Drain:
    """The planner over an invented queue. A hit is spent as soon as the quota allows it. Times are in days."""

    requests: Sequence[Request]
    retry_share: float = 0.0
    random: Random = field(default_factory=lambda: Random(0))  # noqa: S311  # invented queues, the same in each run
    bought: list[tuple[float, str]] = field(default_factory=list)
    estimates: dict[int, Completion | None] = field(default_factory=dict)
    completed: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._fair = FairShare[str]()
        # Rows of each account: (minus the rank, since, number, request), and the same by age.
        self._by_rank: dict[str, list[tuple[int, float, int, int]]] = {}
        self._by_age: dict[str, list[tuple[float, int, int, int]]] = {}
        self._open: dict[str, set[int]] = {}
        self._served: dict[str, int] = {}
        self._left = {index: request.recordings for index, request in enumerate(self.requests)}
        self._arriving = deque(sorted(enumerate(self.requests), key=lambda one: one[1].day))
        self._retries: list[tuple[float, str, tuple[int, float, int, int]]] = []
        self._releases: deque[float] = deque()
        self._rows = 0

    def run(self) -> None:
        """Buy everything."""
        now = 0.0
        while self._arriving or self._retries or any(self._open.values()):
            self._arrive(now)
            while self._retries and self._retries[0][0] <= now:
                _, account, row = heapq.heappop(self._retries)
                self._put(account, row)
            while self._releases and self._releases[0] <= now:
                self._releases.popleft()
            if len(self._releases) < ALLOWED and any(self._open.values()):
                self._buy(now)
            else:
                upcoming = [self._releases[0]] if len(self._releases) >= ALLOWED else []
                upcoming += [] if upcoming or not self._retries else [self._retries[0][0]]
                upcoming += [self._arriving[0][1].day] if self._arriving else []
                now = min(upcoming)

    def _arrive(self, now: float) -> None:
        arrived = []
        while self._arriving and self._arriving[0][1].day <= now:
            index, request = self._arriving.popleft()
            if request.account not in self._open:
                self._fair.add(request.account)
                self._by_rank[request.account], self._by_age[request.account] = [], []
                self._open[request.account], self._served[request.account] = set(), 0
            for _ in range(request.recordings):
                self._rows += 1
                self._put(request.account, (-request.rank - self.random.randrange(100), now, self._rows, index))
            arrived.append(index)
        for index in arrived:
            self.estimates[index] = self._estimate(index, now)

    def _put(self, account: str, row: tuple[int, float, int, int]) -> None:
        rank, since, song, index = row
        heapq.heappush(self._by_rank[account], row)
        heapq.heappush(self._by_age[account], (since, rank, song, index))
        self._open[account].add(song)
        self._fair.set_waiting(account, len(self._open[account]))

    def _buy(self, now: float) -> None:
        account = self._fair.next()
        if account is None:
            raise RuntimeError(f"no account is next, and these wait: {self._open}")
        self._served[account] += 1
        if self._served[account] % PLACES_PER_OLDEST_ROW == 0:
            _, rank, song, index = self._pop(self._by_age[account], self._open[account])
        else:
            rank, _, song, index = self._pop(self._by_rank[account], self._open[account])
        self._open[account].discard(song)
        self._fair.set_waiting(account, len(self._open[account]))
        self._releases.append(now + _WINDOW)
        if self.random.random() < self.retry_share:
            heapq.heappush(self._retries, (now + 0.25, account, (rank, now, song, index)))
            return
        self.bought.append((now, account))
        self._left[index] -= 1
        if not self._left[index]:
            self.completed[index] = now

    @staticmethod
    def _pop(heap: list[tuple], songs: set[int]) -> tuple:  # type: ignore[type-arg]  # two orders of the same figures
        while True:
            row = heapq.heappop(heap)
            if row[2] in songs:
                return row

    def _estimate(self, index: int, now: float) -> Completion | None:
        request = self.requests[index]
        own = [row for row in self._by_rank[request.account] if row[2] in self._open[request.account]]
        worst = max(rank for rank, _, _, of in own if of == index)
        last = LastPlace(request.recordings, by_rank=sum(rank <= worst for rank, *_ in own), by_age=len(own))
        shares = [AccountShare(name, 1, self._fair.credit(name), is_waiting=True) for name in sorted(self._open)]
        ahead = share_out(shares, []).fair
        for name, songs in self._open.items():
            ahead.set_waiting(name, len(songs))
        counted = [moment for moment in self._releases if moment > now]
        quota = Quota(
            ALLOWED,
            len(counted),
            lambda place: (counted[place - 1] - now) * _DAY_SECONDS if place <= len(counted) else None,
        )
        place = (request.account, last.place)
        return complete(quota, now=moment_of(now), own_hits=request.recordings, hits=hits_until(ahead, {place})[place])


def moment_of(day: float) -> datetime:
    """The moment of a simulated day."""
    return _START + timedelta(days=day)


def fair_drain() -> Drain:
    """A asks for 4,290 recordings on day 0, B for 50 less played ones on day 1."""
    drain = Drain([Request("A", 4290, 0.0, rank=1000), Request("B", 50, 1.0)])
    drain.run()
    return drain


def chart(drain: Drain) -> str:
    """Recordings bought over time by account, and B's if play counts alone decided."""

    def line(account: str) -> list[tuple[date, int]]:
        days = [int(day) for day, one in drain.bought if one == account]
        return [
            (moment_of(day).date(), sum(other <= day for other in days)) for day in range(int(drain.bought[-1][0]) + 2)
        ]

    # By play count alone B follows A: A's last recordings take 690 of the fifth month's hits.
    months = 4290 // ALLOWED * _WINDOW
    alone = [(moment_of(day).date(), 50 if day >= months else 0) for day in range(int(drain.bought[-1][0]) + 2)]
    small = [("B: 50 recordings, asked for on day 1", line("B")), ("B, if play counts alone decided", alone)]
    return line_chart("Recordings of B bought, with 900 hits in 30 days, beside 4,290 of A", small, LIGHT_OR_DARK)


def errors(name: str, *, retry_share: float, arrivals: int) -> str:
    """A line of the table: the error of the estimates of many drains, made when each request arrived."""
    off: list[float] = []
    within = 0
    for number in range(_DRAINS):
        random = Random(number)  # noqa: S311  # invented queues, the same in each run
        first = [Request(f"a{n}", random.randrange(50, 3000), 0.0, rank=random.randrange(1000)) for n in range(4)]
        later = [
            Request(f"b{n}", random.randrange(10, 800), random.uniform(0, 240), rank=random.randrange(1000))
            for n in range(arrivals)
        ]
        drain = Drain(first + later, retry_share=retry_share, random=random)
        drain.run()
        for index, estimate in drain.estimates.items():
            if estimate is None or estimate.latest is None:
                continue
            done = moment_of(drain.completed[index])
            off.append((done - estimate.expected).total_seconds() / _DAY_SECONDS)
            slack = timedelta(hours=7)  # the last retry
            within += estimate.earliest - slack <= done <= estimate.latest + slack
    tenth = quantiles([abs(days) for days in off], n=10)[-1]
    return (
        f"| {name} | {len(off)} | {median(off):+.1f} | {median(abs(days) for days in off):.1f} | {tenth:.1f} "
        f"| {within / len(off):.0%} |"
    )


def main() -> int:
    """Write the chart and the table; return the exit status."""
    drain = fair_drain()
    CHART.write_text(chart(drain) + "\n", encoding="utf-8")
    lines = [
        "| drains | requests | median error, days | median of its size | nine of ten below | within the range |",
        "|---|---|---|---|---|---|",
        errors("nothing changes after the estimate", retry_share=0.0, arrivals=0),
        errors("5 % of the calls are repeated", retry_share=0.05, arrivals=0),
        errors("12 more accounts come in 8 months, 5 % repeated", retry_share=0.05, arrivals=12),
    ]
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(TABLE[0])
    _, _, after = rest.partition(TABLE[1])
    PAGE.write_text(f"{before}{TABLE[0]}\n\n" + "\n".join(lines) + f"\n\n{TABLE[1]}{after}", encoding="utf-8")
    last = max(day for day, account in drain.bought if account == "B")
    sys.stdout.write("\n".join(lines) + f"\nB complete on day {last:.1f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
