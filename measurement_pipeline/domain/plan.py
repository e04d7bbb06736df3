"""Which of the due rows to ask for next, as contiguous ranges of partitions.

Dagster launches a range as "every partition between two, in order of registration", so a plan is made of stretches that hold
nothing but due rows. Pure: rows, order of registration and budget in, ranges out.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

MAX_RANGES = 20
RECORDINGS_A_RUN = 100
MOST_RECORDINGS_A_RUN = 500

# One place in so many goes to the row that has waited longest.
PLACES_PER_OLDEST = 10


class Due(Protocol):
    """A row that may be bought now."""

    @property
    def song(self) -> str: ...  # noqa: D102
    @property
    def waiting_since(self) -> datetime: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Range:
    """Partitions from `songs[0]` to `songs[-1]` in order of registration; every one of them is due."""

    songs: tuple[str, ...]


def plan(
    due: Sequence[Due], *, registered: Mapping[str, int], covered: Set[str], budget: int, placed_before: int
) -> list[Range]:
    """The ranges to launch, the one with the best row first.

    `due` is in order of rank, then age. `registered`: place of each partition in order of registration; a row without one
    cannot be asked for yet. `covered`: rows that runs under way will see to; they count against `budget` (hits left).
    `placed_before`: rows ever planned or bought, so that the one place in ten that goes to the oldest carries over from plan to
    plan, however small each is.
    """
    open_rows = [row for row in due if row.song in registered and row.song not in covered]
    places = min(budget - len(covered), len(open_rows), MAX_RANGES * MOST_RECORDINGS_A_RUN)
    if places <= 0:
        return []
    size = run_size(len(open_rows))
    chosen = _in_turn(open_rows, places, placed_before)
    ranges = _ranges(chosen, registered, size)
    if len(ranges) > MAX_RANGES:
        ranges = _widened(ranges[:MAX_RANGES], open_rows, registered, size, places)
    return ranges


def run_size(due: int) -> int:
    """Recordings a run: 100, and up to 500 where the queue is deep, since a larger run costs less a recording."""
    return max(RECORDINGS_A_RUN, min(MOST_RECORDINGS_A_RUN, due // 4))


def _in_turn(rows: Sequence[Due], places: int, placed_before: int) -> list[str]:
    """So many songs: the best ranked, but each tenth place, counted over all plans, for the one that waits longest."""
    by_age = iter(sorted(range(len(rows)), key=lambda place: (rows[place].waiting_since, place)))
    by_rank = iter(range(len(rows)))
    taken: set[int] = set()
    chosen: list[str] = []
    for place in range(placed_before + 1, placed_before + places + 1):
        turn = by_age if place % PLACES_PER_OLDEST == 0 else by_rank
        index = next(i for i in turn if i not in taken)
        taken.add(index)
        chosen.append(rows[index].song)
    return chosen


def _ranges(chosen: Sequence[str], registered: Mapping[str, int], size: int) -> list[Range]:
    """`chosen` as contiguous ranges of at most `size`, in order of the best place that each holds."""
    place_of = {song: place for place, song in enumerate(chosen)}
    found: list[list[str]] = []
    for song in sorted(chosen, key=registered.__getitem__):
        last = found[-1] if found else []
        if last and len(last) < size and registered[last[-1]] + 1 == registered[song]:
            last.append(song)
        else:
            found.append([song])
    return [Range(tuple(r)) for r in sorted(found, key=lambda r: min(place_of[song] for song in r))]


def _widened(
    ranges: Sequence[Range], rows: Sequence[Due], registered: Mapping[str, int], size: int, places: int
) -> list[Range]:
    """Scattered ranks: each range grows over the due rows beside it, rather than twenty runs of one or two.

    It grows no further than keeps the promise to the oldest: of what is planned, at least a tenth, counted by age.
    """
    song_at = {registered[row.song]: row.song for row in rows}
    taken = {song for r in ranges for song in r.songs}
    by_age = [row.song for row in sorted(rows, key=lambda row: row.waiting_since)]
    oldest = 0
    grown = []
    for r in ranges:
        songs = list(r.songs)
        while len(songs) < size and len(taken) < places:
            beside = song_at.get(registered[songs[-1]] + 1)
            while oldest < len(by_age) and by_age[oldest] in taken:
                oldest += 1
            if beside is None or beside in taken or len(taken) >= PLACES_PER_OLDEST * (oldest + 1):
                break
            songs.append(beside)
            taken.add(beside)
        grown.append(Range(tuple(songs)))
    return grown
