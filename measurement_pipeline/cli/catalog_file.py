"""Parses a catalogue file: valid lines as values, invalid ones with the problem and what was expected. No I/O.

UTF-8 CSV with a header. The columns may have any order, `isrc` is required, and unknown columns are ignored. The header
determines whether commas, semicolons or tabs separate the fields.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from measurement_pipeline.domain import isrc
from measurement_pipeline.domain.dates import parse_date
from measurement_pipeline.postgres.songs import CatalogLine

COLUMNS = ("isrc", "title", "artist", "album", "release_date", "play_count", "spotify_album_id")
LARGEST_COUNT = 2**63 - 1

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_YEAR_OR_MONTH = re.compile(r"([0-9]{4})(?:-(0[1-9]|1[0-2])(?:-00)?|-00-00)?")
# The replacement character, which stands for a lost byte. Its three UTF-8 bytes read as Latin-1, one conversion later. Its low
# byte alone, which is y with an acute in Latin-1, for each letter of a title; no language has three in a row.
_GARBLED = (
    "\N{REPLACEMENT CHARACTER}",
    "\N{LATIN SMALL LETTER I WITH DIAERESIS}\N{INVERTED QUESTION MARK}\N{VULGAR FRACTION ONE HALF}",
    "\N{LATIN SMALL LETTER Y WITH ACUTE}" * 3,
)
_COUNT = re.compile(r"[0-9]{1,19}")
_MAX_LENGTH = 40


class NotACatalogError(ValueError):
    """The file as a whole cannot be parsed; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """An invalid line, which is skipped. `number` starts at 1 for the header, as in an editor."""

    number: int
    problem: str


@dataclass(frozen=True, slots=True)
class LineWarning:
    """A line whose recording is loaded, with a problem that a person should review."""

    number: int
    isrc: str
    problem: str


@dataclass(slots=True)
class CatalogFile:
    """The content of a file: each recording once, the invalid lines, and the number of repeated lines."""

    lines: dict[str, CatalogLine] = field(default_factory=dict)
    bad: list[BadLine] = field(default_factory=list)
    warnings: list[LineWarning] = field(default_factory=list)
    repeated: int = 0


def read(text: str) -> CatalogFile:
    """Parse the catalogue in `text`. Raises `NotACatalogError` without a usable header."""
    # Not splitlines, which splits at other characters too, and a title may contain one.
    lines = io.StringIO(text).readlines()
    try:
        separator = _separator(lines[:1])
        columns = _header(next(csv.reader(lines[:1], delimiter=separator), []))
    except csv.Error as error:
        raise NotACatalogError(f"line 1 is not CSV: {error}") from error
    found = CatalogFile()
    first_seen: dict[str, int] = {}
    for number, row in _records(lines, separator, width=len(columns)):
        if isinstance(row, str):
            found.bad.append(BadLine(number, row))
        elif any(value.strip() for value in row):
            _add(row, number, columns, first_seen, found)
    return found


def _records(lines: Sequence[str], separator: str, *, width: int) -> Iterator[tuple[int, list[str] | str]]:
    """Yield each record after the header, or its problem, with the number of its first line.

    An unclosed quote would swallow all following lines. So an invalid record of several lines counts as one invalid line,
    and parsing continues at its second line.
    """
    start = reader_start = 1
    reader = csv.reader(islice(lines, start, None), delimiter=separator, strict=True)
    while True:
        row: list[str] | str
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            row = f"not CSV: {error}"
        end = reader_start + reader.line_num
        if end - start > 1 and (isinstance(row, str) or len(row) != width):
            row = "a quote opens and is not closed on the same line: expected a closing quote"
            end = reader_start = start + 1
            reader = csv.reader(islice(lines, end, None), delimiter=separator, strict=True)
        yield start + 1, row
        start = end


def _separator(header: Sequence[str]) -> str:
    """The separator with which the header contains the most known columns; by default a comma."""

    def known_columns(separator: str) -> int:
        return sum(name in COLUMNS for name in _names(next(csv.reader(header, delimiter=separator), [])))

    return max(_SEPARATORS, key=known_columns)


def _names(row: list[str]) -> list[str]:
    return [name.strip().lower() for name in row]


def _header(row: list[str]) -> list[str]:
    columns = _names(row)
    if not columns:
        raise NotACatalogError(
            f"the file is empty: expected a header with the column isrc; known columns: {', '.join(COLUMNS)}"
        )
    if "isrc" not in columns:
        raise NotACatalogError(
            f"line 1 is {_shorten(','.join(row))}: expected a header with the column isrc; known columns: "
            f"{', '.join(COLUMNS)}; fields may be "
            f"separated by {', '.join(_SEPARATORS.values())}"
        )
    repeated = sorted({name for name in columns if name in COLUMNS and columns.count(name) > 1})
    if repeated:
        raise NotACatalogError(f"the header contains {', '.join(repeated)} more than once: expected it once")
    return columns


def _add(row: list[str], number: int, columns: list[str], first_seen: dict[str, int], found: CatalogFile) -> None:
    if len(row) != len(columns):
        found.bad.append(BadLine(number, f"{len(row)} columns: expected {len(columns)}, as in the header"))
        return
    values = {name: value.strip() for name, value in zip(columns, row, strict=True)}
    line = _line(values)
    if isinstance(line, str):
        found.bad.append(BadLine(number, line))
        return
    earlier = found.lines.setdefault(line.isrc, line)
    if earlier is line:
        first_seen[line.isrc] = number
        found.warnings.extend(LineWarning(number, line.isrc, problem) for problem in _warnings(values, line))
    elif earlier == line:
        found.repeated += 1
    else:
        found.bad.append(
            BadLine(number, f"isrc {line.isrc} was on line {first_seen[line.isrc]} with other values: expected it once")
        )


def _line(values: dict[str, str]) -> CatalogLine | str:
    """Return the recording of one line, or all problems of the line."""
    problems = []
    recording = isrc.normalise_isrc(values["isrc"])
    if recording is None:
        problems.append(f"isrc {_shorten(values['isrc'])}: expected twelve characters such as GBUM72501895")
    released = None
    if values.get("release_date"):
        released = parse_date(values["release_date"])
        if released is None and not _YEAR_OR_MONTH.fullmatch(values["release_date"]):
            problems.append(
                f"release_date {_shorten(values['release_date'])}: expected YYYY-MM-DD, YYYY-MM, YYYY, or nothing"
            )
    count = None
    if values.get("play_count"):
        text = values["play_count"]
        count = int(text) if _COUNT.fullmatch(text) else None
        if count is None or count > LARGEST_COUNT:
            problems.append(
                f"play_count {_shorten(text)}: expected a whole number from 0 to {LARGEST_COUNT}, or nothing"
            )
    # PostgreSQL's text type cannot store NUL, and one such title would fail the whole file.
    problems.extend(
        f"{name}: contains a NUL character"
        for name in ("title", "artist", "album", "spotify_album_id")
        if "\0" in values.get(name, "")
    )
    if problems or recording is None:
        return "; ".join(problems)
    return CatalogLine(
        isrc=recording,
        title=values.get("title") or None,
        artist=values.get("artist") or None,
        album=values.get("album") or None,
        release_date=released,
        play_count=count,
        # A recording with a reissue is on several albums.
        album_ids=tuple(dict.fromkeys(values.get("spotify_album_id", "").replace(";", " ").split())),
    )


def _warnings(values: dict[str, str], line: CatalogLine) -> list[str]:
    """Return the problems of a loaded line that a person should review."""
    warnings = [
        f"{name} {_shorten(values[name])} is garbled: a conversion lost characters. Correct the file and import it again"
        for name in ("title", "artist", "album")
        if any(sign in values.get(name, "") for sign in _GARBLED)
    ]
    if values.get("release_date") and line.release_date is None:
        # Storing January 1 would invent a day, and views would count from it.
        warnings.append(f"release_date {_shorten(values['release_date'])} has no day: no release date is stored")
    return warnings


def _shorten(text: str) -> str:
    return repr(text if len(text) <= _MAX_LENGTH else text[:_MAX_LENGTH] + "…")
