"""Translate a backfill run's summary into Dagster's terms: success, a retry, or a failure with its reason in one line."""

from collections import Counter

import dagster as dg

from measurement_pipeline.backfill.results import ResultKind, RunSummary
from measurement_pipeline.backfill.run import needs_rerun
from measurement_pipeline.defs.retry_policies import MAX_RETRIES, base_wait_seconds
from measurement_pipeline.domain.backfill_queue import BREAKER_OPENED
from measurement_pipeline.domain.text import counted

_MOST_NAMED = 10


def retry_soon_seconds(retry_number: int) -> float | None:
    """How long a transient row may wait for a retry inside its run: 2, 4, 8 s. None: the op's retries are used up."""
    return None if retry_number >= MAX_RETRIES else base_wait_seconds(retry_number)


def raise_for(summary: RunSummary, *, retry_number: int) -> None:
    """Raise the retry or the failure that the run must end with, if it has not succeeded."""
    if needs_rerun(summary) and retry_number < MAX_RETRIES:
        raise dg.RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=(summary.retry_in_seconds or 0.0) + 0.5)
    reasons = []
    if summary.breaker_reason is not None:
        reasons.append(f"{BREAKER_OPENED}{summary.breaker_reason}")
    if summary.failed:
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in Counter(summary.failed.values()).items())
        reasons.append(f"{counted(len(summary.failed), 'recording')} failed ({outcomes})")
    if summary.unfinished:
        count = counted(len(summary.unfinished), "selected recording")
        reasons.append(f"{count} could not be bought: {_group_by_reason(summary.unfinished)}")
    if reasons:
        raise dg.Failure("; ".join(reasons), metadata=metadata(summary), allow_retries=False)


def metadata(summary: RunSummary) -> dict[str, dg.MetadataValue]:
    """The run's totals as metadata."""
    totals: dict[str, dg.MetadataValue] = {kind.value: dg.MetadataValue.int(summary.total(kind)) for kind in ResultKind}
    totals["calls"] = dg.MetadataValue.int(summary.calls)
    for outcome, count in summary.by_outcome.items():
        totals[f"outcome {outcome.value}"] = dg.MetadataValue.int(count)
    for reason, count in summary.deferred.items():
        totals[f"deferred: {reason}"] = dg.MetadataValue.int(count)
    if summary.stop_reason is not None:
        totals["stopped because"] = dg.MetadataValue.text(summary.stop_reason)
    return totals


def _group_by_reason(unfinished: dict[str, str]) -> str:
    isrcs_by_reason: dict[str, list[str]] = {}
    for isrc, reason in unfinished.items():
        isrcs_by_reason.setdefault(reason, []).append(isrc)
    return "; ".join(
        f"{', '.join(isrcs[:_MOST_NAMED])}{' …' if len(isrcs) > _MOST_NAMED else ''}: {reason}"
        for reason, isrcs in isrcs_by_reason.items()
    )
