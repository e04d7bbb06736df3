"""Which of the due rows to ask for next, as contiguous ranges of partitions.

Dagster launches a range as "every partition between two, in order of registration", so a plan is made of stretches
that hold nothing but due rows. Pure: rows, order of registration and budget in, ranges out.
"""

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

MAX_RANGES = 20
RECORDINGS_PER_RUN = 100
MAX_RECORDINGS_PER_RUN = 500

# One place in so many goes to the row that has waited longest.
PLACES_PER_OLDEST_ROW = 10


class Due(Protocol):
    """A row that may be bought now."""

    @property
    def song(self) -> str: ...  # noqa: D102
    @property
    def waiting_since(self) -> datetime: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class PartitionRange:
    """Partitions from `songs[0]` to `songs[-1]` in order of registration; every one of them is due."""

    songs: tuple[str, ...]


def plan_ranges(
    due: Sequence[Due], *, registered: Mapping[str, int], covered: AbstractSet[str], budget: int, placed_before: int
) -> list[PartitionRange]:
    """The ranges to launch, the one with the best row first.

    `due` is in order of rank, then age. `registered`: place of each partition in order of registration; a row without
    one cannot be asked for yet. `covered`: rows that runs under way will see to; they count against `budget` (hits
    left). `placed_before`: rows ever planned or bought, so that the one place in ten that goes to the oldest carries
    over from plan to plan, however small each is.
    """
    open_rows = [row for row in due if row.song in registered and row.song not in covered]
    places = min(budget - len(covered), len(open_rows), MAX_RANGES * MAX_RECORDINGS_PER_RUN)
    if places <= 0:
        return []
    size = run_size(len(open_rows))
    chosen = _choose_songs(open_rows, places, placed_before)
    ranges = _group_into_ranges(chosen, registered, size)
    if len(ranges) <= MAX_RANGES:
        return ranges
    while len(ranges) > MAX_RANGES:
        # The beginning of the order keeps the order's promise. It ends at as many rows as there may be ranges.
        chosen = chosen[: max(MAX_RANGES, len(chosen) * 9 // 10)]
        ranges = _group_into_ranges(chosen, registered, size)
    return _widen_ranges(ranges, open_rows, registered, size=size, places=places, placed_before=placed_before)


def run_size(due: int) -> int:
    """Recordings a run: 100, and up to 500 where the queue is deep, since a larger run costs less a recording."""
    return max(RECORDINGS_PER_RUN, min(MAX_RECORDINGS_PER_RUN, due // 2))


def _choose_songs(rows: Sequence[Due], places: int, placed_before: int) -> list[str]:
    """So many songs: the best ranked, but each tenth place, counted over all plans, for the one that waits longest."""
    by_age = iter(sorted(range(len(rows)), key=lambda place: (rows[place].waiting_since, place)))
    by_rank = iter(range(len(rows)))
    taken: set[int] = set()
    chosen: list[str] = []
    for place in range(placed_before + 1, placed_before + places + 1):
        turn = by_age if place % PLACES_PER_OLDEST_ROW == 0 else by_rank
        index = next(i for i in turn if i not in taken)
        taken.add(index)
        chosen.append(rows[index].song)
    return chosen


def _group_into_ranges(chosen: Sequence[str], registered: Mapping[str, int], size: int) -> list[PartitionRange]:
    """`chosen` as contiguous ranges of at most `size`, in order of the best place that each holds."""
    place_of = {song: place for place, song in enumerate(chosen)}
    found: list[list[str]] = []
    for song in sorted(chosen, key=registered.__getitem__):
        last = found[-1] if found else []
        if last and len(last) < size and registered[last[-1]] + 1 == registered[song]:
            last.append(song)
        else:
            found.append([song])
    return [PartitionRange(tuple(r)) for r in sorted(found, key=lambda r: min(place_of[song] for song in r))]


def _widen_ranges(
    ranges: Sequence[PartitionRange],
    rows: Sequence[Due],
    registered: Mapping[str, int],
    *,
    size: int,
    places: int,
    placed_before: int,
) -> list[PartitionRange]:
    """Scattered ranks: each range grows over the due rows beside it, rather than twenty runs of one or two.

    It grows no further than keeps the promise to those that wait longest. The range that holds the oldest row grows
    first: its neighbours are often as old, and each old row that is taken makes room for nine others.
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
                # Of rows that wait equally long any will do: all taken that are no younger than the oldest left count.
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
    """How many of the next so many places go to those that wait longest."""
    return (placed_before + places) // PLACES_PER_OLDEST_ROW - placed_before // PLACES_PER_OLDEST_ROW
