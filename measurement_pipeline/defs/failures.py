"""How a backfill's summary becomes Dagster's words: success, retry in seconds, or a failure that says why in one line."""

from collections import Counter
from collections.abc import Mapping

import dagster as dg

from measurement_pipeline.backfill.results import ResultKind, RunSummary
from measurement_pipeline.backfill.run import needs_rerun
from measurement_pipeline.defs import tags
from measurement_pipeline.defs.retry_policies import MAX_RETRIES
from measurement_pipeline.domain.backfill_queue import BREAKER_OPENED
from measurement_pipeline.domain.text import counted

# How a launch fails that a person got wrong: the run's page tells them so, and nobody else is told.
REFUSED_LAUNCH = "nothing was launched: "
# How a capture fails that has nothing to capture: its request says so to whoever asked, and nobody else is told.
NOTHING_TO_CAPTURE = "nothing to capture: "

_SHOWN = 10


def retry_soon_seconds(retry_number: int) -> float | None:
    """What a transient row may count on inside its run: 2, 4, 8 s; None once the op's retries are used up."""
    return None if retry_number >= MAX_RETRIES else float(2 ** (retry_number + 1))


def raise_for(summary: RunSummary, *, retry_number: int) -> None:
    """Raise what the run must end with, if it is not success."""
    if needs_rerun(summary) and retry_number < MAX_RETRIES:
        raise dg.RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=(summary.retry_in_seconds or 0.0) + 0.5)
    why = []
    if summary.breaker_reason is not None:
        why.append(f"{BREAKER_OPENED}{summary.breaker_reason}")
    if summary.failed:
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in Counter(summary.failed.values()).items())
        why.append(f"{counted(len(summary.failed), 'recording')} failed ({outcomes})")
    if summary.unfinished:
        why.append(
            f"{len(summary.unfinished)} of the recordings asked for could not be done: {_first(summary.unfinished)}"
        )
    if why:
        raise dg.Failure("; ".join(why), metadata=metadata(summary), allow_retries=False)


def refused_launch(run_tags: Mapping[str, str]) -> dg.Failure:
    """Of a run that covers nothing that there is."""
    first = run_tags.get(tags.RANGE_START) or run_tags.get(tags.PARTITION)
    last = run_tags.get(tags.RANGE_END) or first
    if first is None:
        why = "no recording was chosen"
    elif first == last:
        why = f"{first} is no partition"
    else:
        why = (
            f"{first} to {last} is no range of partitions: one of the two is none, or the second comes before the first"
        )
    cure = (
        "choose partitions of songstats_history, and add an ISRC that nobody has asked for on its partitions page first"
    )
    return dg.Failure(f"{REFUSED_LAUNCH}{why}; {cure}", allow_retries=False)


def metadata(summary: RunSummary) -> dict[str, dg.MetadataValue]:
    """The run's totals, as an operator reads them."""
    totals: dict[str, dg.MetadataValue] = {kind.value: dg.MetadataValue.int(summary.total(kind)) for kind in ResultKind}
    totals["calls"] = dg.MetadataValue.int(summary.calls)
    for outcome, count in summary.by_outcome.items():
        totals[f"outcome {outcome.value}"] = dg.MetadataValue.int(count)
    for reason, count in summary.deferred.items():
        totals[f"deferred: {reason}"] = dg.MetadataValue.int(count)
    if summary.stop_reason is not None:
        totals["stopped because"] = dg.MetadataValue.text(summary.stop_reason)
    return totals


def _first(undone: dict[str, str]) -> str:
    by_reason: dict[str, list[str]] = {}
    for song, reason in undone.items():
        by_reason.setdefault(reason, []).append(song)
    return "; ".join(
        f"{', '.join(songs[:_SHOWN])}{' …' if len(songs) > _SHOWN else ''}: {reason}"
        for reason, songs in by_reason.items()
    )
