"""The application: routes, layers and errors put together around one desk. What each does is theirs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware

from measurement_pipeline.api import errors, jobs, reads
from measurement_pipeline.api.cache_control import NoStore
from measurement_pipeline.api.config import ApiConfig
from measurement_pipeline.api.limits import BodyLimit
from measurement_pipeline.api.log import AccessLog
from measurement_pipeline.api.models import Health
from measurement_pipeline.api.openapi import ABOUT, TITLE, VERSION, describe, error_responses
from measurement_pipeline.api.state import ApiState
from measurement_pipeline.postgres import reads as asked

_INDEX = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{TITLE}</title>
<h1>{TITLE}</h1>
<ul>
<li><a href="/docs">/docs</a>: every route, with examples</li>
<li><a href="/openapi.json">/openapi.json</a>: the same for programs</li>
<li><a href="/healthz">/healthz</a>, <a href="/readyz">/readyz</a>: is it up, can it answer</li>
</ul>
</html>
"""

health = APIRouter(tags=["health"])


@health.get(
    "/healthz", responses=error_responses(500, anybody=True), operation_id="get_health", summary="Is the process up?"
)
async def alive() -> Health:
    """It answers, whatever else is away."""
    return Health()


@health.get(
    "/readyz", responses=error_responses(500, 503, anybody=True), operation_id="get_readiness", summary="Can it answer?"
)
def ready(request: Request) -> Health:
    """The database answers too."""
    office: ApiState = request.app.state.office
    with office.pool.connection() as connection:
        asked.ready(connection)
    return Health()


# Load balancers probe with HEAD. Routes of their own: a description knows them by the GET.
health.add_api_route("/healthz", alive, methods=["HEAD"], include_in_schema=False)
health.add_api_route("/readyz", ready, methods=["HEAD"], include_in_schema=False)


@health.get("/", include_in_schema=False, response_class=HTMLResponse)
async def index() -> str:
    """A page for a person who opened the server's address in a browser."""
    return _INDEX


def application(desk: ApiConfig) -> FastAPI:
    """The API over `desk`. Its connections are opened and closed with it."""
    office = ApiState.of(desk)

    @asynccontextmanager
    async def open_for_business(_app: FastAPI) -> AsyncIterator[None]:
        # Not waited for: a database that is away makes it not ready, and no reason not to start.
        await run_in_threadpool(office.pool.open, wait=False)
        yield
        await run_in_threadpool(office.close)

    app = FastAPIOffline(
        title=TITLE,
        version=VERSION,
        description=ABOUT,
        lifespan=open_for_business,
        redoc_url=None,
        # A redirect would name whatever host the client says it asked.
        redirect_slashes=False,
    )
    app.state.office = office
    errors.handle(app)
    for routes in (jobs.routes, reads.routes, health):
        app.include_router(routes)
    describe(app)
    # The last one added is the first to see a request.
    app.add_middleware(BodyLimit, seconds=desk.body_within_seconds)
    app.add_middleware(errors.ServerErrorMiddleware)
    if desk.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(desk.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=[
                "authorization",
                "x-api-key",
                "content-type",
                "idempotency-key",
                "if-none-match",
                "x-request-id",
            ],
            expose_headers=["etag", "link", "location", "retry-after", "x-request-id"],
        )
    app.add_middleware(NoStore)
    app.add_middleware(AccessLog)
    return app
