"""Shares of the hits: the bound of each account in any window, whatever the others do."""

import math
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measurement_pipeline.domain.backfill_queue import DueRow
from measurement_pipeline.domain.fair_share import AccountShare, FairShare, SpentHit, share_out
from measurement_pipeline.domain.plan import PLACES_PER_OLDEST_ROW, choose_rows

START = datetime(2026, 1, 1, tzinfo=UTC)
MONTH = timedelta(days=30)


def shared(hits: int, **accounts: tuple[int, int]) -> str:
    """Who gets each of the next hits; account → weight and recordings to buy."""
    fair = FairShare[str]()
    for account, (weight, waiting) in accounts.items():
        fair.add(account, weight=weight, waiting=waiting)
    return "".join(fair.take(hits))


def test_accounts_of_equal_weight_take_turns():
    assert shared(7, a=(1, 100), b=(1, 100), c=(1, 1)) == "abcabab"


def test_an_account_of_twice_the_weight_gets_twice_as_many_spread_evenly():
    assert shared(9, a=(2, 100), b=(1, 100)) == "abaabaaba"


def test_a_heavy_account_does_not_get_its_hits_in_one_block():
    order = shared(20, a=(10, 100), **dict.fromkeys("bcdefghijk", (1, 100)))
    assert order[::2] == "a" * 10


def test_hits_that_an_account_cannot_use_go_to_the_others():
    assert shared(6, a=(1, 2), b=(1, 100)) == "ababbb"
    assert shared(6, a=(1, 2), b=(1, 1)) == "aba"


def test_an_account_that_comes_late_gets_its_share_from_then_on_and_nothing_for_before():
    fair = FairShare[str]()
    fair.add("a", waiting=1000)
    assert set(fair.take(100)) == {"a"}
    fair.add("b", waiting=1000)
    assert Counter(fair.take(10)) == {"a": 5, "b": 5}


def test_what_was_spent_out_of_turn_is_made_up_for():
    """A run was cancelled after the hits of one account, or a person launched recordings."""
    fair = FairShare[str]()
    fair.add("a", waiting=100)
    fair.add("b", waiting=100)
    for _ in range(5):
        fair.charge("a")
    assert fair.credit("b") == pytest.approx(2.5)
    assert "".join(fair.take(9)) == "bbbbbabab"


def test_shares_go_on_where_the_last_plan_ended():
    """Plans of one hit each, with the shares stored in between, give the order of one long plan."""
    accounts = {"a": 3, "b": 1, "c": 1}
    shares = [AccountShare(account, weight, is_waiting=True) for account, weight in accounts.items()]
    order = []
    for number in range(50):
        spent = [SpentHit(number, order[-1], accounts[order[-1]], is_settled=True, is_hit=True)] if order else []
        now = share_out(shares, spent)
        shares = now.settled
        order.append(next(now.fair.take(1)))
    assert "".join(order) == shared(50, **{account: (weight, 10**6) for account, weight in accounts.items()})
    assert {share.account: share.hits for share in shares} == Counter(order[:-1])


def test_a_call_in_flight_is_charged_but_stored_only_once_it_is_known_whether_it_was_a_hit():
    shares = [AccountShare("a", 1, is_waiting=True), AccountShare("b", 1, is_waiting=True)]
    spent = [
        SpentHit(7, "a", 1, is_settled=True, is_hit=True),
        SpentHit(8, "a", 1, is_settled=True, is_hit=False),
        SpentHit(9, "b", 1, is_settled=False, is_hit=True),
        SpentHit(10, "a", 1, is_settled=True, is_hit=True),
    ]
    now = share_out(shares, spent)
    assert now.shared_up_to == 8
    assert [(share.account, share.credit, share.hits) for share in now.settled] == [("a", -0.5, 1), ("b", 0.5, 0)]
    assert now.hits == {"a": 2, "b": 1}
    assert next(now.fair.take(1)) == "b"


# --- simulated years ------------------------------------------------------------------------------------------------------


@dataclass
class Hit:
    """One hit: who got it, the accounts that had something to buy, W, and whether it was the account's last recording."""

    account: int
    waiting: frozenset[int]
    weight: int
    emptied: bool


@dataclass
class Years:
    """A deployment whose accounts come and go, over years of a quota that is never enough."""

    random: Random
    quota: int
    fair: FairShare[int] = field(default_factory=FairShare)
    weights: dict[int, int] = field(default_factory=dict)
    caps: dict[int, int] = field(default_factory=dict)
    queues: dict[int, list[DueRow]] = field(default_factory=dict)
    hits: list[Hit] = field(default_factory=list)
    bought: dict[int, list[tuple[datetime, str]]] = field(default_factory=dict)
    songs: int = 0

    def arrive(self, account: int, count: int, now: datetime) -> None:
        """More recordings of an account, of any rank; some of them were requested before and are reopened."""
        for _ in range(count):
            self.songs += 1
            self.queues[account].append(DueRow(f"s{self.songs}", self.random.randrange(100), now, UUID(int=account)))

    def left_of_cap(self, account: int, now: datetime) -> int:
        """Hits left under the account's own limit."""
        recent = sum(moment > now - MONTH for moment, _ in self.bought[account])
        return max(0, self.caps.get(account, 10**6) - recent)

    def live(self, accounts: int, months: int) -> None:
        """Spend the quota day by day while accounts come and go."""
        for account in range(accounts):
            self.weights[account] = self.random.choice([1, 1, 1, 2, 3, 20])
            self.queues[account], self.bought[account] = [], []
            if self.random.random() < 0.3:
                self.caps[account] = self.random.randint(1, self.quota)
            self.fair.add(account, weight=self.weights[account])
        spent: deque[datetime] = deque()
        for day in range(30 * months):
            now = START + timedelta(days=day)
            while spent and spent[0] <= now - MONTH:
                spent.popleft()
            for account in range(accounts):
                if self.random.random() < 0.02:
                    self.arrive(account, self.random.choice([1, 5, 3 * self.quota]), now)
                if self.random.random() < 0.002:
                    self.queues[account].clear()  # withdrawn
            self.spend(self.quota - len(spent), now, spent)

    def spend(self, hits: int, now: datetime, spent: "deque[datetime]") -> None:
        """One plan."""
        for account, queue in self.queues.items():
            self.fair.set_waiting(account, min(len(queue), self.left_of_cap(account, now)))
        for _ in range(hits):
            waiting = frozenset(account for account in self.queues if self.fair.waiting(account))
            weight = self.fair.weight
            account = self.fair.next()
            assert (account is None) == (not waiting), "no hit is lost while an account can use it"
            if account is None:
                return
            before = {UUID(int=account): len(self.bought[account])}
            (row,) = choose_rows([UUID(int=account)], self.queues[account], hits_before=before)
            self.queues[account].remove(row)
            self.bought[account].append((now, row.song))
            spent.append(now)
            self.hits.append(Hit(account, waiting, weight, not self.fair.waiting(account)))

    def shortfalls(self) -> Iterator[str]:
        """Windows in which an account got less than it is promised."""
        for account, own in self.weights.items():
            for start in range(len(self.hits)):
                got, due = 0, 0.0
                for end, hit in enumerate(self.hits[start:], start):
                    if account not in hit.waiting:
                        break
                    got += hit.account == account
                    due += own / hit.weight
                    if got < math.floor(due + 1e-9) - 1:
                        yield f"account {account}: {got} of hits {start} to {end}, promised {due:.2f}"
                    if hit.account == account and hit.emptied:
                        break


@given(st.integers(0, 2**32), st.integers(1, 6), st.sampled_from([1, 5, 30]))
def test_every_account_gets_its_share_of_any_window_within_a_hit(seed: int, accounts: int, quota: int):
    years = Years(Random(seed), quota)
    years.live(accounts, months=24 if quota < 30 else 6)
    assert list(years.shortfalls()) == []
    for account, cap in years.caps.items():
        moments = [moment for moment, _ in years.bought[account]]
        assert all(sum(start <= moment < start + MONTH for moment in moments) <= cap for start in moments)


@given(st.integers(0, 2**32))
def test_no_recording_waits_longer_than_ten_times_its_place_by_age_among_its_accounts(seed: int):
    """While better ranked ones arrive every day, for two accounts of different weight."""
    random = Random(seed)
    years = Years(random, quota=10)
    for account, weight in ((0, 1), (1, 3)):
        years.weights[account], years.queues[account], years.bought[account] = weight, [], []
        years.fair.add(account, weight=weight)
        years.arrive(account, 20, START)
    oldest = {account: [row.song for row in queue] for account, queue in years.queues.items()}
    for day in range(60):
        now = START + timedelta(days=day + 1)
        for account, queue in years.queues.items():
            for _ in range(10):
                years.songs += 1
                queue.append(DueRow(f"s{years.songs}", 1000, now, UUID(int=account)))
        years.spend(10, now, deque())
    for account, bought in years.bought.items():
        places = {song: place for place, (_, song) in enumerate(bought, 1)}
        late = [song for song in oldest[account] if places.get(song, len(bought) + 1) > PLACES_PER_OLDEST_ROW * 20]
        assert not late or len(bought) < PLACES_PER_OLDEST_ROW * 20


def purchase_months(order: Sequence[str], *, hits_a_month: int) -> dict[str, list[int]]:
    """The months in which each account's recordings are bought, from 1."""
    months: dict[str, list[int]] = {}
    for number, account in enumerate(order):
        months.setdefault(account, []).append(number // hits_a_month + 1)
    return months


def test_a_small_catalogue_is_bought_within_a_month_although_a_large_one_came_first():
    """A asks for 4,290 recordings on day 0, and all 900 hits are spent on them; B asks for 50 less played ones on day 1."""
    fair = FairShare[str]()
    fair.add("A", waiting=4290)
    assert set(fair.take(900)) == {"A"}
    fair.add("B", waiting=50)
    months = purchase_months(list(fair.take(4290 - 900 + 50)), hits_a_month=900)
    assert set(months["B"]) == {1}, "as soon as hits are available again"
    assert len(months["B"]) == 50
    assert max(months["A"]) == 4, "no month later than without B"
