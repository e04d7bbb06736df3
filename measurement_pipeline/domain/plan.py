"""Plans the next runs: which due rows, as contiguous ranges of partitions.

`fair_share` decides how many rows each account gets, this module which rows of an account, and in which ranges. Dagster launches
a range as "every partition between two, in order of registration", so each range holds only rows of the plan. Pure.
"""

from bisect import bisect_right, insort
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from measurement_pipeline.domain.backfill_queue import DueRow

MAX_RANGES = 20
RECORDINGS_PER_RUN = 100
MAX_RECORDINGS_PER_RUN = 10_000
# At most so many rows are planned at once.
MAX_PLACES = 10_000
# A run covers no more than the pace allows in this time, because other launches wait for its slot.
SECONDS_PER_RUN = 120.0
# Ranges grow by at most so many partitions at each end.
_MOST_BESIDE = 500

# One place of an account in this many goes to its row that has waited longest.
PLACES_PER_OLDEST_ROW = 10


@dataclass(frozen=True, slots=True)
class PartitionRange:
    """Partitions from `songs[0]` to `songs[-1]` in order of registration; every one of them is due."""

    songs: tuple[str, ...]


def run_size(planned: int, requests_per_second: float = 0.0) -> int:
    """Recordings per run: all that are planned, as far as the pace allows, since starting a run takes seconds. At least 100."""
    at_this_pace = int(requests_per_second * SECONDS_PER_RUN) or MAX_RECORDINGS_PER_RUN
    return max(RECORDINGS_PER_RUN, min(MAX_RECORDINGS_PER_RUN, at_this_pace, planned))


def oldest_places(hits_before: int, places: int) -> int:
    """How many of an account's next `places` go to its longest waiting rows, after `hits_before` hits."""
    return (hits_before + places) // PLACES_PER_OLDEST_ROW - hits_before // PLACES_PER_OLDEST_ROW


def choose_rows(order: Sequence[UUID], rows: Iterable[DueRow], *, hits_before: Mapping[UUID, int]) -> list[DueRow]:
    """The row for each place: `order` names the account of each place.

    An account's places go to its best ranked rows, but each tenth, counted over all its hits (`hits_before`), to the row that has
    waited longest. `rows`: of each account at least as many of the best ranked as it has places, and as many of the oldest as it
    has tenth places.
    """
    rows_of: dict[UUID | None, list[DueRow]] = {}
    for row in rows:
        rows_of.setdefault(row.account, []).append(row)
    chosen_of = {
        account: iter(_choose_in_account(rows_of.get(account, []), places, hits_before.get(account, 0)))
        for account, places in Counter(order).items()
    }
    found = (next(chosen_of[account], None) for account in order)
    return [row for row in found if row is not None]


def _choose_in_account(rows: Sequence[DueRow], places: int, hits_before: int) -> list[DueRow]:
    by_age = iter(sorted(rows, key=lambda row: (row.waiting_since, -row.rank_score, row.song)))
    by_rank = iter(sorted(rows, key=lambda row: (-row.rank_score, row.waiting_since, row.song)))
    taken: set[str] = set()
    chosen: list[DueRow] = []
    for place in range(hits_before + 1, hits_before + min(places, len(rows)) + 1):
        order = by_age if place % PLACES_PER_OLDEST_ROW == 0 else by_rank
        row = next(row for row in order if row.song not in taken)
        taken.add(row.song)
        chosen.append(row)
    return chosen


def plan_ranges(
    chosen: Sequence[DueRow],
    order: Sequence[UUID | None],
    registered: Mapping[str, int],
    *,
    hits_before: Mapping[UUID, int],
    read_beside: Callable[[Sequence[PartitionRange], int], tuple[Sequence[DueRow], Mapping[str, int]]],
    requests_per_second: float = 0.0,
) -> list[PartitionRange]:
    """The ranges to launch, the one with the best place first, at most `MAX_RANGES`.

    `order`: the account of each place. `registered`: place of each chosen partition in order of registration. If `chosen` makes
    too many ranges, the last rows are left out, and `read_beside(ranges, distance)` returns the due rows that are at most so far
    from one of the ranges, and all places anew. `requests_per_second` 0: no pace limit.
    """
    size = run_size(len(chosen), requests_per_second)
    first = _longest_start(chosen, registered, size=size)
    ranges = _group_into_ranges([row.song for row in chosen[:first]], registered, size=size)
    if first == len(chosen):
        return ranges
    beside, places = read_beside(ranges, min(size, _MOST_BESIDE))
    rows = list({row.song: row for row in [*beside, *chosen]}.values())
    return _widen_ranges(ranges, order, rows, places, size=size, hits_before=hits_before)


def _longest_start(chosen: Sequence[DueRow], registered: Mapping[str, int], *, size: int) -> int:
    """How many of `chosen`, from the first, make at most `MAX_RANGES` ranges. The longest such part."""
    root: dict[int, int] = {}
    length: dict[int, int] = {}
    ranges = longest = 0

    def find(place: int) -> int:
        while root[place] != place:
            root[place] = root[root[place]]
            place = root[place]
        return place

    for count, row in enumerate(chosen, 1):
        place = registered[row.song]
        root[place], length[place] = place, 1
        ranges += 1
        for beside in (place - 1, place + 1):
            if beside in root:
                one, other = find(beside), find(place)
                ranges -= -(-length[one] // size) - (-length[other] // size)
                root[other] = one
                length[one] += length[other]
                ranges += -(-length[one] // size)
        if ranges <= MAX_RANGES:
            longest = count
    return longest


def _group_into_ranges(chosen: Sequence[str], registered: Mapping[str, int], *, size: int) -> list[PartitionRange]:
    """Group `chosen` into contiguous ranges of at most `size`, ordered by the best place in each."""
    place_of = {song: place for place, song in enumerate(chosen)}
    ranges: list[list[str]] = []
    for song in sorted(chosen, key=registered.__getitem__):
        last = ranges[-1] if ranges else []
        if last and len(last) < size and registered[last[-1]] + 1 == registered[song]:
            last.append(song)
        else:
            ranges.append([song])
    return [PartitionRange(tuple(r)) for r in sorted(ranges, key=lambda r: min(place_of[song] for song in r))]


def _widen_ranges(
    ranges: Sequence[PartitionRange],
    order: Sequence[UUID | None],
    rows: Sequence[DueRow],
    registered: Mapping[str, int],
    *,
    size: int,
    hits_before: Mapping[UUID, int],
) -> list[PartitionRange]:
    """Grow each range over its neighbouring due rows, so that scattered ranks do not make twenty runs of one or two.

    No account gets more of the places than its share: `order` names the account of each place, and the plan is as long as the
    shares of all accounts allow. `rows`: due rows in and beside the ranges, and the oldest of each account.
    """
    account_of = {row.song: row.account for row in rows}
    owners = [{account_of[song] for song in one.songs} for one in ranges]
    accounts = list(dict.fromkeys(account for account in order if account is not None))
    places = Counter(order)
    rows_of = {account: [row for row in rows if row.account == account] for account in accounts}
    # A range of several accounts stays as it is.
    own = {
        account: [one for one, owner in zip(ranges, owners, strict=True) if owner == {account}] for account in accounts
    }
    shared = Counter(
        account_of[song] for one, owner in zip(ranges, owners, strict=True) if len(owner) > 1 for song in one.songs
    )

    def grow(account: UUID, limit: int) -> list[PartitionRange]:
        return _grow(
            own[account],
            rows_of[account],
            registered,
            size=size,
            places=limit - shared[account],
            hits_before=hits_before.get(account, 0),
        )

    grown = {account: grow(account, places[account]) for account in accounts}
    available = {account: shared[account] + sum(len(one.songs) for one in grown[account]) for account in accounts}
    left = Counter(available)
    allowed: Counter[UUID] = Counter()
    for account in order:
        if account is None:
            continue
        if not left[account]:
            break
        left[account] -= 1
        allowed[account] += 1
    planned = Counter(account_of[song] for one in ranges for song in one.songs)
    for account in accounts:
        limit = max(allowed[account], planned[account])
        if limit < available[account]:
            grown[account] = grow(account, limit)
    # The order of the ranges stays: an account's ranges keep their places.
    of_account = {account: deque(found) for account, found in grown.items()}
    return [
        of_account[next(iter(owner))].popleft() if len(owner) == 1 and owner != {None} else one  # type: ignore[index]
        for one, owner in zip(ranges, owners, strict=True)
    ]


def _grow(
    ranges: Sequence[PartitionRange],
    rows: Sequence[DueRow],
    registered: Mapping[str, int],
    *,
    size: int,
    places: int,
    hits_before: int,
) -> list[PartitionRange]:
    """Grow an account's ranges to `places` rows at most.

    Growth stops where the oldest rows would lose their places. The range with the oldest row grows first: its neighbours are
    often as old, and each old row makes room for nine others.
    """
    song_at = {registered[row.song]: row.song for row in rows if row.song in registered}
    since = {row.song: row.waiting_since for row in rows}
    grown = [deque(r.songs) for r in ranges]
    taken = {song for songs in grown for song in songs}
    taken_ages = sorted(since[song] for song in taken)
    by_age = deque(sorted(rows, key=lambda row: row.waiting_since))
    for songs in sorted(grown, key=lambda songs: min(since[song] for song in songs)):
        for end, step in ((-1, 1), (0, -1)):
            while len(songs) < size and len(taken) < places:
                beside = song_at.get(registered[songs[end]] + step)
                if beside is None or beside in taken:
                    break
                while by_age[0].song in taken:
                    by_age.popleft()
                # Rows of equal age are interchangeable: every taken row no younger than the oldest one left counts.
                oldest_left = by_age[0].waiting_since
                oldest_taken = bisect_right(taken_ages, oldest_left) + (since[beside] == oldest_left)
                if oldest_taken < oldest_places(hits_before, len(taken) + 1):
                    break
                taken.add(beside)
                insort(taken_ages, since[beside])
                if step > 0:
                    songs.append(beside)
                else:
                    songs.appendleft(beside)
    return [PartitionRange(tuple(songs)) for songs in grown]
