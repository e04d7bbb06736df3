"""Findings about what is there: rows that were given up, what is shown against what is stored, figures out of range. Pure."""

from collections.abc import Sequence

from measurement_pipeline.domain.text import counted
from measurement_pipeline.health.finding import Finding, examples
from measurement_pipeline.postgres.health import CaptureSeriesStatus, GivenUp

# More plays than any recording will have in our time: a hundred times the most played one's.
ABSURD_COUNT = 10**11

# Songstats' last day is yesterday or the day before; a recording taken down is some days behind.
STALE_DAYS = 30


def none_was_given_up(given_up: GivenUp) -> Finding:
    """Rows that reached the attempts cap, could not be read, or were settled on doubtful evidence: each waits for a person."""
    kinds = (
        ("exhausted", given_up.exhausted, "find out why (`last_error`), then `requeue --outcome exhausted`"),
        ("malformed", given_up.malformed, "a newer parser reads them by itself; `requeue --rebuy` buys them anew"),
        ("suspect", given_up.suspect, "once key and vendor are right, `requeue --suspect`"),
    )
    figures = {name: some.count for name, some, _ in kinds}
    if not any(figures.values()):
        return Finding(True, "no recording used up its attempts, none is malformed or suspect", figures=figures)
    words = "; ".join(
        f"{some.count} {name} ({examples(some.songs)}): {cure}" for name, some, cure in kinds if some.count
    )
    return Finding(False, words, reason="given up", figures=figures)


def shown_is_stored(breaches: Sequence[str], *, materialized: int) -> Finding:
    """Partitions shown as materialized, rows done, measurements stored: each has the others."""
    figures: dict[str, int | float | str] = {"materialized": materialized, "disagreements": len(breaches)}
    if not breaches:
        return Finding(
            True,
            f"{counted(materialized, 'recording is', 'recordings are')} shown, and each is stored or settled",
            figures=figures,
        )
    return Finding(
        passed=False,
        serious=True,
        reason="shown and stored disagree",
        words=f"{len(breaches)} disagree: {'; '.join(breaches[:5])}{' …' if len(breaches) > 5 else ''}",
        figures=figures,
    )


def figures_are_in_range(latest: Sequence[CaptureSeriesStatus], *, stored: int) -> Finding:
    """The figures of the latest of the recordings `stored` of late are such as a play count can be."""
    odd = {series.song: "; ".join(found) for series in latest if (found := _oddities(series))}
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
        return Finding(True, f"{looked} stored in the last day, all in range", figures=figures)
    shown = [f"{song} {why}" for song, why in sorted(odd.items())]
    words = f"{looked} stored in the last day, {len(odd)} out of range: {examples(shown)}"
    return Finding(False, words + "; look at their kept responses", reason="out of range", figures=figures)


def _oddities(series: CaptureSeriesStatus) -> list[str]:
    found = []
    if not 0 < series.latest_count <= ABSURD_COUNT:
        found.append(f"was played {series.latest_count} times")
    behind = 0 if series.days_behind is None else series.days_behind
    if behind < 0:
        found.append(f"has figures for {counted(-behind, 'day')} to come")
    if behind > STALE_DAYS:
        found.append(f"ends {counted(behind, 'day')} before it was bought")
    if series.halved_on is not None:
        found.append(f"falls by more than half on {series.halved_on}")
    return found
