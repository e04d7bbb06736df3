"""Assemble the FastAPI application: routers, middleware, error handlers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware

from measurement_pipeline.api import errors, jobs, reads
from measurement_pipeline.api.cache_control import NoStoreMiddleware
from measurement_pipeline.api.config import ApiConfig
from measurement_pipeline.api.limits import BodyLimitMiddleware
from measurement_pipeline.api.log import AccessLogMiddleware
from measurement_pipeline.api.openapi import DESCRIPTION, TITLE, VERSION, customize_openapi, error_responses
from measurement_pipeline.api.state import ApiState
from measurement_pipeline.postgres.reads import ready

_INDEX = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{TITLE}</title>
<h1>{TITLE}</h1>
<ul>
<li><a href="/docs">/docs</a>: all routes, with examples</li>
<li><a href="/openapi.json">/openapi.json</a>: the OpenAPI description</li>
<li><a href="/healthz">/healthz</a>: liveness; <a href="/readyz">/readyz</a>: readiness</li>
</ul>
</html>
"""

health_router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The process answers."""

    status: Literal["success"] = "success"


@health_router.get(
    "/healthz",
    responses=error_responses(500, is_public=True),
    operation_id="get_health",
    summary="Check that the process runs",
)
async def get_health() -> Health:
    """Liveness: does not depend on the database."""
    return Health()


@health_router.get(
    "/readyz",
    responses=error_responses(500, 503, is_public=True),
    operation_id="get_readiness",
    summary="Check that the API can answer",
)
def get_readiness(request: Request) -> Health:
    """Readiness: the database answers."""
    state: ApiState = request.app.state.api
    state.read(ready)
    return Health()


# Load balancers probe with HEAD. Not in the schema: the GET operations describe these addresses.
health_router.add_api_route("/healthz", get_health, methods=["HEAD"], include_in_schema=False)
health_router.add_api_route("/readyz", get_readiness, methods=["HEAD"], include_in_schema=False)


@health_router.get("/", include_in_schema=False, response_class=HTMLResponse)
async def get_index() -> str:
    """Return the start page for a browser."""
    return _INDEX


def create_app(config: ApiConfig) -> FastAPI:
    """Create the application. Its lifespan opens and closes the connection pool."""
    state = ApiState.create(config)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(state.open)
        yield
        await run_in_threadpool(state.close)

    app = FastAPIOffline(
        title=TITLE,
        version=VERSION,
        description=DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        # A redirect would contain the host that the client sent, which can be any host.
        redirect_slashes=False,
    )
    app.state.api = state
    errors.add_error_handlers(app)
    for router in (jobs.router, reads.router, health_router):
        app.include_router(router)
    customize_openapi(app)
    # The middleware that is added last sees a request first.
    app.add_middleware(BodyLimitMiddleware, seconds=config.body_within_seconds)
    app.add_middleware(errors.ServerErrorMiddleware)
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.cors_origins),
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
    app.add_middleware(NoStoreMiddleware)
    app.add_middleware(AccessLogMiddleware)
    return app
