"""Reads a catalogue file: good lines as values, bad ones named with what was expected. Pure: text in, values out.

UTF-8 CSV with a header; columns in any order, `isrc` required, others ignored where this project has no use for them. Fields are
separated by the comma, semicolon or tab that the header uses.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from measurement_pipeline.domain import isrc
from measurement_pipeline.domain.dates import parse_date
from measurement_pipeline.postgres.songs import CatalogLine

COLUMNS = ("isrc", "title", "artist", "album", "release_date", "play_count", "spotify_album_id")
LARGEST_COUNT = 2**63 - 1

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_YEAR_OR_MONTH = re.compile(r"([0-9]{4})(?:-(0[1-9]|1[0-2])(?:-00)?|-00-00)?")
# The replacement character: a byte was lost. Its three bytes read as Latin-1: the same, one conversion later. Its low byte alone,
# which is a y with an acute in Latin-1, for each letter of a title: no language has three in a row.
_GARBLED = (
    "\N{REPLACEMENT CHARACTER}",
    "\N{LATIN SMALL LETTER I WITH DIAERESIS}\N{INVERTED QUESTION MARK}\N{VULGAR FRACTION ONE HALF}",
    "\N{LATIN SMALL LETTER Y WITH ACUTE}" * 3,
)
_COUNT = re.compile(r"[0-9]{1,19}")
_SHOWN = 40


class NotACatalogError(ValueError):
    """The file as a whole cannot be read; the text says what was expected."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that was left out: `number` counts from 1, the header, as an editor does."""

    number: int
    problem: str


@dataclass(frozen=True, slots=True)
class LineWarning:
    """A line whose recording is loaded, with something that a person should look at."""

    number: int
    isrc: str
    problem: str


@dataclass(slots=True)
class CatalogFile:
    """What a file holds: each recording once, the bad lines, and how many lines only repeated an earlier one."""

    lines: dict[str, CatalogLine] = field(default_factory=dict)
    bad: list[BadLine] = field(default_factory=list)
    warnings: list[LineWarning] = field(default_factory=list)
    repeated: int = 0


def read(text: str) -> CatalogFile:
    """The catalogue in `text`. Raises `NotACatalogError` where there is no usable header."""
    # Not splitlines: a title may hold one of the other characters that it splits at.
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
    """Each record after the header, or what is wrong with it, with the number of the line that it begins on.

    A quote that is never closed would swallow all that follows: a record of several lines that does not come out right
    is one bad line, and reading goes on at the line after it.
    """
    start = 1
    reader = csv.reader(_from(lines, start), delimiter=separator, strict=True)
    began = start
    while True:
        row: list[str] | str
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            row = f"not CSV: {error}"
        number, ended = start, began + reader.line_num
        if ended - start > 1 and (isinstance(row, str) or len(row) != width):
            row = "a quote opens that is not closed on the line: expected a closing one"
            ended = began = start + 1
            reader = csv.reader(_from(lines, began), delimiter=separator, strict=True)
        start = ended
        yield number + 1, row


def _from(lines: Sequence[str], start: int) -> Iterator[str]:
    return (lines[place] for place in range(start, len(lines)))


def _separator(header: Sequence[str]) -> str:
    """The separator under which the first line names the most columns of a catalogue; a comma where none does."""

    def named(separator: str) -> int:
        return sum(name in COLUMNS for name in _names(next(csv.reader(header, delimiter=separator), [])))

    return max(_SEPARATORS, key=named)


def _names(row: list[str]) -> list[str]:
    return [name.strip().lower() for name in row]


def _header(row: list[str]) -> list[str]:
    columns = _names(row)
    if not columns:
        raise NotACatalogError(f"the file is empty: expected a header with isrc, of {', '.join(COLUMNS)}")
    if "isrc" not in columns:
        raise NotACatalogError(
            f"line 1 is {_shown(','.join(row))}: expected a header with isrc, of {', '.join(COLUMNS)}; fields may be "
            f"separated by {', '.join(_SEPARATORS.values())}"
        )
    twice = sorted({name for name in columns if name in COLUMNS and columns.count(name) > 1})
    if twice:
        raise NotACatalogError(f"the header names {', '.join(twice)} more than once")
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
        found.warnings.extend(LineWarning(number, line.isrc, problem) for problem in _doubts(values, line))
    elif earlier == line:
        found.repeated += 1
    else:
        found.bad.append(
            BadLine(number, f"isrc {line.isrc} was on line {first_seen[line.isrc]} with other values: expected it once")
        )


def _line(values: dict[str, str]) -> CatalogLine | str:
    """The recording of one line, or everything that is wrong with it."""
    problems = []
    recording = isrc.normalise_isrc(values["isrc"])
    if recording is None:
        problems.append(f"isrc {_shown(values['isrc'])}: expected twelve characters such as GBUM72501895")
    released = None
    if values.get("release_date"):
        released = parse_date(values["release_date"])
        if released is None and not _YEAR_OR_MONTH.fullmatch(values["release_date"]):
            problems.append(
                f"release_date {_shown(values['release_date'])}: expected YYYY-MM-DD, YYYY-MM, YYYY, or nothing"
            )
    count = None
    if values.get("play_count"):
        text = values["play_count"]
        count = int(text) if _COUNT.fullmatch(text) else None
        if count is None or count > LARGEST_COUNT:
            problems.append(f"play_count {_shown(text)}: expected a whole number from 0 to {LARGEST_COUNT}, or nothing")
    # PostgreSQL's text cannot hold it, and one such title would fail the whole file.
    problems.extend(
        f"{name}: holds a NUL character"
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
        # A reissue puts a recording on several.
        album_ids=tuple(dict.fromkeys(values.get("spotify_album_id", "").replace(";", " ").split())),
    )


def _doubts(values: dict[str, str], line: CatalogLine) -> list[str]:
    """What a person should look at in a line that is loaded."""
    found = [
        f"{name} {_shown(values[name])} is garbled: a conversion lost characters. Correct the file and import it again"
        for name in ("title", "artist", "album")
        if any(sign in values.get(name, "") for sign in _GARBLED)
    ]
    if values.get("release_date") and line.release_date is None:
        # A first of January would be a day that nobody stated, and views would count from it.
        found.append(f"release_date {_shown(values['release_date'])} has no day: no release date is stored")
    return found


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
