"""Response bodies of the measurement routes."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field


class Point(BaseModel):
    """A cumulative play count, the time when it was displayed, and its source."""

    captured_at: datetime = Field(examples=["2025-11-01T00:00:00Z"])
    value: int = Field(examples=[1234567])
    data_source: str = Field(examples=["songstats"])


class Series(BaseModel):
    """All counts of a recording, by time. If two sources have a count for the same day, both are included."""

    status: Literal["success"] = "success"
    isrc: str
    name: str | None
    artist: str | None
    points: list[Point]


class RunRate(BaseModel):
    """Plays in a trailing window, and the same rate per year.

    `plays` is null with a `reason` if the counts do not cover the window; `days` is then the covered part. The window ends with
    `last`, which can be long ago. `first` is the count on the window's first day, or the last count before it. In the latter case
    `is_interpolated` is true: the count on that day lies on a straight line from `first` to `first_after`, at most 35 days apart.
    `is_source_changed`: the counts come from two sources, which can count differently.
    """

    status: Literal["success"] = "success"
    isrc: str
    name: str | None
    artist: str | None
    window_days: int
    days: int | None
    plays: int | None
    plays_a_year: int | None
    first: Point | None
    last: Point | None
    reason: str | None
    is_interpolated: bool
    first_after: Point | None
    is_source_changed: bool


class LatestCount(BaseModel):
    """A recording with its latest count. Null means never counted, which is not 0."""

    isrc: str
    name: str | None
    artist: str | None
    captured_at: datetime | None
    value: int | None
    data_source: str | None


class AlbumMeasurements(BaseModel):
    """The account's recordings on an album."""

    status: Literal["success"] = "success"
    album_id: str
    recordings: list[LatestCount]


class CatalogTotals(BaseModel):
    """Totals of the whole catalogue, not of the page. At most a minute old.

    `plays` excludes recordings that were never counted: there are `recordings` − `measured` of them. It includes `ended`
    recordings, whose last count is more than 35 days old.
    """

    recordings: int
    measured: int
    plays: int
    oldest_captured_at: datetime | None
    newest_captured_at: datetime | None
    ended: int


class CatalogMeasurements(BaseModel):
    """A page of a catalogue, by ISRC. Only the first page has `totals`, for the whole catalogue."""

    status: Literal["success"] = "success"
    catalog_id: UUID
    recordings: list[LatestCount]
    totals: CatalogTotals | None
    next: str | None
