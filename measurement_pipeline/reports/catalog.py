"""All that is told of a catalogue, gathered from one moment's view of the tables. What is made of it: `page`, `charts`."""

from dataclasses import dataclass
from datetime import date, datetime
from hashlib import sha256
from importlib import resources
from typing import Any
from uuid import UUID

from measurement_pipeline.postgres import analytics, views
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.reports import charts
from measurement_pipeline.reports.charts import Palette

# A line of three years in steps of four weeks: forty descents of an index a recording.
STEPS, STEP_DAYS = 39, 28
TOP = 25
# Of a page's table: what a browser opens without waiting. More are in an export.
LISTED = 5_000
_TOP_OF_THE_CHART = 10

_OVER_TIME = "Plays since release, of what was measured by then"
_STANDING = "Recordings by their standing"
_TOP = "Most played recordings"


@dataclass(frozen=True, slots=True)
class CatalogFacts:
    """The rows behind a catalogue's page; each is a view's, under the view's names."""

    totals: dict[str, Any]
    coverage: dict[str, Any]
    not_measured: list[dict[str, Any]]
    top: list[dict[str, Any]]
    over_time: list[tuple[date, int, int]]
    distrust: dict[str, Any]
    import_differences: list[dict[str, Any]]
    as_of: datetime


def gather(connection: Connection, catalog: UUID, *, most: int = TOP) -> CatalogFacts | None:
    """With its `most` played recordings. None: the catalogue holds nothing, or there is none."""
    # So that a drain beside it does not make the parts disagree.
    with analytics.of_one_moment(connection):
        totals = analytics.totals(connection, catalog)
        if totals is None:
            return None
        over_time = analytics.over_time(connection, catalog, steps=STEPS, step_days=STEP_DAYS)
        return CatalogFacts(
            totals=totals,
            coverage=analytics.coverage(connection, catalog),
            not_measured=analytics.not_measured(connection, catalog),
            top=analytics.top(connection, catalog, most=most),
            over_time=[(row["day"], int(row["play_count"]), row["recordings"]) for row in over_time],
            distrust=analytics.distrust(connection, catalog),
            import_differences=analytics.import_differences(connection, catalog, most=TOP),
            as_of=analytics.now(connection),
        )


def drawn(facts: CatalogFacts, palette: Palette) -> dict[str, str]:
    """The catalogue's charts as SVG, by their titles."""
    standing = [("measured", facts.totals["recordings_measured"])]
    standing += [(row["standing"], row["recordings"]) for row in facts.not_measured]
    points = [(day, plays) for day, plays, _ in facts.over_time]
    titles = {
        _OVER_TIME: charts.line(_OVER_TIME, points, palette),
        _STANDING: charts.parts(_STANDING, standing, palette),
    }
    if facts.top:
        rows = [(row["title"] or row["song"], row["play_count"]) for row in facts.top[:_TOP_OF_THE_CHART]]
        titles[_TOP] = charts.bars(_TOP, rows, palette)
    return titles


def version() -> str:
    """What tells these facts and their charts from any others: the statements, the drawing, and the views they rest on."""
    package = resources.files("measurement_pipeline")
    sources = [
        package.joinpath(*path.split("/")).read_bytes() for path in ("postgres/analytics.sql", "reports/charts.py")
    ]
    return sha256(b"".join(sources) + views.version().encode()).hexdigest()[:12]
