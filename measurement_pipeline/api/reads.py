"""Routes that read measurements of a track, an album, a catalogue. They call no vendor.

An account can read recordings in its catalogues, and those that its jobs requested or captured. For others the response is the
same as for a recording that does not exist.
"""

import asyncio
import re
import reprlib
from dataclasses import asdict
from datetime import date
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from measurement_pipeline.api import cursors, formats
from measurement_pipeline.api.auth import AuthenticatedCaller, Caller
from measurement_pipeline.api.errors import READ_RETRY_SECONDS, READ_TIMEOUT, ApiError, ErrorCode
from measurement_pipeline.api.measurement_models import (
    AlbumMeasurements,
    CatalogMeasurements,
    Point,
    RunRate,
    Series,
)
from measurement_pipeline.api.openapi import error_responses
from measurement_pipeline.api.parameters import reject_unknown_query_parameters
from measurement_pipeline.domain import isrc
from measurement_pipeline.domain.dates import parse_date
from measurement_pipeline.postgres import measurement_jobs, reads
from measurement_pipeline.postgres.reads import RecordingRow

NO_SUCH_TRACK = "This account has no such recording"
NO_SUCH_ALBUM = "This account has no recording on this album"
NO_SUCH_CATALOG = "This account has no such catalogue"
NOT_MEASURED = "no count was measured"
INVALID_WINDOW = "window: expected a number of days from 1d to 3650d, such as 365d, together with aggregate=run_rate"
PERIOD_WITH_RUN_RATE = "from and to select days of a series and cannot be combined with aggregate=run_rate: send window"

_DEFAULT_WINDOW_DAYS = 365
_WINDOW = re.compile(r"^([0-9]{1,4})d$")
# New columns are appended: a client may read by position.
_POINT_COLUMNS = ("isrc", "captured_at", "value", "data_source", "name", "artist")
_RATE_COLUMNS = (
    "isrc", "window_days", "days", "plays", "plays_a_year", "reason", "name", "artist", "is_interpolated", "is_source_changed",
)  # fmt: skip
_CSV_RESPONSE: dict[str, Any] = {"content": {formats.CSV: {"schema": {"type": "string"}}}}
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "Not changed since the ETag in `If-None-Match`."}
}

router = APIRouter(prefix="/api", tags=["measurements"], dependencies=[Depends(reject_unknown_query_parameters)])


@router.get(
    "/research/tracks/{track}/measurements",
    response_model=Series | RunRate,
    responses={200: _CSV_RESPONSE, **_NOT_MODIFIED, **error_responses(400, 404)},
    operation_id="get_track_measurements",
    summary="Get the counts or the run rate of a recording",
)
def get_track(
    request: Request,
    caller: AuthenticatedCaller,
    track: Annotated[str, Path(max_length=100, description="ISRC or Spotify track id.")],
    aggregate: Annotated[
        Literal["run_rate"] | None, Query(description="run_rate: return the run rate instead of the series.")
    ] = None,
    window: Annotated[
        str | None,
        Query(
            json_schema_extra={"pattern": _WINDOW.pattern},
            description="Window of the run rate: a number of days from 1d to 3650d. Default: 365d.",
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
    """The series by time, each count with its source; or the run rate of a trailing window."""
    days = _parse_window(window, aggregate)
    first, last = _parse_period(first_day, last_day, aggregate)
    key, track_id = isrc.normalise_isrc(track), _printable_or_empty(track)
    if aggregate is not None:
        rated = caller.state.read(
            partial(reads.run_rate, account=caller.account, isrc=key, track=track_id, window_days=days)
        )
        if rated is None:
            raise ApiError(404, ErrorCode.NOT_FOUND, NO_SUCH_TRACK)
        rate = _run_rate(*rated, days)
        return formats.build_response(request, rate, [rate.model_dump()], _RATE_COLUMNS)
    found = caller.state.read(
        partial(reads.series, account=caller.account, isrc=key, track=track_id, first=first, last=last)
    )
    if found is None:
        raise ApiError(404, ErrorCode.NOT_FOUND, NO_SUCH_TRACK)
    recording, points = found
    series = Series.model_validate({**asdict(recording), "points": points})
    return formats.build_response(request, series, ({**asdict(recording), **point} for point in points), _POINT_COLUMNS)


@router.get(
    "/research/albums/{album}/measurements",
    response_model=AlbumMeasurements,
    responses={200: _CSV_RESPONSE, **_NOT_MODIFIED, **error_responses(400, 404)},
    operation_id="get_album_measurements",
    summary="Get the latest counts of an album",
)
def get_album(
    request: Request,
    caller: AuthenticatedCaller,
    album: Annotated[str, Path(max_length=100, description="Spotify album id.")],
) -> Response:
    """The account's recordings on the album, each with its latest count."""
    rows = caller.state.read(partial(reads.latest_of_album, account=caller.account, album=_printable_or_empty(album)))
    if not rows:
        raise ApiError(404, ErrorCode.NOT_FOUND, NO_SUCH_ALBUM)
    model = AlbumMeasurements.model_validate({"album_id": album, "recordings": rows})
    return formats.build_response(request, model, rows, _POINT_COLUMNS)


@router.get(
    "/catalogs/{catalog_id}/measurements",
    response_model=CatalogMeasurements,
    responses={200: _CSV_RESPONSE, **_NOT_MODIFIED, **error_responses(400, 404)},
    operation_id="get_catalog_measurements",
    summary="Get the latest counts of a catalogue",
)
async def get_catalog(
    request: Request,
    caller: AuthenticatedCaller,
    catalog_id: Annotated[str, Path(json_schema_extra={"format": "uuid"}, description="Id of the catalogue.")],
    limit: Annotated[int, Query(ge=1, le=1000, description="Maximum number of recordings per page.")] = 100,
    cursor: Annotated[str | None, Query(max_length=200, description="`next` of the previous page.")] = None,
) -> Response:
    """A page of recordings by ISRC. The first page includes the totals of the whole catalogue."""
    catalog = _parse_catalog_id(catalog_id)
    after = None if cursor is None else cursors.decode_song_cursor(cursor)

    def respond(rows: list[dict[str, Any]], totals: dict[str, Any] | None) -> Response:
        page = rows[:limit]
        following = cursors.encode_song_cursor(page[-1]["isrc"]) if len(rows) > limit else None
        link = None if following is None else f"{request.url.path}?{urlencode({'limit': limit, 'cursor': following})}"
        model = CatalogMeasurements.model_validate(
            {"catalog_id": catalog, "recordings": page, "totals": totals, "next": following}
        )
        return formats.build_response(request, model, page, _POINT_COLUMNS, next_page=link)

    if after is not None or formats.prefers_csv(request):
        return await run_in_threadpool(lambda: respond(_read_page(caller, catalog, after, limit + 1), None))
    rows = await run_in_threadpool(_read_page, caller, catalog, after, limit + 1)
    # Awaited without a thread: waiting for totals occupies no connection and no thread.
    totals = await _read_totals(caller, catalog)
    return await run_in_threadpool(respond, rows, totals)


def _read_page(caller: Caller, catalog: UUID, after: str | None, limit: int) -> list[dict[str, Any]]:
    state = caller.state
    page = state.read(
        partial(reads.latest_of_catalog, account=caller.account, catalog=catalog, after=after, limit=limit)
    )
    if not page and not state.read(partial(measurement_jobs.is_theirs, catalog_id=catalog, account=caller.account)):
        raise ApiError(404, ErrorCode.NOT_FOUND, NO_SUCH_CATALOG)
    return page


async def _read_totals(caller: Caller, catalog: UUID) -> dict[str, Any]:
    state = caller.state
    query = partial(reads.totals_of_catalog, account=caller.account, catalog=catalog)
    totals = asyncio.wrap_future(state.totals.get(caller.account, catalog, lambda: state.read(query)))
    # Not `asyncio.wait_for`, which cancels the future on timeout: other requests may share it.
    done, _ = await asyncio.wait([totals], timeout=state.config.read_within_seconds)
    if not done:
        # Retrieve a later exception, or asyncio logs that it was never retrieved.
        totals.add_done_callback(lambda future: future.cancelled() or future.exception())
        raise ApiError(503, ErrorCode.TIMEOUT, READ_TIMEOUT, retry_after=READ_RETRY_SECONDS)
    try:
        return totals.result()
    except TimeoutError as error:
        raise ApiError(503, ErrorCode.TIMEOUT, READ_TIMEOUT, retry_after=READ_RETRY_SECONDS) from error


def _run_rate(recording: RecordingRow, row: dict[str, Any] | None, days: int) -> RunRate:
    known = {**asdict(recording), "window_days": days}
    if row is None:
        nothing = dict.fromkeys(("days", "plays", "plays_a_year", "first", "last", "first_after"))
        flags = {"is_interpolated": False, "is_source_changed": False}
        return RunRate.model_validate({**known, **nothing, **flags, "reason": NOT_MEASURED})
    first, last, next_point = (row[end] and Point(**row[end]) for end in ("first", "last", "next"))
    return RunRate(
        **known,
        days=row["days_covered"],
        plays=row["plays"],
        plays_a_year=None if row["plays_a_year"] is None else int(row["plays_a_year"]),
        # If the counts do not cover the window: the first count inside it.
        first=first if row["why_none"] is None else next_point,
        last=last,
        reason=row["why_none"],
        is_interpolated=row["is_interpolated"],
        first_after=next_point if row["is_interpolated"] else None,
        is_source_changed=row["is_source_changed"],
    )


def _parse_window(window: str | None, aggregate: str | None) -> int:
    if window is None:
        return _DEFAULT_WINDOW_DAYS
    match = _WINDOW.fullmatch(window)
    if aggregate is None or match is None or not 1 <= int(match[1]) <= 3650:
        raise ApiError(400, ErrorCode.INVALID_REQUEST, INVALID_WINDOW)
    return int(match[1])


def _parse_period(first: str | None, last: str | None, aggregate: str | None) -> tuple[date | None, date | None]:
    """Return the first and last day of the requested series, both inclusive. Raises `ApiError` (400)."""
    if aggregate is not None and not (first is None and last is None):
        raise ApiError(400, ErrorCode.INVALID_REQUEST, PERIOD_WITH_RUN_RATE)
    first_day, last_day = _parse_day("from", first), _parse_day("to", last)
    if first_day is not None and last_day is not None and first_day > last_day:
        message = f"from must not be after to (got {first_day} and {last_day})"
        raise ApiError(400, ErrorCode.INVALID_REQUEST, message)
    return first_day, last_day


def _parse_day(name: str, text: str | None) -> date | None:
    if text is None:
        return None
    day = parse_date(text)
    if day is None:
        message = f"{name} must be a date, such as 2026-01-31 (got {reprlib.repr(text)})"
        raise ApiError(400, ErrorCode.INVALID_REQUEST, message)
    return day


def _printable_or_empty(text: str) -> str:
    """Return the text, or "" if it cannot be an identifier: PostgreSQL rejects a zero byte, and "" matches no row."""
    return text if text.isprintable() else ""


def _parse_catalog_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise ApiError(404, ErrorCode.NOT_FOUND, NO_SUCH_CATALOG) from error
