"""Plans: order by rank, the places of the rows that wait longest, and ranges of due rows only."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measurement_pipeline.domain import plan
from measurement_pipeline.domain.backfill_queue import DueRow
from measurement_pipeline.domain.plan import (
    MAX_PLACES,
    MAX_RANGES,
    MAX_RECORDINGS_PER_RUN,
    PLACES_PER_OLDEST_ROW,
    PartitionRange,
    choose_rows,
    run_size,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


ANN, BOB = UUID(int=1), UUID(int=2)


def a_row(number: int, *, rank: int = 0, age: int = 0, account: UUID = ANN) -> DueRow:
    return DueRow(f"s{number}", rank, START + timedelta(seconds=age), account)


def plan_ranges(
    rows: Sequence[DueRow],
    *,
    registered: Mapping[str, int],
    covered: AbstractSet[str],
    budget: int,
    placed_before: int,
    order: Sequence[UUID] | None = None,
    requests_per_second: float = 0.0,
) -> list[PartitionRange]:
    """A plan of one account's rows, or for the accounts of `order`."""
    open_rows = [row for row in rows if row.song in registered and row.song not in covered]
    places = max(0, min(budget - len(covered), len(open_rows), MAX_PLACES))
    order = [ANN] * places if order is None else order[:places]
    hits_before = {ANN: placed_before}
    chosen = choose_rows(order, open_rows, hits_before=hits_before)
    return plan.plan_ranges(
        chosen,
        order,
        registered,
        hits_before=hits_before,
        read_beside=lambda *_: (open_rows, registered),
        requests_per_second=requests_per_second,
    )


def in_order(rows: Iterable[DueRow]) -> list[DueRow]:
    """In the order of the queue: best rank first, then the oldest."""
    return sorted(rows, key=lambda row: (-row.rank_score, row.waiting_since, row.song))


def registered_as_given(rows: Iterable[DueRow]) -> dict[str, int]:
    return {row.song: place for place, row in enumerate(rows)}


def songs(ranges: Iterable[PartitionRange]) -> list[str]:
    return [song for one in ranges for song in one.songs]


def shuffled(count: int, step: int) -> list[int]:
    """0 … count-1 in a scattered, repeatable order; `step` shares no factor with `count`."""
    return [(place * step) % count for place in range(count)]


def test_all_due_rows_are_planned_best_rank_first():
    rows = in_order(a_row(n, rank=n, age=n) for n in range(15))
    ranges = plan_ranges(rows, registered=registered_as_given(rows), covered=set(), budget=100, placed_before=0)
    assert [one.songs for one in ranges] == [tuple(row.song for row in rows)]


def test_every_tenth_place_goes_to_the_row_that_has_waited_longest():
    """The best rank is the youngest row, so rank and age never agree; only every other row is registered."""
    rows = in_order(a_row(n, rank=n, age=n) for n in range(100))
    registered = {row.song: 2 * place for place, row in enumerate(rows)}
    ranges = plan_ranges(rows, registered=registered, covered=set(), budget=20, placed_before=0)
    assert songs(ranges) == [
        *[f"s{99 - n}" for n in range(9)], "s0", *[f"s{90 - n}" for n in range(9)], "s1",
    ]  # fmt: skip


def test_the_tenth_place_is_counted_over_plans_of_one():
    rows = in_order(a_row(n, rank=n, age=n) for n in range(100))
    planned = [
        songs(plan_ranges(rows, registered=registered_as_given(rows), covered=set(), budget=1, placed_before=before))
        for before in range(20)
    ]
    assert [before for before, result in enumerate(planned) if result == ["s0"]] == [9, 19]
    assert all(result == ["s99"] for before, result in enumerate(planned) if before not in (9, 19))


def test_equal_ranks_are_ordered_by_age():
    rows = in_order(a_row(n, rank=7, age=100 - n) for n in range(30))
    ranges = plan_ranges(rows, registered=registered_as_given(rows), covered=set(), budget=5, placed_before=0)
    assert songs(ranges) == ["s29", "s28", "s27", "s26", "s25"]


@pytest.mark.parametrize("budget", [0, -5])
def test_a_plan_without_budget_is_empty(budget: int):
    rows = [a_row(1)]
    assert plan_ranges(rows, registered={"s1": 0}, covered=set(), budget=budget, placed_before=0) == []


def test_a_plan_without_rows_is_empty():
    assert plan_ranges([], registered={}, covered=set(), budget=10, placed_before=0) == []


def test_rows_of_unfinished_runs_are_excluded_and_subtracted_from_the_budget():
    rows = in_order(a_row(n, rank=100 - n) for n in range(10))
    covered = {"s0", "s1", "elsewhere"}
    ranges = plan_ranges(rows, registered=registered_as_given(rows), covered=covered, budget=5, placed_before=0)
    assert songs(ranges) == ["s2", "s3"]


def test_a_row_without_a_partition_is_not_planned_and_delays_no_other():
    rows = in_order(a_row(n, rank=100 - n) for n in range(5))
    registered = {row.song: place for place, row in enumerate(rows) if row.song != "s0"}
    ranges = plan_ranges(rows, registered=registered, covered=set(), budget=5, placed_before=0)
    assert [one.songs for one in ranges] == [("s1", "s2", "s3", "s4")]


def test_a_range_ends_before_a_partition_that_is_not_due():
    rows = in_order(a_row(n, rank=100 - n) for n in range(6))
    registered = {f"s{n}": n + (n >= 3) for n in range(6)}  # something settled is registered between s2 and s3
    ranges = plan_ranges(rows, registered=registered, covered=set(), budget=6, placed_before=0)
    assert [one.songs for one in ranges] == [("s0", "s1", "s2"), ("s3", "s4", "s5")]


@pytest.mark.parametrize(
    ("due", "requests_per_second", "size"),
    [
        (0, 0, 100),
        (150, 0, 150),
        (3000, 0, 3000),
        (10**6, 0, 10_000),
        (3000, 5, 600),
        (3000, 0.1, 100),
        (3000, 200, 3000),
    ],
)
def test_a_run_covers_what_is_due_as_far_as_the_pace_allows_in_two_minutes(
    due: int, requests_per_second: float, size: int
):
    assert run_size(due, requests_per_second) == size


def test_a_plan_has_at_most_ten_thousand_recordings_in_one_run_or_several():
    rows = in_order(a_row(n, rank=20_000 - n) for n in range(20_000))
    situation = {"registered": registered_as_given(rows), "covered": set(), "budget": 10**6, "placed_before": 0}
    assert [len(one.songs) for one in plan_ranges(rows, **situation)] == [MAX_RECORDINGS_PER_RUN]
    assert [len(one.songs) for one in plan_ranges(rows, **situation, requests_per_second=5)] == [600] * 16 + [400]


def test_scattered_ranks_of_one_age_are_planned_in_whole_blocks():
    """A catalogue enqueued at once and registered in another order than its ranks."""
    rows = in_order(a_row(n, rank=rank) for n, rank in enumerate(shuffled(3000, 1361)))
    registered = {f"s{n}": n for n in range(3000)}
    ranges = plan_ranges(rows, registered=registered, covered=set(), budget=1500, placed_before=0)
    assert len(ranges) == MAX_RANGES
    assert rows[0].song in ranges[0].songs
    assert len(songs(ranges)) > 1000, "blocks, not runs of one or two"


def test_scattered_ranks_registered_by_arrival_are_planned_in_whole_blocks():
    """Many small requests, one after the other, of any rank."""
    rows = in_order(a_row(n, rank=rank, age=n // 5) for n, rank in enumerate(shuffled(3000, 1361)))
    registered = {f"s{n}": n for n in range(3000)}
    ranges = plan_ranges(rows, registered=registered, covered=set(), budget=1500, placed_before=0)
    assert len(ranges) == MAX_RANGES
    assert len(songs(ranges)) > 500
    assert has_promised_rows(ranges, rows, placed_before=0)


def test_a_large_block_of_good_ranks_does_not_displace_old_rows():
    """One block holds the best five hundred; the old ones are scattered, each in its own range."""
    best = [a_row(n, rank=10_000 - n, age=1000) for n in range(2000)]
    old = [a_row(10_000 + 2 * n, rank=1, age=n) for n in range(300)]
    registered = {row.song: int(row.song[1:]) for row in best + old}
    rows = in_order(best + old)
    ranges = plan_ranges(rows, registered=registered, covered=set(), budget=900, placed_before=0)
    assert len(ranges) <= MAX_RANGES
    assert has_promised_rows(ranges, rows, placed_before=0)
    assert len(songs(ranges)) > 100


def test_a_plan_of_two_accounts_holds_what_is_due_to_each_and_its_ranges_start_with_the_best_place():
    ann = [a_row(n, rank=1000 - n) for n in range(300)]
    bob = [a_row(1000 + n, rank=1, age=n, account=BOB) for n in range(5)]
    rows = in_order(ann + bob)
    order = [ANN, BOB] * 5 + [ANN] * 10
    ranges = plan_ranges(
        rows, registered=registered_as_given(rows), covered=set(), budget=100, placed_before=0, order=order
    )
    assert [one.songs for one in ranges] == [
        tuple(row.song for row in ann[:15]), tuple(row.song for row in bob),
    ]  # fmt: skip


def test_a_plan_is_not_widened_beyond_the_share_of_an_account():
    """Ann's rows lie together, and Bob's apart: no more of Ann's are planned than Bob's places allow."""
    ann = [a_row(n, rank=10_000 - (n * 7) % 1000) for n in range(1000)]
    bob = [a_row(10_000 + 2 * n, rank=1, account=BOB) for n in range(500)]
    registered = {row.song: int(row.song[1:]) for row in ann + bob}
    ranges = plan_ranges(
        in_order(ann + bob),
        registered=registered,
        covered=set(),
        budget=600,
        placed_before=0,
        order=[ANN, BOB] * 300,
    )
    assert len(ranges) <= MAX_RANGES
    planned = songs(ranges)
    of_bob = sum(registered[song] >= 10_000 for song in planned)
    assert of_bob > 0
    assert of_bob <= len(planned) - of_bob <= of_bob + 1


def has_promised_rows(ranges: Sequence[PartitionRange], open_rows: Sequence[DueRow], *, placed_before: int) -> bool:
    """Whether the plan contains as many of the oldest rows as it has tenth places."""
    planned = set(songs(ranges))
    turns = (placed_before + len(planned)) // PLACES_PER_OLDEST_ROW - placed_before // PLACES_PER_OLDEST_ROW
    oldest_left_out = min((row.waiting_since for row in open_rows if row.song not in planned), default=None)
    if oldest_left_out is None:
        return True
    return sum(row.waiting_since <= oldest_left_out for row in open_rows if row.song in planned) >= turns


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[DueRow], dict[str, int], set[str], int, int]:
    count = draw(st.integers(0, 300))
    spread = draw(st.sampled_from([1, 3, 1000]))
    numbers = st.integers(0, spread * 300)
    rows = [a_row(n, rank=draw(numbers), age=draw(numbers)) for n in range(count)]
    # Some partitions between them are not due, in no particular order.
    places = draw(st.permutations(range(count))) if draw(st.booleans()) else range(count)
    gap = draw(st.integers(2, 40))
    registered = {f"s{n}": place + place // gap for n, place in enumerate(places) if n % 17}
    covered = {f"s{n}" for n in range(0, count, draw(st.integers(5, 50)))} if draw(st.booleans()) else set()
    return rows, registered, covered, draw(st.integers(0, 400)), draw(st.integers(0, 50))


@given(situations())
def test_a_range_is_contiguous_and_has_only_registered_due_rows_without_a_run(
    situation: tuple[list[DueRow], dict[str, int], set[str], int, int],
):
    rows, registered, covered, budget, before = situation
    due = in_order(rows)
    ranges = plan_ranges(due, registered=registered, covered=covered, budget=budget, placed_before=before)
    planned = songs(ranges)
    open_rows = [row for row in due if row.song in registered and row.song not in covered]
    assert len(ranges) <= MAX_RANGES
    assert len(planned) == len(set(planned)) <= max(0, budget - len(covered))
    assert set(planned) <= {row.song for row in open_rows}
    for one in ranges:
        assert 1 <= len(one.songs) <= run_size(len(open_rows))
        assert all(registered[b] == registered[a] + 1 for a, b in pairwise(one.songs))
    assert has_promised_rows(ranges, open_rows, placed_before=before)
    assert bool(planned) == bool(open_rows and budget > len(covered))


@given(
    queue=st.lists(st.integers(0, 1000), min_size=1, max_size=60),
    arrivals=st.lists(st.integers(0, 1000), max_size=15),
    budget=st.sampled_from([1, 2, 7, 25, 200]),
    scattered=st.booleans(),
    before=st.integers(0, 30),
)
def test_a_due_row_waits_at_most_ten_times_its_place_by_age(
    queue: list[int], arrivals: list[int], budget: int, *, scattered: bool, before: int
):
    """Plan repeatedly while better ranked rows arrive; each plan is bought before the next."""
    rows = {f"s{n}": a_row(n, rank=rank, age=n) for n, rank in enumerate(queue)}
    promised = {f"s{n}": before + PLACES_PER_OLDEST_ROW * (n + 1) for n in range(len(queue))}
    placed = before
    while promised.keys() & rows.keys():
        registered = _places(rows, scattered=scattered)
        ranges = plan_ranges(
            in_order(rows.values()), registered=registered, covered=set(), budget=budget, placed_before=placed
        )
        bought = songs(ranges)
        assert bought
        for song in bought:
            del rows[song]
            # A plan is bought as a whole, including its rows beyond the promised ones.
            assert placed < promised.get(song, placed + 1), f"{song} was promised for {promised.get(song)}"
        placed += len(bought)
        late = {song for song in promised.keys() & rows.keys() if promised[song] <= placed}
        assert not late
        for rank in arrivals:
            number = len(promised) + placed * 100 + len(rows)
            rows[f"s{number}"] = a_row(number, rank=2000 + rank, age=number)


def _places(rows: Mapping[str, DueRow], *, scattered: bool) -> dict[str, int]:
    """In order of arrival; `scattered`: in pairs with a row between that is not due, so that a plan has to widen."""
    return {song: place + (place // 2 if scattered else 0) for place, song in enumerate(rows)}


def test_a_hundred_thousand_scattered_rows_are_planned():
    rows = in_order(a_row(n, rank=rank, age=n // 1000) for n, rank in enumerate(shuffled(100_000, 61_843)))
    registered = {f"s{n}": n for n in range(100_000)}
    ranges = plan_ranges(rows, registered=registered, covered=set(), budget=5000, placed_before=0)
    assert len(ranges) == MAX_RANGES
    assert has_promised_rows(ranges, rows, placed_before=0)
