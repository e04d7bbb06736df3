"""The bodies of the API, with examples: what its description shows. What a request may ask is `domain/measurement_job`'s.

Fields of a request are taken as they come, and refused in the words of the table path; their schemas describe what is accepted.
"""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from measurement_pipeline.api.errors import ErrorCode
from measurement_pipeline.domain.measurement_job import MAX_LISTED

_ID = "00000000-0000-4000-8000-00000000000b"
_CATALOG = "00000000-0000-4000-8000-0000000000c0"


def _listed(title: str, name: str, items: dict[str, Any]) -> dict[str, Any]:
    values = {"type": "array", "minItems": 1, "maxItems": MAX_LISTED, "items": items}
    return {
        "title": title,
        "type": "object",
        "properties": {name: values},
        "required": [name],
        "additionalProperties": False,
    }


_SCOPE = {
    "description": f"Exactly one of the three. At most {MAX_LISTED:,} in a list; more through a catalogue.",
    "oneOf": [
        _listed(
            "IsrcScope",
            "isrcs",
            {"type": "string", "pattern": "^[A-Z]{2}[A-Z0-9]{3}[0-9]{7}$", "examples": ["GBUM72501895"]},
        ),
        _listed(
            "AlbumScope",
            "album_ids",
            {"type": "string", "pattern": "^[0-9A-Za-z]{22}$", "examples": ["0ETFjACtuP2ADo6LFhL6HN"]},
        ),
        {
            "title": "CatalogScope",
            "type": "object",
            "properties": {"catalog_id": {"type": "string", "format": "uuid", "examples": [_CATALOG]}},
            "required": ["catalog_id"],
            "additionalProperties": False,
        },
    ],
}
_SOURCE = {
    "type": "string",
    "enum": ["historical", "current"],
    "description": "historical: the past, bought once. current: what is displayed today, captured by album.",
}
_PLATFORMS = {
    "description": "Whose counts; spotify is the one there is.",
    "anyOf": [{"type": "array", "minItems": 1, "items": {"const": "spotify"}}, {"type": "null"}],
}
_SCHEDULE = {
    "description": "monthly: with source current, captured anew every 30 days.",
    "enum": ["once", "monthly", None],
}


class MeasurementJobRequest(BaseModel):
    """What is asked for."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "required": ["source", "scope"],
            "examples": [
                {"source": "historical", "scope": {"isrcs": ["GBUM72501895"]}},
                {"source": "current", "scope": {"album_ids": ["0ETFjACtuP2ADo6LFhL6HN"]}, "schedule": "monthly"},
                {"source": "historical", "scope": {"catalog_id": _CATALOG}, "platforms": ["spotify"]},
            ],
            # The one rule between fields.
            "if": {"properties": {"source": {"const": "historical"}}},
            "then": {"properties": {"schedule": {"enum": ["once", None]}}},
        },
    )

    source: Annotated[Any, WithJsonSchema(_SOURCE)] = None
    scope: Annotated[Any, WithJsonSchema(_SCOPE)] = None
    platforms: Annotated[Any, WithJsonSchema(_PLATFORMS)] = None
    schedule: Annotated[Any, WithJsonSchema(_SCHEDULE)] = None


class Links(BaseModel):
    """Where to go from here."""

    self: str = Field(examples=[f"/api/research/measurement-jobs/{_ID}"])


class Accepted(BaseModel):
    """A request that was taken. `enqueued`, or `album_count`, null: it is still being looked at; the link says the rest.

    Of current counts, `skipped` are recordings of which no album is known; `error` then says that they are left out.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "status": "success",
                    "source": "historical",
                    "id": _ID,
                    "state": "accepted",
                    "enqueued": 12,
                    "skipped": 3,
                    "links": {"self": f"/api/research/measurement-jobs/{_ID}"},
                },
                {
                    "status": "success",
                    "source": "current",
                    "id": _ID,
                    "state": "accepted",
                    "album_count": 4,
                    "estimated_cost_usd": 0.012,
                    "reused": False,
                    "links": {"self": f"/api/research/measurement-jobs/{_ID}"},
                },
            ]
        }
    )

    status: Literal["success"] = "success"
    source: str
    id: UUID
    state: str
    enqueued: int | None = None
    skipped: int | None = None
    album_count: int | None = None
    estimated_cost_usd: float | None = None
    reused: bool | None = None
    error: str | None = None
    links: Links


class Refused(BaseModel):
    """What was wrong. `id`: the job, where there is one; `checkoutUrl`: the page where a card can be saved (402)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"status": "error", "code": "invalid_request", "error": "source must be current or historical"}
            ]
        }
    )

    status: Literal["error"] = "error"
    code: ErrorCode = Field(description="Stable, for programs. `error` is for people and may be reworded.")
    error: str
    id: UUID | None = None
    state: str | None = None
    checkoutUrl: str | None = None  # noqa: N815 - the contract's name


class HistoricalEstimate(BaseModel):
    """What histories would cost: `asked` = `owned` (no hit) + `queued` (for another request) + `hits`. `days` null: never."""

    status: Literal["success"] = "success"
    source: Literal["historical"] = "historical"
    asked: int = Field(examples=[15])
    owned: int = Field(examples=[3])
    queued: int = Field(examples=[0])
    hits: int = Field(examples=[12])
    eur: float = Field(examples=[1.0])
    days: int | None = Field(examples=[0])
    hits_left_now: int = Field(examples=[900])
    hits_allowed_in_30_days: int = Field(examples=[900])


class CurrentEstimate(BaseModel):
    """What a capture would cost, in US dollars. `reused`: one made within the hour answers it, for nothing."""

    status: Literal["success"] = "success"
    source: Literal["current"] = "current"
    albums: int = Field(examples=[4])
    cost_usd: float = Field(examples=[0.012])
    reused: bool = Field(examples=[False])
    spent_usd_this_month: float = Field(examples=[1.5])
    cap_usd: float = Field(examples=[25.0])
    over_cap: bool = Field(examples=[False])


class Job(BaseModel):
    """A request as the list shows it."""

    id: UUID
    source: str | None
    scope: Any = None
    schedule: str | None
    state: str
    status_code: int | None
    error: str | None
    checkoutUrl: str | None  # noqa: N815 - the contract's name
    asked: int | None
    enqueued: int | None
    skipped: int | None
    created_at: datetime
    updated_at: datetime
    links: Links


class Progress(BaseModel):
    """How far it is."""

    settled: int
    asked: int | None


class Outcomes(BaseModel):
    """What its recordings came to."""

    stored: int
    no_history: int
    rejected: int
    failed: int


class Receipt(BaseModel):
    """What was spent for it."""

    hits: int
    eur: float


class Capture(BaseModel):
    """The capture that answers a current request."""

    state: str
    album_count: int
    estimated_cost_usd: float | None
    reused: bool | None
    tracks: int | None
    recordings: int | None
    without_count: int | None
    unmapped: int | None
    error: str | None


class JobInFull(Job):
    """A request with its progress, outcomes and receipt; a current one with its capture."""

    status: Literal["success"] = "success"
    progress: Progress
    outcomes: Outcomes
    receipt: Receipt
    capture: Capture | None


class Jobs(BaseModel):
    """A page of requests, newest first. `next`: send it as `cursor` for the page after; null: there is none."""

    status: Literal["success"] = "success"
    jobs: list[Job]
    next: str | None


class Withdrawn(BaseModel):
    """A request that was taken back."""

    status: Literal["success"] = "success"
    id: UUID
    state: Literal["withdrawn"] = "withdrawn"


class Point(BaseModel):
    """A cumulative count, when it was displayed, and where it is from."""

    captured_at: datetime = Field(examples=["2025-11-01T00:00:00Z"])
    value: int = Field(examples=[1234567])
    data_source: str = Field(examples=["songstats"])


class Series(BaseModel):
    """Every count there is of a recording, by time. Sources are not mixed: where two know a day, both are here."""

    status: Literal["success"] = "success"
    isrc: str
    name: str | None
    artist: str | None
    points: list[Point]


class RunRate(BaseModel):
    """The plays of a trailing window, and what they come to in a year.

    Null with a `reason`: the counts do not cover the window; `days` says how much of it they do. The window ends with `last`,
    which may be long ago. `first` is the count on the window's first day, or the last one before it. Then `is_interpolated`: the
    count on that day lies on a straight line from `first` to `first_after`, which are at most 35 days apart.
    `is_source_changed`: the counts come from two sources, which may count differently.
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


class Latest(BaseModel):
    """A recording with its latest count; null: it was never counted, which is not 0."""

    isrc: str
    name: str | None
    artist: str | None
    captured_at: datetime | None
    value: int | None
    data_source: str | None


class Album(BaseModel):
    """The account's recordings on an album."""

    status: Literal["success"] = "success"
    album_id: str
    recordings: list[Latest]


class Totals(BaseModel):
    """A whole catalogue, not the page, as it was within the last minute.

    `plays` leaves out what was never counted: `recordings` − `measured`. It includes `ended` recordings, whose last count is over
    35 days old.
    """

    recordings: int
    measured: int
    plays: int
    oldest_captured_at: datetime | None
    newest_captured_at: datetime | None
    ended: int


class Catalog(BaseModel):
    """A page of a catalogue by ISRC. `totals` are of the whole of it and come with the first page; later ones have null."""

    status: Literal["success"] = "success"
    catalog_id: UUID
    recordings: list[Latest]
    totals: Totals | None
    next: str | None


class Health(BaseModel):
    """The process answers."""

    status: Literal["success"] = "success"
