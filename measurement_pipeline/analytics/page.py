"""Catalogue report as one self-contained HTML file. The texts are in `page.html.j2`."""

from datetime import UTC

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from measurement_pipeline.analytics import charts
from measurement_pipeline.analytics.catalog import TOP, CatalogReport, draw_charts
from measurement_pipeline.domain.text import counted, number

# Every value is escaped, because titles come from vendors and files.
_PAGES = Environment(
    loader=PackageLoader("measurement_pipeline", "analytics"), autoescape=True, undefined=StrictUndefined
)
_WINDOWS = (28, 90, 365)


def render_page(report: CatalogReport, *, eur_per_hit: float, is_sandbox: bool) -> str:
    """Render the report. `is_sandbox`: the page states that its numbers are invented."""
    totals = report.totals
    cohort = report.cohort
    cohort_windows = {} if cohort is None else {days: (plays, a_year) for days, plays, a_year in cohort.windows}
    windows = [
        {
            "days": days,
            "cohort_plays": cohort_windows.get(days, (None, None))[0],
            "cohort_a_year": cohort_windows.get(days, (None, None))[1],
            "a_year": totals[f"plays_a_year_{days}_days"],
            "recordings": totals[f"recordings_{days}_days"],
        }
        for days in _WINDOWS
    ]
    return _PAGES.get_template("page.html.j2").render(
        totals=totals,
        coverage=report.coverage,
        not_measured=report.not_measured,
        top=report.top[:TOP],
        rest=report.top[TOP:],
        cohort=cohort,
        distrust=report.distrust,
        import_differences=report.import_differences,
        as_of=report.as_of.astimezone(UTC),
        windows=windows,
        # `charts` escapes the values.
        charts=[Markup(svg) for svg in draw_charts(report, charts.PAGE_VARIABLES).values()],  # noqa: S704
        short=lambda value: "–" if value is None else charts.format_short(value),
        n=number,
        counted=counted,
        eur_per_hit=eur_per_hit,
        is_sandbox=is_sandbox,
    )
