"""Shares hits between accounts: worst-case fair weighted fair queueing (WF2Q) with hits as packets of one size. Pure.

The planner runs it to choose whose recording is bought next, and the estimates of completion run it further ahead. It knows how
many recordings an account waits for, not which: `plan` orders the recordings of one account.

An account of weight w among accounts of total weight W gets at least ⌊w/W × n⌋ − 1 of any n successive hits while it has
recordings to buy. W counts the accounts that have something to buy, and those that had, and hits ahead of their share, until the
others have caught up. Hits that an account cannot use go to the others.

Algorithm: Bennett and Zhang, "WF2Q: Worst-case Fair Weighted Fair Queueing", INFOCOM 1996. In an ideal system all accounts are
served at once, in proportion to their weights. A hit may begin only once the ideal system has begun it. Of those, the one that
the ideal system ends first is next.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from math import ceil
from typing import Generic, TypeVar

from measurement_pipeline.domain.text import counted

A = TypeVar("A", bound=Hashable)

# Sums of fractions of weights are not exact. Less than this is no difference.
_EPSILON = 1e-9

_MOST_NAMED = 10


@dataclass(slots=True)
class _Entry(Generic[A]):
    """An account. `start`: the virtual time at which the ideal system begins its next hit. `waiting`: recordings to buy.

    `is_counted`: it waits, or is ahead of its share.
    """

    account: A
    order: int
    weight: int
    start: float
    waiting: int = 0
    is_counted: bool = False


class FairShare(Generic[A]):
    """Whose recording is bought next. Of accounts whose hits end at once, the one that was added first goes first.

    Virtual time advances by 1/W with each hit, so that an account with weight w is due w/W hits for each.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._entries: dict[A, _Entry[A]] = {}
        # The heaps name an entry by its place here.
        self._in_order: list[_Entry[A]] = []
        # Weight of the accounts that wait or are ahead of their share.
        self._weight = 0
        # Accounts that wait: those whose next hit the ideal system has begun, by its end, and the others, by its begin.
        self._begun: list[tuple[float, int]] = []
        self._later: list[tuple[float, int]] = []
        # Accounts that do not wait and are ahead of their share, by the time at which the others have caught up.
        self._ahead: list[tuple[float, int]] = []

    def add(self, account: A, *, waiting: int = 0, weight: int = 1, credit: float = 0.0) -> None:
        """Add an account. `credit`: hits that it is behind its share; negative: ahead."""
        entry = _Entry(account, len(self._entries), weight, self._now - credit / weight)
        self._entries[account] = entry
        self._in_order.append(entry)
        if waiting:
            self._begin_to_wait(entry, waiting)
        elif entry.start > self._now + _EPSILON:
            self._wait_for_others(entry)

    def set_waiting(self, account: A, waiting: int) -> None:
        """Set how many recordings a known account has to buy.

        What an account was behind its share when it had none left to buy is not made up later.
        """
        entry = self._entries[account]
        if waiting and not entry.waiting:
            if not entry.is_counted:
                entry.start = self._now
            self._begin_to_wait(entry, waiting)
        elif entry.waiting and not waiting:
            entry.waiting = 0
            if entry.start > self._now + _EPSILON:
                self._wait_for_others(entry)
            else:
                self._leave(entry)
        else:
            entry.waiting = waiting

    def credit(self, account: A) -> float:
        """Hits that the account is behind its share; negative: ahead of it."""
        entry = self._entries[account]
        return entry.weight * (self._now - entry.start)

    def waiting(self, account: A) -> int:
        """How many recordings the account has to buy."""
        return self._entries[account].waiting

    @property
    def weight(self) -> int:
        """W: the weights of the accounts that share the next hit."""
        return self._weight

    def next(self) -> A | None:
        """The account that gets the next hit, which is charged to it. None: no account has anything to buy."""
        entry = self._first()
        if entry is None:
            return None
        self._serve(entry)
        return entry.account

    def take(self, hits: int) -> Iterator[A]:
        """The accounts that get the next hits, at most `hits`."""
        for _ in range(hits):
            account = self.next()
            if account is None:
                return
            yield account

    def ideal_hits(self, account: A, hits: int) -> int:
        """Hits of all accounts in the ideal system until `account` has had so many. Within a few of the real number."""
        until = hits / self._entries[account].weight
        others = (entry for entry in self._entries.values() if entry.waiting and entry.account != account)
        return hits + ceil(sum(min(entry.waiting, until * entry.weight) for entry in others))

    def charge(self, account: A) -> None:
        """Count a hit that was spent for a known account, whether or not it was its turn."""
        entry = self._entries[account]
        if not entry.is_counted:
            entry.start = self._now
        self._serve(entry)

    # --- the two clocks ------------------------------------------------------------------------------------------------

    def _first(self) -> _Entry[A] | None:
        """The waiting account whose next hit ends first in the ideal system, of those that it has begun."""
        while self._begun and self._is_stale(self._begun, begun=True):
            heappop(self._begun)
        self._move_begun()
        if not self._begun and self._later:
            # Every waiting account is ahead of its share: the hits that the others did not use are shared out.
            self._now = max(self._now, self._later[0][0])
            self._move_begun()
        return self._in_order[self._begun[0][1]] if self._begun else None

    def _move_begun(self) -> None:
        """Move the hits that the ideal system has begun by now. The first of both heaps is up to date then."""
        while self._later:
            is_stale = self._is_stale(self._later)
            if not is_stale and self._later[0][0] > self._now + _EPSILON:
                return
            entry = self._in_order[heappop(self._later)[1]]
            if not is_stale:
                heappush(self._begun, (_end(entry), entry.order))

    def _is_stale(self, heap: list[tuple[float, int]], *, begun: bool = False) -> bool:
        """Whether the heap's first item was superseded by a later one of the same account."""
        moment, order = heap[0]
        entry = self._in_order[order]
        return not entry.waiting or moment != (_end(entry) if begun else entry.start)

    def _serve(self, entry: _Entry[A]) -> None:
        entry.start += 1 / entry.weight
        entry.waiting = max(0, entry.waiting - 1)
        if entry.waiting:
            heappush(self._later, (entry.start, entry.order))
        else:
            self._wait_for_others(entry)
        self._advance()

    def _begin_to_wait(self, entry: _Entry[A], waiting: int) -> None:
        entry.waiting = waiting
        self._count(entry)
        heappush(self._later, (entry.start, entry.order))

    def _wait_for_others(self, entry: _Entry[A]) -> None:
        self._count(entry)
        heappush(self._ahead, (entry.start, entry.order))

    def _count(self, entry: _Entry[A]) -> None:
        if not entry.is_counted:
            entry.is_counted = True
            self._weight += entry.weight

    def _leave(self, entry: _Entry[A]) -> None:
        if entry.is_counted:
            entry.is_counted = False
            self._weight -= entry.weight

    def _advance(self) -> None:
        """Advance virtual time by one hit. An account that was ahead and does not wait leaves once the others have caught up."""
        hit = 1.0
        while self._weight and hit > _EPSILON:
            step = hit / self._weight
            until = self._ahead[0][0] if self._ahead else None
            if until is None or self._now + step < until - _EPSILON:
                self._now += step
                return
            hit -= max(0.0, until - self._now) * self._weight
            self._now = max(self._now, until)
            entry = self._in_order[heappop(self._ahead)[1]]
            if not entry.waiting and entry.start <= self._now + _EPSILON:
                self._leave(entry)


def _end(entry: _Entry[A]) -> float:
    # Rounded, so that ends that are equal but for the last digits are a tie: plans then follow each other in the same order.
    return round(entry.start + 1 / entry.weight, 9)


@dataclass(frozen=True, slots=True)
class AccountShare(Generic[A]):
    """What is stored of an account between plans.

    `credit`: hits that it is behind its share; negative: ahead. `is_waiting`: it had something to buy at the last plan. `hits`:
    all hits that were spent for it.
    """

    account: A
    weight: int
    credit: float = 0.0
    is_waiting: bool = False
    hits: int = 0


@dataclass(frozen=True, slots=True)
class SpentHit(Generic[A]):
    """A call that was reserved since the last plan. `is_settled`: whether it counts is known. `is_hit`: it counts so far."""

    id: int
    account: A
    weight: int
    is_settled: bool
    is_hit: bool


@dataclass(frozen=True, slots=True)
class SharesNow(Generic[A]):
    """The shares after all hits (`fair`, `hits`), and what to store of them: the shares after the hits up to `shared_up_to`.

    A hit behind a call that is still in flight is counted again by the next plan: the call may turn out to be free.
    """

    fair: FairShare[A]
    hits: dict[A, int]
    settled: list[AccountShare[A]]
    shared_up_to: int | None


# More than any plan takes: how many an account waited for at the last plan is not stored.
_SOME = 1 << 40


def share_out(shares: Sequence[AccountShare[A]], spent: Sequence[SpentHit[A]]) -> SharesNow[A]:
    """Charge the hits since the last plan to the accounts for which they were spent."""
    fair: FairShare[A] = FairShare()
    known = {share.account: share for share in shares}
    hits = {share.account: share.hits for share in shares}
    for share in shares:
        fair.add(share.account, waiting=_SOME if share.is_waiting else 0, weight=share.weight, credit=share.credit)
    settled: list[AccountShare[A]] | None = None
    shared_up_to = None
    for hit in spent:
        if not hit.is_settled and settled is None:
            settled = _stored(fair, known, hits)
        if hit.account not in known:
            known[hit.account] = AccountShare(hit.account, hit.weight)
            hits[hit.account] = 0
            fair.add(hit.account, weight=hit.weight)
        if hit.is_hit:
            fair.charge(hit.account)
            hits[hit.account] += 1
        if settled is None:
            shared_up_to = hit.id
    return SharesNow(fair, hits, _stored(fair, known, hits) if settled is None else settled, shared_up_to)


def _stored(fair: FairShare[A], known: dict[A, AccountShare[A]], hits: dict[A, int]) -> list[AccountShare[A]]:
    stored = []
    for account, share in known.items():
        credit = fair.credit(account)
        # An account that does not wait has no credit, but what it is ahead of its share is kept until the others have caught up.
        stored.append(replace(share, credit=credit if share.is_waiting else min(credit, 0.0), hits=hits[account]))
    return stored


def describe_shares(planned: Mapping[A, int]) -> str:
    """How many recordings of each account a plan holds, the largest first."""
    largest = sorted(planned.items(), key=lambda item: (-item[1], str(item[0])))
    named = ", ".join(f"{count:,} of account {account}" for account, count in largest[:_MOST_NAMED])
    others = f", and {len(largest) - _MOST_NAMED:,} more accounts" if len(largest) > _MOST_NAMED else ""
    return f"Planned {counted(sum(planned.values()), 'recording')}: {named}{others}."
