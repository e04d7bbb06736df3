"""Plans the next runs: which due rows, as contiguous ranges of partitions.

Dagster launches a range as "every partition between two, in order of registration", so each range holds only due rows. Pure:
rows, order of registration and budget in, ranges out.
"""

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from measurement_pipeline.domain.backfill_queue import DueRow

MAX_RANGES = 20
RECORDINGS_PER_RUN = 100
MAX_RECORDINGS_PER_RUN = 10_000
# At most so many rows are planned at once.
MAX_PLACES = 10_000
# A run covers no more than the pace allows in this time, because other launches wait for its slot.
SECONDS_PER_RUN = 120.0

# One place in this many goes to the row that has waited longest.
PLACES_PER_OLDEST_ROW = 10


@dataclass(frozen=True, slots=True)
class PartitionRange:
    """Partitions from `songs[0]` to `songs[-1]` in order of registration; every one of them is due."""

    songs: tuple[str, ...]


def plan_ranges(
    due: Sequence[DueRow],
    *,
    registered: Mapping[str, int],
    covered: AbstractSet[str],
    budget: int,
    placed_before: int,
    requests_per_second: float = 0.0,
) -> list[PartitionRange]:
    """The ranges to launch, the one with the best row first.

    `due` is in order of rank, then age. `registered`: place of each partition in order of registration; a row without one cannot
    be launched yet. `covered`: rows of unfinished runs, which count against `budget` (hits left). `placed_before`: rows planned
    or bought so far, so that one place in ten goes to the oldest row across plans, however small each plan is.
    `requests_per_second` 0: no pace limit.
    """
    open_rows = [row for row in due if row.song in registered and row.song not in covered]
    places = min(budget - len(covered), len(open_rows), MAX_PLACES)
    if places <= 0:
        return []
    size = run_size(len(open_rows), requests_per_second)
    chosen = _choose_songs(open_rows, places, placed_before)
    ranges = _group_into_ranges(chosen, registered, size)
    if len(ranges) <= MAX_RANGES:
        return ranges
    while len(ranges) > MAX_RANGES:
        # Shorten from the end, which keeps the order. The loop ends at the latest with one row for each range.
        chosen = chosen[: max(MAX_RANGES, len(chosen) * 9 // 10)]
        ranges = _group_into_ranges(chosen, registered, size)
    return _widen_ranges(ranges, open_rows, registered, size=size, places=places, placed_before=placed_before)


def run_size(due: int, requests_per_second: float = 0.0) -> int:
    """Recordings per run: all that are due, as far as the pace allows, since starting a run takes seconds. At least 100."""
    at_this_pace = int(requests_per_second * SECONDS_PER_RUN) or MAX_RECORDINGS_PER_RUN
    return max(RECORDINGS_PER_RUN, min(MAX_RECORDINGS_PER_RUN, at_this_pace, due))


def _choose_songs(rows: Sequence[DueRow], places: int, placed_before: int) -> list[str]:
    """Choose `places` songs: the best ranked, but each tenth place, counted across plans, for the longest waiting."""
    by_age = iter(sorted(range(len(rows)), key=lambda place: (rows[place].waiting_since, place)))
    by_rank = iter(range(len(rows)))
    taken: set[int] = set()
    chosen: list[str] = []
    for place in range(placed_before + 1, placed_before + places + 1):
        order = by_age if place % PLACES_PER_OLDEST_ROW == 0 else by_rank
        index = next(i for i in order if i not in taken)
        taken.add(index)
        chosen.append(rows[index].song)
    return chosen


def _group_into_ranges(chosen: Sequence[str], registered: Mapping[str, int], size: int) -> list[PartitionRange]:
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
    rows: Sequence[DueRow],
    registered: Mapping[str, int],
    *,
    size: int,
    places: int,
    placed_before: int,
) -> list[PartitionRange]:
    """Grow each range over its neighbouring due rows, so that scattered ranks do not make twenty runs of one or two.

    Growth stops where the oldest rows would lose their places. The range with the oldest row grows first: its neighbours are
    often as old, and each old row makes room for nine others.
    """
    song_at = {registered[row.song]: row.song for row in rows}
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
                if oldest_taken < _places_of_oldest(placed_before, len(taken) + 1):
                    break
                taken.add(beside)
                insort(taken_ages, since[beside])
                if step > 0:
                    songs.append(beside)
                else:
                    songs.appendleft(beside)
    return [PartitionRange(tuple(songs)) for songs in grown]


def _places_of_oldest(placed_before: int, places: int) -> int:
    """How many of the next `places` go to the longest waiting rows."""
    return (placed_before + places) // PLACES_PER_OLDEST_ROW - placed_before // PLACES_PER_OLDEST_ROW
