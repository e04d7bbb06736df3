"""The routes that read measurements: of a track, an album, a catalogue. Never a vendor call, and nothing of another account's.

An account reads what is in its catalogues and what its requests asked for or captured; the rest is as if it did not exist.
"""

import asyncio
import re
import reprlib
from dataclasses import asdict
from datetime import UTC, date, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from measurement_pipeline.api import cursors, formats
from measurement_pipeline.api.auth import AuthenticatedCaller, Caller
from measurement_pipeline.api.errors import READ_RETRY_SECONDS, READ_TIMEOUT, ApiError, ErrorCode
from measurement_pipeline.api.models import Album, Catalog, Latest, Point, RunRate, Series, Totals
from measurement_pipeline.api.openapi import error_responses
from measurement_pipeline.api.parameters import reject_unknown_query_parameters
from measurement_pipeline.domain import isrc, run_rate
from measurement_pipeline.postgres import measurement_jobs, reads
from measurement_pipeline.postgres.reads import RecordingRow

NO_SUCH_TRACK = "This account has no such recording"
NO_SUCH_ALBUM = "This account has no recording on such an album"
NO_SUCH_CATALOG = "This account has no such catalogue"
INVALID_WINDOW = "window must be a number of days from 1d to 3650d, such as 365d, and comes with aggregate=run_rate"

PERIOD_WITH_RUN_RATE = "from and to choose days of a series: with aggregate=run_rate, send window"

_WINDOW = re.compile(r"^([0-9]{1,4})d$")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# New columns come last: a client may read by position.
_POINT_COLUMNS = ("isrc", "captured_at", "value", "data_source", "name", "artist")
_RATE_COLUMNS = (
    "isrc", "window_days", "days", "plays", "plays_a_year", "reason", "name", "artist", "is_interpolated", "is_source_changed",
)  # fmt: skip
_CSV_RESPONSE: dict[str, Any] = {"content": {formats.CSV: {"schema": {"type": "string"}}}}
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "As `If-None-Match` has it."}}

router = APIRouter(prefix="/api", tags=["measurements"], dependencies=[Depends(reject_unknown_query_parameters)])


@router.get(
    "/research/tracks/{track}/measurements",
    response_model=Series | RunRate,
    responses={200: _CSV_RESPONSE, **_NOT_MODIFIED, **error_responses(400, 404)},
    operation_id="get_track_measurements",
    summary="A recording's counts, or how fast it is played",
)
def get_track(
    request: Request,
    caller: AuthenticatedCaller,
    track: Annotated[str, Path(max_length=100, description="ISRC, or Spotify track id.")],
    aggregate: Annotated[Literal["run_rate"] | None, Query(description="In place of the series.")] = None,
    window: Annotated[
        str | None,
        Query(
            json_schema_extra={"pattern": _WINDOW.pattern},
            description="Of the run rate: a number of days from 1d to 3650d. Default: 365d.",
        ),
    ] = None,
    first_day: Annotated[
        str | None,
        Query(alias="from", json_schema_extra={"format": "date"}, description="First day of the series, UTC."),
    ] = None,
    last_day: Annotated[
        str | None, Query(alias="to", json_schema_extra={"format": "date"}, description="Last day of the series, UTC.")
    ] = None,
) -> Response:
    """The series by time, each point with its source; or the run rate of a trailing window."""
    days = _parse_window(window, aggregate)
    first, last = _parse_period(first_day, last_day, aggregate)
    with caller.state.connection() as connection:
        found = reads.recording(
            connection, account=caller.account, isrc=isrc.normalise(track), track=_storable_text(track)
        )
        if found is None:
            raise ApiError(404, ErrorCode.NOT_FOUND, NO_SUCH_TRACK)
        points = reads.series(connection, account=caller.account, isrc=found.isrc, first=first, last=last)
    if aggregate is not None:
        rate = _rate(found, points, days)
        return formats.build_response(request, rate, [rate.model_dump()], _RATE_COLUMNS)
    made = Series(**asdict(found), points=[Point(**_in_utc(point)) for point in points])
    return formats.build_response(request, made, ({**asdict(found), **point} for point in points), _POINT_COLUMNS)


@router.get(
    "/research/albums/{album}/measurements",
    response_model=Album,
    responses={200: _CSV_RESPONSE, **_NOT_MODIFIED, **error_responses(400, 404)},
    operation_id="get_album_measurements",
    summary="The latest counts of an album",
)
def get_album(
    request: Request,
    caller: AuthenticatedCaller,
    album: Annotated[str, Path(max_length=100, description="Spotify album id.")],
) -> Response:
    """The account's recordings on it, each with its latest count."""
    with caller.state.connection() as connection:
        rows = reads.latest_of_album(connection, account=caller.account, album=_storable_text(album))
    if not rows:
        raise ApiError(404, ErrorCode.NOT_FOUND, NO_SUCH_ALBUM)
    made = Album(album_id=album, recordings=[Latest(**_in_utc(row)) for row in rows])
    return formats.build_response(request, made, rows, _POINT_COLUMNS)


@router.get(
    "/catalogs/{catalog_id}/measurements",
    response_model=Catalog,
    responses={200: _CSV_RESPONSE, **_NOT_MODIFIED, **error_responses(400, 404)},
    operation_id="get_catalog_measurements",
    summary="The latest counts of a catalogue",
)
async def get_catalog(
    request: Request,
    caller: AuthenticatedCaller,
    catalog_id: Annotated[str, Path(json_schema_extra={"format": "uuid"}, description="The catalogue.")],
    limit: Annotated[int, Query(ge=1, le=1000, description="So many a page.")] = 100,
    cursor: Annotated[str | None, Query(max_length=200, description="`next` of the page before.")] = None,
) -> Response:
    """A page by ISRC; with the first page, the totals of the whole catalogue."""
    catalog = _parse_catalog_id(catalog_id)
    after = None if cursor is None else cursors.decode_song_cursor(cursor)
    rows = await run_in_threadpool(_read_page, caller, catalog, after, limit + 1)
    # Outside the page's transaction, and on no thread: whoever waits for an addition holds nothing that others need meanwhile.
    totals = None if after is not None or formats.prefers_csv(request) else await _read_totals(caller, catalog)
    shown = rows[:limit]
    more = cursors.encode_song_cursor(shown[-1]["isrc"]) if len(rows) > limit else None
    link = None if more is None else f"{request.url.path}?{urlencode({'limit': limit, 'cursor': more})}"

    def answer() -> Response:
        made = Catalog(
            catalog_id=catalog,
            recordings=[Latest(**_in_utc(row)) for row in shown],
            totals=None if totals is None else Totals(**totals),
            next=more,
        )
        return formats.build_response(request, made, shown, _POINT_COLUMNS, next_page=link)

    return await run_in_threadpool(answer)


def _read_page(caller: Caller, catalog: UUID, after: str | None, limit: int) -> list[dict[str, Any]]:
    with caller.state.connection() as connection:
        if not measurement_jobs.is_theirs(connection, catalog, account=caller.account):
            raise ApiError(404, ErrorCode.NOT_FOUND, NO_SUCH_CATALOG)
        return reads.latest_of_catalog(connection, account=caller.account, catalog=catalog, after=after, limit=limit)


async def _read_totals(caller: Caller, catalog: UUID) -> dict[str, Any]:
    office = caller.state

    def add_up() -> dict[str, Any]:
        with office.connection() as connection:
            return reads.totals_of_catalog(connection, account=caller.account, catalog=catalog)

    adding = asyncio.wrap_future(office.totals.get(caller.account, catalog, add_up))
    # Not `wait_for`, which would take it away from those who wait beside.
    done, _ = await asyncio.wait([adding], timeout=office.config.read_within_seconds)
    if not done:
        adding.add_done_callback(lambda over: over.cancelled() or over.exception())
        raise ApiError(503, ErrorCode.TIMEOUT, READ_TIMEOUT, retry_after=READ_RETRY_SECONDS)
    try:
        return adding.result()
    except TimeoutError as error:
        raise ApiError(503, ErrorCode.TIMEOUT, READ_TIMEOUT, retry_after=READ_RETRY_SECONDS) from error


def _rate(found: RecordingRow, points: list[dict[str, Any]], days: int) -> RunRate:
    counted = (run_rate.Point(**_in_utc(point)) for point in points)
    rate = run_rate.run_rate(counted, window=timedelta(days=days))
    return RunRate.model_validate({**asdict(found), "window_days": days, **asdict(rate)})


def _parse_window(window: str | None, aggregate: str | None) -> int:
    if window is None:
        return run_rate.DAYS_A_YEAR
    found = _WINDOW.fullmatch(window)
    if aggregate is None or found is None or not 1 <= int(found[1]) <= 3650:
        raise ApiError(400, ErrorCode.INVALID_REQUEST, INVALID_WINDOW)
    return int(found[1])


def _parse_period(first: str | None, last: str | None, aggregate: str | None) -> tuple[date | None, date | None]:
    """The days of a series that were asked for, both included. Raises `Problem` (400)."""
    if aggregate is not None and not (first is None and last is None):
        raise ApiError(400, ErrorCode.INVALID_REQUEST, PERIOD_WITH_RUN_RATE)
    begins, ends = _parse_day("from", first), _parse_day("to", last)
    if begins is not None and ends is not None and begins > ends:
        raise ApiError(400, ErrorCode.INVALID_REQUEST, f"from must not be after to (got {begins} and {ends})")
    return begins, ends


def _parse_day(name: str, text: str | None) -> date | None:
    if text is None:
        return None
    try:
        # fromisoformat reads other forms as well, such as 2026-W01-1.
        return date.fromisoformat(text if _DATE.fullmatch(text) else "")
    except ValueError as error:
        expected = f"{name} must be a date, such as 2026-01-31 (got {reprlib.repr(text)})"
        raise ApiError(400, ErrorCode.INVALID_REQUEST, expected) from error


def _in_utc(row: dict[str, Any]) -> dict[str, Any]:
    at = row["captured_at"]
    return row if at is None else {**row, "captured_at": at.astimezone(UTC)}


def _storable_text(text: str) -> str:
    """What no identifier can be, as one that there is none of: a zero byte is no text to PostgreSQL."""
    return text if text.isprintable() else ""


def _parse_catalog_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise ApiError(404, ErrorCode.NOT_FOUND, NO_SUCH_CATALOG) from error
