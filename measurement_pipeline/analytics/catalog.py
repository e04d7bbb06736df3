"""Data of a catalogue report, read from one snapshot of the database. `page` and `charts` render it."""

from dataclasses import dataclass
from datetime import date, datetime
from hashlib import sha256
from importlib import resources
from typing import Any
from uuid import UUID

from measurement_pipeline.analytics import charts
from measurement_pipeline.analytics.charts import Palette
from measurement_pipeline.domain.text import counted, number
from measurement_pipeline.postgres import analytics, views
from measurement_pipeline.postgres.database import Connection

# Three years in steps of four weeks: forty index lookups per recording.
STEPS, STEP_DAYS = 39, 28
TOP = 25
# Rows in the report's table: a browser opens this many without delay. An export has all.
MAX_LISTED = 5_000
_BARS = 10

_OVER_TIME = "Plays since release"
_STATUS = "Recordings by status"
_TOP = "Most played recordings"


@dataclass(frozen=True, slots=True)
class DayTotal:
    """Totals of a catalogue on a day: of the `recordings` with a count by then, and of its cohort.

    `cohort_play_count` is None on days before the first or after the last count of any recording of the cohort. Between two
    counts of a recording it is interpolated.
    """

    day: date
    recordings: int
    play_count: int
    cohort_play_count: int | None


@dataclass(frozen=True, slots=True)
class Cohort:
    """Recordings of a catalogue that cover the same windows, so they can be compared. `windows`: days, plays, plays per year."""

    recordings: int
    windows: list[tuple[int, int | None, int | None]]

    @property
    def days(self) -> str:
        """The windows that each recording covers, as text."""
        *others, longest = [str(days) for days, _, _ in self.windows]
        return f"{', '.join(others)} and {longest} days" if others else f"{longest} days"


@dataclass(frozen=True, slots=True)
class CatalogReport:
    """Rows of the views that a catalogue report shows, with the views' column names."""

    totals: dict[str, Any]
    coverage: dict[str, Any]
    not_measured: list[dict[str, Any]]
    top: list[dict[str, Any]]
    over_time: list[DayTotal]
    distrust: dict[str, Any]
    import_differences: list[dict[str, Any]]
    as_of: datetime

    @property
    def cohort(self) -> Cohort | None:
        """The catalogue's cohort, or None if no recording covers a window."""
        if self.totals["cohort_windows"] is None:
            return None
        windows = [
            (days, self.totals[f"cohort_plays_{days}_days"], self.totals[f"cohort_plays_a_year_{days}_days"])
            for days in sorted(self.totals["cohort_windows"])
        ]
        return Cohort(self.totals["cohort_recordings"], windows)


def load_catalog_report(connection: Connection, catalog: UUID, *, most: int = TOP) -> CatalogReport | None:
    """Read the report with the `most` played recordings. Return None if the catalogue is empty or does not exist."""
    # One snapshot, so that the parts agree while a backfill writes.
    with analytics.single_snapshot(connection):
        totals = analytics.totals(connection, catalog)
        if totals is None:
            return None
        over_time = analytics.over_time(connection, catalog, steps=STEPS, step_days=STEP_DAYS)
        return CatalogReport(
            totals=totals,
            coverage=analytics.coverage(connection, catalog),
            not_measured=analytics.not_measured(connection, catalog),
            top=analytics.top(connection, catalog, most=most),
            over_time=[_day_total(row) for row in over_time],
            distrust=analytics.count_quality_flags(connection, catalog),
            import_differences=analytics.import_differences(connection, catalog, most=TOP),
            as_of=analytics.now(connection),
        )


def draw_charts(report: CatalogReport, palette: Palette) -> dict[str, str]:
    """Return the charts as SVG, by title."""
    statuses = [("measured", report.totals["recordings_measured"])]
    statuses += [(row["status"], row["recordings"]) for row in report.not_measured]
    svgs = {
        _OVER_TIME: charts.line_chart(_OVER_TIME, _lines_over_time(report), palette),
        _STATUS: charts.stacked_bar(_STATUS, statuses, palette),
    }
    if report.top:
        rows = [(row["title"] or row["song"], row["play_count"]) for row in report.top[:_BARS]]
        svgs[_TOP] = charts.bar_chart(_TOP, rows, palette)
    return svgs


def _day_total(row: dict[str, Any]) -> DayTotal:
    cohort = row["cohort_play_count"]
    return DayTotal(row["day"], row["recordings"], int(row["play_count"]), None if cohort is None else int(cohort))


def _lines_over_time(report: CatalogReport) -> list[tuple[str, list[tuple[date, int]]]]:
    """Return label and points of each line: cohort first, then all recordings. Omit lines of fewer than two days."""
    lines = [
        (
            f"the same {counted(report.totals['cohort_recordings'], 'recording')} on every day (cohort)",
            [(total.day, total.cohort_play_count) for total in report.over_time if total.cohort_play_count is not None],
        ),
        (
            _label_all_recordings(report.over_time),
            [(total.day, total.play_count) for total in report.over_time],
        ),
    ]
    return [(label, points) for label, points in lines if len(points) > 1]


def _label_all_recordings(over_time: list[DayTotal]) -> str:
    """Return the label of the line of all recordings."""
    if not over_time:
        return "all recordings with a count by that day"
    first, last = over_time[0].recordings, over_time[-1].recordings
    return f"all recordings with a count by that day: {number(first)} on the first, {number(last)} on the last"


def report_version() -> str:
    """Return a hash that changes with the report: of its SQL statements, charts and views."""
    package = resources.files("measurement_pipeline")
    sources = [
        package.joinpath(*path.split("/")).read_bytes() for path in ("postgres/analytics.sql", "analytics/charts.py")
    ]
    return sha256(b"".join(sources) + views.version().encode()).hexdigest()[:12]
