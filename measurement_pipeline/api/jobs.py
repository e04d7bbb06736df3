"""Routes of measurement jobs. `submit` and `intake/` validate and process requests."""

import json
import re
import reprlib
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from measurement_pipeline.api import cursors, submit
from measurement_pipeline.api.auth import AuthenticatedCaller, Caller
from measurement_pipeline.api.errors import DATABASE_RETRY_SECONDS, DATABASE_UNAVAILABLE, ApiError, ErrorCode
from measurement_pipeline.api.job_models import (
    AcceptedJob,
    CurrentEstimate,
    HistoricalEstimate,
    JobCapture,
    JobCost,
    JobDetails,
    JobOutcomes,
    JobPage,
    JobPause,
    JobProgress,
    JobValue,
    Links,
    MeasurementJobRequest,
    WithdrawnJob,
)
from measurement_pipeline.api.openapi import error_responses
from measurement_pipeline.api.parameters import reject_unknown_query_parameters
from measurement_pipeline.domain import spend
from measurement_pipeline.domain.capture import NO_CAPTURES
from measurement_pipeline.domain.completion import Completion, completion_fields
from measurement_pipeline.domain.measurement_job import Source, State
from measurement_pipeline.intake import capture_estimate, completion, estimate
from measurement_pipeline.postgres import captures, measurement_jobs, purchase_pauses
from measurement_pipeline.postgres.database import Connection, StatementTimeout

BASE = "/api/research/measurement-jobs"
NO_SUCH_JOB = "This account has no such measurement job"
JOB_FINISHED = (
    "The job is {} and cannot be withdrawn: expected queued, payment_required, accepted, or an active monthly series"
)
JOB_LOCKED = "The job is being processed and was not withdrawn: retry"
JOB_WITHDRAWN = "The job with this Idempotency-Key was withdrawn: send a new key"
INVALID_IDEMPOTENCY_KEY = "Idempotency-Key: expected 1 to 255 printable ASCII characters without spaces, got {}"

router = APIRouter(prefix=BASE, tags=["measurement jobs"], dependencies=[Depends(reject_unknown_query_parameters)])

# Error codes for a row's status. A failed capture can have other statuses.
_CODE_OF_STATUS = {
    400: ErrorCode.INVALID_REQUEST,
    402: ErrorCode.CARD_REQUIRED,
    404: ErrorCode.NOT_FOUND,
    429: ErrorCode.CAPTURE_CAP_REACHED,
}

_JobId = Annotated[str, Path(json_schema_extra={"format": "uuid"}, description="Id of the job.")]
_KEY_FORMAT = re.compile(r"^[!-~]{1,255}$")
_IdempotencyKey = Annotated[
    str | None,
    Header(
        # Validated below, because the message here would quote the regular expression.
        json_schema_extra={"minLength": 1, "maxLength": 255, "pattern": _KEY_FORMAT.pattern},
        description=(
            "1 to 255 printable ASCII characters without spaces. The same key with the same body returns the same job; with "
            "another body it is an error."
        ),
    ),
]


async def _parse_idempotency_key(request: Request, idempotency_key: _IdempotencyKey = None) -> str | None:
    keys = request.headers.getlist("idempotency-key")
    if len(keys) > 1:
        raise ApiError(400, ErrorCode.INVALID_REQUEST, f"Idempotency-Key: expected one, got {len(keys)}")
    if idempotency_key is not None and not _KEY_FORMAT.fullmatch(idempotency_key):
        raise ApiError(400, ErrorCode.INVALID_REQUEST, INVALID_IDEMPOTENCY_KEY.format(reprlib.repr(idempotency_key)))
    return idempotency_key


@router.post(
    "",
    status_code=202,
    response_model=AcceptedJob,
    response_model_exclude_unset=True,
    responses=error_responses(400, 402, 404, 409, 429, 500),
    operation_id="create_measurement_job",
    summary="Create a job",
)
async def create_job(
    caller: AuthenticatedCaller,
    body: MeasurementJobRequest,
    key: Annotated[str | None, Depends(_parse_idempotency_key)],
) -> JSONResponse:
    """The job is validated, checked for payment and enqueued before the response, if that takes only a few seconds."""
    request = await run_in_threadpool(submit.parse_request, body)
    try:
        row = await submit.submit(caller, request, key=key)
        if row["state"] == State.WITHDRAWN:
            raise ApiError(409, ErrorCode.JOB_WITHDRAWN, JOB_WITHDRAWN, id=str(row["id"]), state=row["state"])
        if row["state"] in (State.REJECTED, State.PAYMENT_REQUIRED, State.FAILED):
            raise await run_in_threadpool(_row_error, caller, row)
    except StatementTimeout as error:
        # Not READ_TIMEOUT, which says that nothing was changed: the job may have been inserted.
        raise ApiError(
            503, ErrorCode.DATABASE_UNAVAILABLE, DATABASE_UNAVAILABLE, retry_after=DATABASE_RETRY_SECONDS
        ) from error
    response = _accepted_body(row)
    return JSONResponse(response, 202, {"Location": response["links"]["self"]})


@router.post(
    "/estimate",
    response_model=HistoricalEstimate | CurrentEstimate,
    responses=error_responses(400),
    operation_id="estimate_measurement_job",
    summary="Estimate the cost of a job",
)
def estimate_job(caller: AuthenticatedCaller, body: MeasurementJobRequest) -> BaseModel:
    """Takes the same body as a job. Enqueues nothing and does not ask Stripe."""
    request = submit.parse_request(body)
    config = caller.state.config
    try:
        with caller.state.connection() as connection:
            if request.parsed.source is Source.HISTORICAL:
                history = estimate.estimate_hits(
                    connection,
                    request.parsed,
                    account=caller.account,
                    hits_allowed=config.hits_allowed,
                    eur_per_hit=config.eur_per_hit,
                    requests_per_second=config.requests_per_second,
                )
                return HistoricalEstimate(**history.fields())
            if config.capture_limits is None:
                raise ApiError(503, ErrorCode.CAPTURES_DISABLED, NO_CAPTURES, retry_after=submit.CAPTURES_RETRY_SECONDS)
            capture = capture_estimate.estimate_capture(
                connection, request.parsed, account=caller.account, limits=config.capture_limits
            )
            return CurrentEstimate(**asdict(capture))
    except estimate.NothingToEstimateError as error:
        raise ApiError(400, ErrorCode.INVALID_REQUEST, str(error)) from error


@router.get(
    "",
    response_model=JobPage,
    responses=error_responses(400),
    operation_id="list_measurement_jobs",
    summary="List the account's jobs",
)
def list_jobs(
    caller: AuthenticatedCaller,
    limit: Annotated[int, Query(ge=1, le=100, description="Maximum number of jobs per page.")] = 20,
    cursor: Annotated[str | None, Query(max_length=200, description="`next` of the previous page.")] = None,
) -> Response:
    """Newest first."""
    before = None if cursor is None else cursors.decode_job_cursor(cursor)
    rows = caller.state.read(partial(measurement_jobs.page, account=caller.account, before=before, limit=limit + 1))
    page = rows[:limit]
    next_cursor = cursors.encode_job_cursor(page[-1]["created_at"], page[-1]["id"]) if len(rows) > limit else None
    model = JobPage.model_validate({"jobs": [_job_fields(row) for row in page], "next": next_cursor})
    # Serialized here: FastAPI would validate the model again.
    return Response(model.model_dump_json(), media_type="application/json")


@router.get("/{job_id}", responses=error_responses(404), operation_id="get_measurement_job", summary="Get a job")
def show_job(caller: AuthenticatedCaller, job_id: _JobId) -> JobDetails:
    """With progress, outcomes and cost."""
    with caller.state.connection() as connection:
        row = measurement_jobs.show(connection, _parse_job_id(job_id), account=caller.account)
        if row is None:
            raise ApiError(404, ErrorCode.NOT_FOUND, NO_SUCH_JOB)
        pause = purchase_pauses.of_job(connection, row)
        value = estimate.value_of_job(connection, row)
        done = _completion(caller, connection, row)
    eur = spend.cost_eur(row["hits"], caller.state.config.eur_per_hit)
    return JobDetails(
        **_job_fields(row),
        **completion_fields(done),
        # A capture works album by album: its recordings have no outcomes of their own.
        progress=JobProgress(settled=row["settled"], asked=None if row["source"] == Source.CURRENT else row["asked"]),
        outcomes=JobOutcomes(**{name: row[name] for name in JobOutcomes.model_fields}),
        receipt=JobCost(hits=row["hits"], eur=float(eur)),
        capture=_capture_of_row(row),
        value=[JobValue(**asdict(point)) for point in value],
        paused=None if pause is None else JobPause(reason=pause.reason, until=pause.paused_until),
    )


@router.delete(
    "/{job_id}", responses=error_responses(404, 409), operation_id="withdraw_measurement_job", summary="Withdraw a job"
)
def withdraw_job(caller: AuthenticatedCaller, job_id: _JobId) -> WithdrawnJob:
    """Recordings that no other job requests are not bought. Stored measurements remain. Repeating it has no effect."""
    job = _parse_job_id(job_id)
    try:
        state = caller.state.write_with_retry(partial(measurement_jobs.withdraw, job=job, account=caller.account))
    except StatementTimeout as error:
        raise ApiError(503, ErrorCode.JOB_LOCKED, JOB_LOCKED, retry_after=DATABASE_RETRY_SECONDS) from error
    if state is None:
        raise ApiError(404, ErrorCode.NOT_FOUND, NO_SUCH_JOB)
    if state is not State.WITHDRAWN:
        raise ApiError(409, ErrorCode.JOB_FINISHED, JOB_FINISHED.format(state.value), id=str(job), state=state.value)
    return WithdrawnJob(id=job)


def _accepted_body(row: dict[str, Any]) -> dict[str, Any]:
    if row["source"] == Source.HISTORICAL:
        counts = {"enqueued": row["enqueued"], "skipped": row["skipped"]}
    else:
        cost = row["estimated_cost_usd"]
        counts = {"album_count": row["album_count"], "estimated_cost_usd": None if cost is None else float(cost)}
        # Only fields with a value: `skipped` and `error` are about recordings without a known album.
        counts |= {name: row[name] for name in ("reused", "skipped", "error") if row[name] is not None}
    job = str(row["id"])
    return {
        "status": "success",
        "source": row["source"],
        "id": job,
        "state": row["state"],
        **counts,
        "links": {"self": f"{BASE}/{job}"},
    }


def _row_error(caller: Caller, row: dict[str, Any]) -> ApiError:
    wait = None
    if row["status_code"] == 429:
        wait = caller.state.read(captures.seconds_left_this_month)
    checkout = {} if row["checkout_url"] is None else {"checkoutUrl": row["checkout_url"]}
    code = _CODE_OF_STATUS.get(row["status_code"], ErrorCode.JOB_FAILED)
    return ApiError(
        row["status_code"], code, row["error"], retry_after=wait, id=str(row["id"]), state=row["state"], **checkout
    )


def _job_fields(row: dict[str, Any]) -> dict[str, Any]:
    scope = row["scope"]
    try:
        json.dumps(scope, allow_nan=False)
    except (ValueError, RecursionError):
        scope = None  # inserted into the table, with a number that Python cannot write as JSON
    return {
        "id": row["id"],
        "source": row["source"],
        "scope": scope,
        "schedule": row["schedule"],
        "state": row["state"],
        "status_code": row["status_code"],
        "error": row["error"],
        "checkoutUrl": row["checkout_url"],
        "asked": row["asked"],
        "enqueued": row["enqueued"],
        "skipped": row["skipped"],
        "limit": row["recording_limit"],
        "coverage": row["coverage"],
        "left_out": row["left_out"],
        "covered": row["covered_share"],
        "callback_url": row["callback_url"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        "links": Links(self=f"{BASE}/{row['id']}"),
    }


def _completion(caller: Caller, connection: Connection, row: dict[str, Any]) -> Completion | None:
    if row["state"] != State.ACCEPTED or row["source"] != Source.HISTORICAL:
        return None
    config = caller.state.config
    found = completion.read_completions(
        connection, [row["id"]], hits_allowed=config.hits_allowed, requests_per_second=config.requests_per_second
    )
    return found.get(row["id"])


def _capture_of_row(row: dict[str, Any]) -> JobCapture | None:
    if row["snapshot_state"] is None:
        return None
    names = ("album_count", "estimated_cost_usd", "reused", "tracks", "recordings", "without_count", "unmapped")
    return JobCapture(state=row["snapshot_state"], error=row["snapshot_error"], **{name: row[name] for name in names})


def _parse_job_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise ApiError(404, ErrorCode.NOT_FOUND, NO_SUCH_JOB) from error
