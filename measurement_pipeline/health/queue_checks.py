"""Findings about what is there: rows that were given up, what is shown against what is stored, figures out of range. Pure."""

from collections.abc import Sequence

from measurement_pipeline.domain.text import counted
from measurement_pipeline.health.result import HealthResult, format_examples
from measurement_pipeline.postgres.health import CaptureSeriesStatus, GivenUp

# More plays than any recording will have in our time: a hundred times the most played one's.
MAX_PLAUSIBLE_COUNT = 10**11

# Songstats' last day is yesterday or the day before; a recording taken down is some days behind.
STALE_DAYS = 30


def no_exhausted_recordings(given_up: GivenUp) -> HealthResult:
    """Rows that reached the attempts cap, could not be read, or were settled on doubtful evidence: each waits for a person."""
    kinds = (
        ("exhausted", given_up.exhausted, "find out why (`last_error`), then `requeue --outcome exhausted`"),
        ("malformed", given_up.malformed, "a newer parser reads them by itself; `requeue --rebuy` buys them anew"),
        ("suspect", given_up.suspect, "once key and vendor are right, `requeue --suspect`"),
    )
    figures = {name: some.count for name, some, _ in kinds}
    if not any(figures.values()):
        return HealthResult(True, "no recording used up its attempts, none is malformed or suspect", metadata=figures)
    words = "; ".join(
        f"{some.count} {name} ({format_examples(some.songs)}): {cure}" for name, some, cure in kinds if some.count
    )
    return HealthResult(False, words, reason="given up", metadata=figures)


def partitions_match_tables(breaches: Sequence[str], *, materialized: int) -> HealthResult:
    """Partitions shown as materialized, rows done, measurements stored: each has the others."""
    figures: dict[str, int | float | str] = {"materialized": materialized, "disagreements": len(breaches)}
    if not breaches:
        return HealthResult(
            True,
            f"{counted(materialized, 'recording is', 'recordings are')} shown, and each is stored or settled",
            metadata=figures,
        )
    return HealthResult(
        passed=False,
        should_alert=True,
        reason="shown and stored disagree",
        message=f"{len(breaches)} disagree: {'; '.join(breaches[:5])}{' …' if len(breaches) > 5 else ''}",
        metadata=figures,
    )


def values_in_range(latest: Sequence[CaptureSeriesStatus], *, stored: int) -> HealthResult:
    """The figures of the latest of the recordings `stored` of late are such as a play count can be."""
    odd = {series.song: "; ".join(found) for series in latest if (found := _find_anomalies(series))}
    figures: dict[str, int | float | str] = {
        "recordings stored": stored,
        "recordings looked at": len(latest),
        "out of range": len(odd),
    }
    looked = (
        counted(len(latest), "recording")
        if len(latest) >= stored
        else f"the latest {len(latest):,} of {counted(stored, 'recording')}"
    )
    if not odd:
        return HealthResult(True, f"{looked} stored in the last day, all in range", metadata=figures)
    shown = [f"{song} {why}" for song, why in sorted(odd.items())]
    words = f"{looked} stored in the last day, {len(odd)} out of range: {format_examples(shown)}"
    return HealthResult(False, words + "; look at their kept responses", reason="out of range", metadata=figures)


def _find_anomalies(series: CaptureSeriesStatus) -> list[str]:
    found = []
    if not 0 < series.latest_count <= MAX_PLAUSIBLE_COUNT:
        found.append(f"was played {series.latest_count} times")
    behind = 0 if series.days_behind is None else series.days_behind
    if behind < 0:
        found.append(f"has figures for {counted(-behind, 'day')} to come")
    if behind > STALE_DAYS:
        found.append(f"ends {counted(behind, 'day')} before it was bought")
    if series.halved_on is not None:
        found.append(f"falls by more than half on {series.halved_on}")
    return found
