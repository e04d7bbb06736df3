"""When a request is complete: the planner's own code run ahead, at the present budget, pace, shares and queue. Pure.

It stays within one hit of the plan for an account, and within a tenth for a place among an account's own recordings.
"""

import math
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from measurement_pipeline.domain.fair_share import FairShare
from measurement_pipeline.domain.plan import PLACES_PER_OLDEST_ROW

A = TypeVar("A", bound=Hashable)

# So many hits are planned one by one, half a year of a plan with 900 hits a month. Further ahead the ideal shares are used.
MOST_PLANNED = 5_000

_BUDGET_DAYS = 30.0
_DAY_SECONDS = 86_400.0
# Beyond this, a date is not a forecast.
_MOST_SECONDS = 100 * 365 * _DAY_SECONDS


@dataclass(frozen=True, slots=True)
class LastPlace:
    """The last recording of a request, among all that its account has to buy.

    `waiting`: recordings of the request. `by_rank`, `by_age`: recordings of the account that are ranked at least as high, and
    that wait at least as long, as the last of them.
    """

    waiting: int
    by_rank: int
    by_age: int

    @property
    def place(self) -> int:
        """The place of the last one, at the latest: nine of ten places go by rank, and one to the longest waiting."""
        by_rank = math.ceil(self.by_rank * PLACES_PER_OLDEST_ROW / (PLACES_PER_OLDEST_ROW - 1))
        return min(by_rank, self.by_age * PLACES_PER_OLDEST_ROW)


@dataclass(frozen=True, slots=True)
class Quota:
    """The hits to come. `counted` hits of the last 30 days count against `allowed`.

    `frees_in(n)` returns after how many seconds n of them no longer do. `per_second`: the pace of calls; 0: no limit.
    """

    allowed: int
    counted: int
    frees_in: Callable[[int], float | None]
    per_second: float = 0.0

    def seconds(self, hits: int) -> float | None:
        """When the last of so many hits can be spent. None: never, or not within a hundred years."""
        seconds = seconds_until_bought(hits, allowed=self.allowed, counted=self.counted, frees_in=self.frees_in)
        if seconds is None:
            return None
        seconds = max(seconds, hits / self.per_second if self.per_second else 0.0)
        return seconds if seconds <= _MOST_SECONDS else None


@dataclass(frozen=True, slots=True)
class Completion:
    """When the last recording is bought. `earliest`: if all other accounts stop. `latest`: if as many hits again go elsewhere.

    Retries and accounts that come later make it uncertain.
    """

    expected: datetime
    earliest: datetime
    latest: datetime | None


def completion_fields(completion: Completion | None) -> dict[str, datetime | None]:
    """The fields in which a completion is shown. All null: it is not known."""
    return {
        "estimated_completion": None if completion is None else completion.expected,
        "earliest_completion": None if completion is None else completion.earliest,
        "latest_completion": None if completion is None else completion.latest,
    }


def hits_until(fair: FairShare[A], places: Collection[tuple[A, int]]) -> dict[tuple[A, int], int]:
    """After how many hits, of all accounts together, each account has had so many. Runs `fair` ahead."""
    found = {(account, place): 0 for account, place in places if min(place, fair.waiting(account)) <= 0}
    left: dict[A, list[tuple[int, tuple[A, int]]]] = {}
    for account, place in sorted({*places} - found.keys(), key=lambda one: -one[1]):
        left.setdefault(account, []).append((min(place, fair.waiting(account)), (account, place)))
    had = dict.fromkeys(left, 0)
    hits = 0
    while left and hits < MOST_PLANNED:
        served = fair.next()
        if served is None:
            break
        hits += 1
        if served in left:
            had[served] += 1
            while left[served] and left[served][-1][0] <= had[served]:
                found[left[served].pop()[1]] = hits
            if not left[served]:
                del left[served]
    for account, rest in left.items():
        found |= {key: hits + fair.ideal_hits(account, place - had[account]) for place, key in rest}
    return found


def complete(quota: Quota, *, now: datetime, own_hits: int, hits: int, cap: Quota | None = None) -> Completion | None:
    """The completion of a request that needs `own_hits`, the last of which is number `hits` of all. None: never.

    `cap`: the quota of an account with a limit of its own.
    """
    seconds = [quota.seconds(hits), quota.seconds(own_hits), quota.seconds(2 * hits)]
    if cap is not None:
        own = [cap.seconds(own_hits), cap.seconds(own_hits), cap.seconds(2 * own_hits)]
        seconds = [None if a is None or b is None else max(a, b) for a, b in zip(seconds, own, strict=True)]
    expected, earliest, latest = seconds
    if expected is None or earliest is None:
        return None
    return Completion(
        now + timedelta(seconds=expected),
        now + timedelta(seconds=earliest),
        None if latest is None else now + timedelta(seconds=latest),
    )


def seconds_until_bought(
    hits: int, *, allowed: int, counted: int, frees_in: Callable[[int], float | None]
) -> float | None:
    """When the last of `hits` can be spent, if each is spent as soon as the budget allows. None: no hit is allowed.

    `counted` hits of the last 30 days count against `allowed`; `frees_in(n)` returns after how many seconds n of them no longer
    do.
    """
    beyond = hits - max(0, allowed - counted)
    if beyond <= 0:
        return 0.0
    if allowed == 0:
        return None
    # Each spent hit becomes available again 30 days later, so the hits beyond the budget come in rounds of `allowed`.
    rounds, place = divmod(beyond - 1, allowed)
    place += 1 + max(0, counted - allowed)
    first = frees_in(place) if place <= counted else None
    return rounds * _BUDGET_DAYS * _DAY_SECONDS + (first if first is not None else _BUDGET_DAYS * _DAY_SECONDS)
