"""Parses daily plays that an artist exported from Spotify for Artists: a CSV file with the columns `date` and `streams`. Pure."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from measurement_pipeline.domain.dates import parse_date
from measurement_pipeline.domain.text import counted

FORMAT = "spotify-for-artists"
METRIC = "daily_streams"
DATA_SOURCE = "spotify_for_artists"
MAX_FILE_BYTES = 5 * 1024 * 1024

_COLUMNS = ("date", "streams")
# Spotify was launched in October 2008.
_EARLIEST = date(2008, 10, 1)
_MAX_STREAMS = 10**12


class UnreadableHistoryError(ValueError):
    """The file is no such export. The message names the line, the value and what is expected."""


@dataclass(frozen=True, slots=True)
class ExportedHistory:
    """Daily plays by day, in order of the days."""

    days: tuple[date, ...]
    plays: tuple[int, ...]

    @property
    def missing_days(self) -> int:
        """How many days between the first and the last have no figure."""
        return (self.days[-1] - self.days[0]).days + 1 - len(self.days)


def parse_exported_history(text: str, *, today: date) -> ExportedHistory:
    """The daily plays of a file. One wrong line refuses the whole file. Raises `UnreadableHistoryError`."""
    found: dict[date, int] = {}
    for number, day_text, plays_text in _lines(text):
        day = parse_date(day_text)
        # A day later than ours, because the export may use another time zone.
        if day is None or not _EARLIEST <= day <= today + timedelta(days=1):
            expected = f"a day from {_EARLIEST} to {today}, written YYYY-MM-DD"
            raise UnreadableHistoryError(f"line {number}: date {day_text[:20]!r}: expected {expected}")
        if not (plays_text.isascii() and plays_text.isdecimal() and len(plays_text) <= len(str(_MAX_STREAMS))):
            raise UnreadableHistoryError(f"line {number}: streams {plays_text[:20]!r}: expected a whole number")
        plays = int(plays_text)
        if found.setdefault(day, plays) != plays:
            raise UnreadableHistoryError(f"line {number}: {day} has {found[day]} streams on an earlier line")
    if not found:
        raise UnreadableHistoryError("the file has no line below its header")
    days = sorted(found)
    return ExportedHistory(tuple(days), tuple(found[day] for day in days))


def describe_history(history: ExportedHistory) -> str:
    """`365 days from 2025-01-01 to 2025-12-31, 1,234 plays`, and the days that are missing."""
    gaps = f"; {counted(history.missing_days, 'day')} between them without a figure" if history.missing_days else ""
    days = counted(len(history.days), "day")
    return f"{days} from {history.days[0]} to {history.days[-1]}, {sum(history.plays):,} plays{gaps}"


def _lines(text: str) -> Iterator[tuple[int, str, str]]:
    """Line number, date and streams of each line below the header, which may have other columns too."""
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff")), strict=True)
    try:
        header = [name.strip().casefold() for name in next(reader, [])]
        places = [header.index(name) if header.count(name) == 1 else -1 for name in _COLUMNS]
        if -1 in places:
            raise UnreadableHistoryError(
                f"line 1: columns {', '.join(header)[:80]!r}: expected a header with `date` and `streams`, once each"
            )
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) <= max(places):
                raise UnreadableHistoryError(f"line {reader.line_num}: expected {len(header)} columns, got {len(row)}")
            yield reader.line_num, row[places[0]].strip(), row[places[1]].strip()
    except csv.Error as error:
        raise UnreadableHistoryError(f"line {reader.line_num}: not CSV ({error})") from None
