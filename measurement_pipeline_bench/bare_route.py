"""The API's comparison: FastAPI routes that run the same statements and answer with the same bytes.

They use the API's pools and statements, so both sides pay the same to PostgreSQL. They lack what the API adds: checks of keys and
parameters, limits, models, access logs, ETags, and a POST whose processing continues after its answer.
"""

import json
import os
import sys
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import uvicorn
from fastapi import FastAPI
from fastapi.responses import Response

from measurement_pipeline import services
from measurement_pipeline.api import cursors
from measurement_pipeline.api.state import ApiState
from measurement_pipeline.domain.coverage import Aim
from measurement_pipeline.intake.process import process_request
from measurement_pipeline.postgres import api_keys, measurement_jobs, payment_decisions, reads
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.settings import Settings

_JOBS = "/api/research/measurement-jobs"
_PAGE = 100


def application(state: ApiState, *, account: UUID, prefix: str) -> FastAPI:
    """Create the app, which serves one account. `prefix`: of its key, which is looked up as the API does."""
    app = FastAPI()
    state.open()

    def authenticate() -> None:
        state.read(partial(api_keys.find, prefix=prefix))

    @app.get("/bare")
    def bare() -> dict[str, str]:
        return {"status": "success"}

    @app.get("/api/research/tracks/{track}/measurements")
    def track(track: str, aggregate: str | None = None) -> Response:
        authenticate()
        if aggregate is not None:
            rated = state.read(partial(reads.run_rate, account=account, isrc=track, track=track, window_days=28))
            assert rated is not None
            recording, rate = rated
            assert rate is not None
            return _json(
                isrc=recording.isrc,
                name=recording.name,
                artist=recording.artist,
                window_days=28,
                days=rate["days_covered"],
                plays=rate["plays"],
                plays_a_year=int(rate["plays_a_year"]),
                first=rate["first"],
                last=rate["last"],
                reason=rate["why_none"],
                is_interpolated=rate["is_interpolated"],
                first_after=None,
                is_source_changed=rate["is_source_changed"],
            )
        found = state.read(partial(reads.series, account=account, isrc=track, track=track))
        assert found is not None
        recording, points = found
        fields = ("captured_at", "value", "data_source")
        shown = [{name: point[name] for name in fields} for point in points]
        return _json(isrc=recording.isrc, name=recording.name, artist=recording.artist, points=shown)

    @app.get("/api/research/albums/{album}/measurements")
    def album(album: str) -> Response:
        authenticate()
        rows = state.read(partial(reads.latest_of_album, account=account, album=album))
        return _json(album_id=album, recordings=rows)

    @app.get("/api/catalogs/{catalog}/measurements")
    def catalog(catalog: UUID, cursor: str | None = None) -> Response:
        authenticate()
        after = None if cursor is None else cursors.decode_song_cursor(cursor)
        rows = state.read(
            partial(reads.latest_of_catalog, account=account, catalog=catalog, after=after, limit=_PAGE + 1)
        )
        totals = None
        if after is None:
            totals = state.read(partial(reads.totals_of_catalog, account=account, catalog=catalog))
            totals["plays"] = int(totals["plays"])
        following = cursors.encode_song_cursor(rows[_PAGE - 1]["isrc"]) if len(rows) > _PAGE else None
        return _json(catalog_id=str(catalog), recordings=rows[:_PAGE], totals=totals, next=following)

    @app.get(_JOBS)
    def jobs() -> Response:
        authenticate()
        rows = state.read(partial(measurement_jobs.page, account=account, before=None, limit=21))
        following = cursors.encode_job_cursor(rows[19]["created_at"], rows[19]["id"]) if len(rows) > 20 else None
        return _json(jobs=[_job(row) for row in rows[:20]], next=following)

    @app.post(_JOBS)
    def submit(body: dict[str, Any]) -> Response:
        authenticate()
        with state.connection() as connection:
            decision = payment_decisions.load(connection, account).fresh_decision
            job = measurement_jobs.submit_once(
                connection,
                account=account,
                source=body["source"],
                scope=body["scope"],
                schedule="once",
                aim=Aim(),
                callback_url=None,
                key=None,
                digest=None,
            )
        assert job is not None
        with state.connection_without_timeout() as connection:
            process_request(connection, job, decision, run="bare")
            row = _row(connection, job)
        links = {"self": f"{_JOBS}/{job}"}
        counts = {"enqueued": row["enqueued"], "skipped": row["skipped"]}
        return _json(source=row["source"], id=str(job), state=row["state"], **counts, links=links, status_code=202)

    def _row(connection: Connection, job: UUID) -> dict[str, Any]:
        row = measurement_jobs.answer_to(connection, job, account=account)
        assert row is not None
        return row

    return app


def _json(*, status_code: int = 200, **fields: Any) -> Response:
    body = json.dumps({"status": "success", **fields}, separators=(",", ":"), ensure_ascii=False, default=_text)
    return Response(body, status_code, media_type="application/json")


def _text(value: object) -> str:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)


def _job(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "source": row["source"],
        "scope": row["scope"],
        "schedule": row["schedule"],
        "state": row["state"],
        "status_code": row["status_code"],
        "error": row["error"],
        "checkoutUrl": row["checkout_url"],
        "asked": row["asked"],
        "enqueued": row["enqueued"],
        "skipped": row["skipped"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        "links": {"self": f"{_JOBS}/{row['id']}"},
    }


if __name__ == "__main__":
    port, account, prefix = sys.argv[1:]
    state = ApiState.create(services.api_config(Settings.read(os.environ)))
    application_of_account = application(state, account=UUID(account), prefix=prefix)
    uvicorn.run(application_of_account, port=int(port), log_config=None, access_log=False)
