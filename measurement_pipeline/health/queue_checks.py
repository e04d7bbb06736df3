"""Checks of stored data: recordings that need a person, partitions and tables, plausible play counts. Pure."""

from collections.abc import Sequence

from measurement_pipeline.domain.text import counted
from measurement_pipeline.health.result import HealthResult, format_examples
from measurement_pipeline.postgres.health import CaptureSeriesStatus, FailedRows

# A hundred times the count of the most played recording.
MAX_PLAUSIBLE_COUNT = 10**11

# Songstats' last day is yesterday or the day before. For a recording that was taken down it is some days earlier.
STALE_DAYS = 30


def no_exhausted_recordings(given_up: FailedRows) -> HealthResult:
    """Fail if recordings used up their attempts, have an unreadable response, or a suspect outcome: each needs a person."""
    kinds = (
        ("exhausted", given_up.exhausted, "find the cause in `last_error`, then run `requeue --outcome exhausted`"),
        ("malformed", given_up.malformed, "a newer parser reads them by itself; `requeue --rebuy` buys them again"),
        ("suspect", given_up.suspect, "after key and vendor are repaired, run `requeue --suspect`"),
    )
    metadata = {name: sample.count for name, sample, _ in kinds}
    if not any(metadata.values()):
        return HealthResult(True, "no recording is exhausted, malformed or suspect", metadata=metadata)
    message = "; ".join(
        f"{sample.count} {name} ({format_examples(sample.songs)}): {next_step}"
        for name, sample, next_step in kinds
        if sample.count
    )
    return HealthResult(False, message, reason="given up", metadata=metadata)


def partitions_match_tables(differences: Sequence[str], *, materialized: int) -> HealthResult:
    """Fail if materialized partitions, finished rows and stored measurements disagree."""
    metadata: dict[str, int | float | str] = {"materialized": materialized, "differences": len(differences)}
    if not differences:
        return HealthResult(
            True,
            f"{counted(materialized, 'partition is', 'partitions are')} materialized, and all match the tables",
            metadata=metadata,
        )
    return HealthResult(
        passed=False,
        should_alert=True,
        reason="partitions differ",
        message=f"{counted(len(differences), 'difference')}: {'; '.join(differences[:5])}{' …' if len(differences) > 5 else ''}",
        metadata=metadata,
    )


def values_in_range(latest: Sequence[CaptureSeriesStatus], *, stored: int) -> HealthResult:
    """Fail if the latest of the `stored` recordings of the last day have implausible play counts."""
    anomalies = {series.song: "; ".join(found) for series in latest if (found := _find_anomalies(series))}
    metadata: dict[str, int | float | str] = {
        "recordings stored": stored,
        "recordings checked": len(latest),
        "out of range": len(anomalies),
    }
    sample = (
        counted(len(latest), "recording")
        if len(latest) >= stored
        else f"the latest {len(latest):,} of {counted(stored, 'recording')}"
    )
    if not anomalies:
        return HealthResult(True, f"{sample} stored in the last day, all in range", metadata=metadata)
    examples = format_examples([f"{song} {found}" for song, found in sorted(anomalies.items())])
    message = (
        f"{sample} stored in the last day, {len(anomalies)} out of range: {examples}; check their stored responses"
    )
    return HealthResult(False, message, reason="out of range", metadata=metadata)


def _find_anomalies(series: CaptureSeriesStatus) -> list[str]:
    anomalies = []
    if not 0 < series.latest_count <= MAX_PLAUSIBLE_COUNT:
        anomalies.append(f"has {series.latest_count} plays")
    behind = 0 if series.days_behind is None else series.days_behind
    if behind < 0:
        anomalies.append(f"has counts {counted(-behind, 'day')} in the future")
    if behind > STALE_DAYS:
        anomalies.append(f"ends {counted(behind, 'day')} before it was bought")
    if series.halved_on is not None:
        anomalies.append(f"decreases by more than half on {series.halved_on}")
    return anomalies
