"""Request and response bodies of the measurement job routes, with examples for the OpenAPI description.

Request fields accept any value: `domain/measurement_job` validates them, with the same messages as for a row in the table. Their
schemas describe valid values.
"""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from measurement_pipeline.domain.callback import MAX_URL_LENGTH
from measurement_pipeline.domain.measurement_job import MAX_LISTED

_ID = "00000000-0000-4000-8000-00000000000b"
_CATALOG = "00000000-0000-4000-8000-0000000000c0"


def _list_scope(title: str, name: str, items: dict[str, Any]) -> dict[str, Any]:
    values = {"type": "array", "minItems": 1, "maxItems": MAX_LISTED, "items": items}
    return {
        "title": title,
        "type": "object",
        "properties": {name: values},
        "required": [name],
        "additionalProperties": False,
    }


_SCOPE = {
    "description": f"Exactly one of the three forms. A list has at most {MAX_LISTED:,} items; use a catalogue for more.",
    "oneOf": [
        _list_scope(
            "IsrcScope",
            "isrcs",
            {"type": "string", "pattern": "^[A-Z]{2}[A-Z0-9]{3}[0-9]{7}$", "examples": ["GBUM72501895"]},
        ),
        _list_scope(
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
    "description": "historical: daily play counts of the past, bought once. current: today's play counts, captured by album.",
}
_PLATFORMS = {
    "description": "Platforms to measure. Only spotify is supported.",
    "anyOf": [{"type": "array", "minItems": 1, "items": {"const": "spotify"}}, {"type": "null"}],
}
_LIMIT = {
    "description": (
        "Want only so many recordings of the scope, the most played ones. Only with source historical, and not with coverage."
    ),
    "anyOf": [{"type": "integer", "minimum": 1, "maximum": 1_000_000}, {"type": "null"}],
}
_COVERAGE = {
    "description": (
        "Want only the most played recordings that together have this share of the scope's known plays. Only with source "
        "historical, and not with limit."
    ),
    "anyOf": [{"type": "number", "exclusiveMinimum": 0, "maximum": 1}, {"type": "null"}],
}
_CALLBACK_URL = {
    "description": (
        "Address that is called, signed, when the job ends (done, failed, rejected, withdrawn) or needs a card "
        "(payment_required). It must resolve to public addresses; redirects are not followed."
    ),
    "anyOf": [
        {"type": "string", "format": "uri", "pattern": "^https://", "maxLength": MAX_URL_LENGTH},
        {"type": "null"},
    ],
}
_SCHEDULE = {
    "description": "monthly: repeat the capture every 30 days. Only with source current. Default: once.",
    "enum": ["once", "monthly", None],
}


class MeasurementJobRequest(BaseModel):
    """A request for measurements."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "required": ["source", "scope"],
            "examples": [
                {"source": "historical", "scope": {"isrcs": ["GBUM72501895"]}},
                {"source": "current", "scope": {"album_ids": ["0ETFjACtuP2ADo6LFhL6HN"]}, "schedule": "monthly"},
                {"source": "historical", "scope": {"catalog_id": _CATALOG}, "platforms": ["spotify"]},
                {
                    "source": "historical",
                    "scope": {"catalog_id": _CATALOG},
                    "coverage": 0.9,
                    "callback_url": "https://client.example.com/measurements",
                },
                {"source": "historical", "scope": {"catalog_id": _CATALOG}, "limit": 300},
            ],
            # The only rule that involves two fields.
            "if": {"properties": {"source": {"const": "historical"}}},
            "then": {"properties": {"schedule": {"enum": ["once", None]}}},
        },
    )

    source: Annotated[Any, WithJsonSchema(_SOURCE)] = None
    scope: Annotated[Any, WithJsonSchema(_SCOPE)] = None
    platforms: Annotated[Any, WithJsonSchema(_PLATFORMS)] = None
    schedule: Annotated[Any, WithJsonSchema(_SCHEDULE)] = None
    limit: Annotated[Any, WithJsonSchema(_LIMIT)] = None
    coverage: Annotated[Any, WithJsonSchema(_COVERAGE)] = None
    callback_url: Annotated[Any, WithJsonSchema(_CALLBACK_URL)] = None


class Links(BaseModel):
    """Addresses of related resources."""

    self: str = Field(examples=[f"/api/research/measurement-jobs/{_ID}"])


class AcceptedJob(BaseModel):
    """An accepted job. If `enqueued` or `album_count` is null, processing has not finished: follow the link for the result.

    For current counts, `skipped` is the number of recordings without a known album, and `error` states that they are left out.
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


class JobValue(BaseModel):
    """The share of the job's known plays that is stored once so many hits are spent on it, most played first."""

    hits: int = Field(examples=[100])
    coverage: float = Field(examples=[0.621])


class HistoricalEstimate(BaseModel):
    """Estimated cost of histories.

    `asked` = `owned` (already stored, no hit) + `queued` (for another job) + `hits`. `days` until all are bought; null: never,
    because the hit limit is 0. `value`: what the first 100, 300 and 900 hits, and all, would cover; empty if no play count is
    known. With `limit` or `coverage` all figures are for the wanted part: `left_out` recordings are not in it, and it has the
    share `covered` of the known plays. `imported` recordings have daily plays that an artist exported and no bought history: what
    these cover need not be bought.
    """

    status: Literal["success"] = "success"
    source: Literal["historical"] = "historical"
    asked: int = Field(examples=[15])
    owned: int = Field(examples=[3])
    queued: int = Field(examples=[0])
    hits: int = Field(examples=[12])
    eur: float = Field(examples=[1.0])
    days: int | None = Field(examples=[0])
    estimated_completion: datetime | None = Field(examples=["2026-12-24T03:19:00Z"])
    earliest_completion: datetime | None = Field(examples=["2026-12-24T03:19:00Z"])
    latest_completion: datetime | None = Field(examples=["2027-01-23T03:19:00Z"])
    hits_left_now: int = Field(examples=[900])
    hits_allowed_in_30_days: int = Field(examples=[900])
    left_out: int = Field(examples=[0])
    covered: float | None = Field(examples=[1.0])
    value: list[JobValue]
    imported: int = Field(examples=[0])


class CurrentEstimate(BaseModel):
    """Estimated cost of a capture in US dollars. `reused`: a capture of the last hour answers the request at no cost."""

    status: Literal["success"] = "success"
    source: Literal["current"] = "current"
    albums: int = Field(examples=[4])
    cost_usd: float = Field(examples=[0.012])
    reused: bool = Field(examples=[False])
    spent_usd_this_month: float = Field(examples=[1.5])
    cap_usd: float = Field(examples=[25.0])
    over_cap: bool = Field(examples=[False])


class Job(BaseModel):
    """A job in the list.

    With `limit` or `coverage`, an accepted job states how many recordings it left out, and the share `covered` of the known plays
    that it wants. They are bought if another job wants them.
    """

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
    limit: int | None
    coverage: float | None
    left_out: int | None
    covered: float | None
    callback_url: str | None
    created_at: datetime
    updated_at: datetime
    links: Links


class JobProgress(BaseModel):
    """Number of recordings with a final outcome, of those in the job."""

    settled: int
    asked: int | None


class JobOutcomes(BaseModel):
    """Number of recordings by outcome."""

    stored: int
    no_history: int
    rejected: int
    failed: int


class JobCost(BaseModel):
    """Hits and euros spent for the job."""

    hits: int
    eur: float


class JobCapture(BaseModel):
    """The capture that answers a job with source current."""

    state: str
    album_count: int
    estimated_cost_usd: float | None
    reused: bool | None
    tracks: int | None
    recordings: int | None
    without_count: int | None
    unmapped: int | None
    error: str | None


class JobPause(BaseModel):
    """The operator's pause that holds an open job. `until` null: until the operator resumes."""

    reason: str = Field(examples=["invoice unpaid"])
    until: datetime | None


class JobDetails(Job):
    """A job with its progress, outcomes and cost; with source current also its capture.

    `value`: what the first 100, 300 and 900 hits, and all, cover; empty if no play count is known. `paused`: an operator has
    paused its purchases; null if not.

    `estimated_completion`: when the last recording is bought, at the present budget and shares; null: nothing is left to buy, or
    no account with a card pays. `earliest_completion`: if all other accounts stop. `latest_completion`: if as many hits again go
    to other accounts and to retries; null: not within a hundred years.
    """

    status: Literal["success"] = "success"
    estimated_completion: datetime | None = None
    earliest_completion: datetime | None = None
    latest_completion: datetime | None = None
    progress: JobProgress
    outcomes: JobOutcomes
    receipt: JobCost
    capture: JobCapture | None
    value: list[JobValue]
    paused: JobPause | None


class JobPage(BaseModel):
    """A page of jobs, newest first. Send `next` as `cursor` for the next page; null: this is the last page."""

    status: Literal["success"] = "success"
    jobs: list[Job]
    next: str | None


class WithdrawnJob(BaseModel):
    """A withdrawn job."""

    status: Literal["success"] = "success"
    id: UUID
    state: Literal["withdrawn"] = "withdrawn"
