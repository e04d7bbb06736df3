"""All that is told of a catalogue, gathered from one moment's view of the tables. What is made of it: `page`, `charts`."""

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

# A line of three years in steps of four weeks: forty descents of an index a recording.
STEPS, STEP_DAYS = 39, 28
TOP = 25
# Of a page's table: what a browser opens without waiting. More are in an export.
MAX_LISTED = 5_000
_TOP_OF_THE_CHART = 10

_OVER_TIME = "Plays since release"
_STANDING = "Recordings by their standing"
_TOP = "Most played recordings"


@dataclass(frozen=True, slots=True)
class DayTotal:
    """A catalogue's total on a day: of the `recordings` with a figure by then, and of its cohort.

    `cohort_play_count` is None on days before the first or after the last figure of any recording of the cohort. Between two
    figures of a recording it is interpolated.
    """

    day: date
    recordings: int
    play_count: int
    cohort_play_count: int | None


@dataclass(frozen=True, slots=True)
class Cohort:
    """The recordings of a catalogue whose windows may be compared; `windows`: days, plays, plays a year."""

    recordings: int
    windows: list[tuple[int, int | None, int | None]]

    @property
    def days(self) -> str:
        """The windows that each of its recordings covers, in words."""
        *others, longest = [str(days) for days, _, _ in self.windows]
        return f"{', '.join(others)} and {longest} days" if others else f"{longest} days"


@dataclass(frozen=True, slots=True)
class CatalogReport:
    """The rows behind a catalogue's page; each is a view's, under the view's names."""

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
        """The catalogue's cohort; None: no recording covers a window."""
        if self.totals["cohort_windows"] is None:
            return None
        windows = [
            (days, self.totals[f"cohort_plays_{days}_days"], self.totals[f"cohort_plays_a_year_{days}_days"])
            for days in sorted(self.totals["cohort_windows"])
        ]
        return Cohort(self.totals["cohort_recordings"], windows)


def load_catalog_report(connection: Connection, catalog: UUID, *, most: int = TOP) -> CatalogReport | None:
    """With its `most` played recordings. None: the catalogue holds nothing, or there is none."""
    # So that a drain beside it does not make the parts disagree.
    with analytics.of_one_moment(connection):
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
            distrust=analytics.distrust(connection, catalog),
            import_differences=analytics.import_differences(connection, catalog, most=TOP),
            as_of=analytics.now(connection),
        )


def draw_charts(report: CatalogReport, palette: Palette) -> dict[str, str]:
    """The catalogue's charts as SVG, by their titles."""
    standing = [("measured", report.totals["recordings_measured"])]
    standing += [(row["standing"], row["recordings"]) for row in report.not_measured]
    titles = {
        _OVER_TIME: charts.line_chart(_OVER_TIME, _lines_over_time(report), palette),
        _STANDING: charts.stacked_bar(_STANDING, standing, palette),
    }
    if report.top:
        rows = [(row["title"] or row["song"], row["play_count"]) for row in report.top[:_TOP_OF_THE_CHART]]
        titles[_TOP] = charts.bar_chart(_TOP, rows, palette)
    return titles


def _day_total(row: dict[str, Any]) -> DayTotal:
    of_cohort = row["cohort_play_count"]
    return DayTotal(
        row["day"], row["recordings"], int(row["play_count"]), None if of_cohort is None else int(of_cohort)
    )


def _lines_over_time(report: CatalogReport) -> list[tuple[str, list[tuple[date, int]]]]:
    """The cohort's line, then that of all recordings, by their labels; a line of fewer than two days is left out."""
    found = [
        (
            f"the same {counted(report.totals['cohort_recordings'], 'recording')} throughout: the cohort",
            [(total.day, total.cohort_play_count) for total in report.over_time if total.cohort_play_count is not None],
        ),
        (
            _all_recordings(report.over_time),
            [(total.day, total.play_count) for total in report.over_time],
        ),
    ]
    return [(label, points) for label, points in found if len(points) > 1]


def _all_recordings(over_time: list[DayTotal]) -> str:
    """What the line of all recordings adds up."""
    if not over_time:
        return "every recording with a figure by then"
    first, last = over_time[0].recordings, over_time[-1].recordings
    return f"every recording with a figure by then: {number(first)} at first, {number(last)} at last"


def report_version() -> str:
    """What tells these facts and their charts from any others: the statements, the drawing, and the views they rest on."""
    package = resources.files("measurement_pipeline")
    sources = [
        package.joinpath(*path.split("/")).read_bytes() for path in ("postgres/analytics.sql", "analytics/charts.py")
    ]
    return sha256(b"".join(sources) + views.version().encode()).hexdigest()[:12]
