"""The API's comparison: a FastAPI route that only runs one SELECT on a pooled connection."""

import os
import sys

import uvicorn
from fastapi import FastAPI

from measurement_pipeline.postgres.database import pool
from measurement_pipeline_bench.sql import statements

_SQL = statements("http_api")


def application(database_url: str) -> FastAPI:
    """Create the app without keys, limits or logs."""
    app = FastAPI()
    connections = pool(database_url, size=10, timeout_seconds=5)
    connections.open()

    @app.get("/bare")
    def bare() -> dict[str, int]:
        with connections.connection() as connection:
            row = connection.execute(_SQL["one"]).fetchone()
        return {"value": -1 if row is None else int(row["value"])}

    return app


if __name__ == "__main__":
    uvicorn.run(application(os.environ["DATABASE_URL"]), port=int(sys.argv[1]), log_config=None, access_log=False)
