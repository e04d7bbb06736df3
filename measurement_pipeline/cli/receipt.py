"""Prints a request's receipt: its scope, outcomes, sources and spend."""

from dataclasses import asdict
from typing import Any

from measurement_pipeline.cli import output, spend_tables
from measurement_pipeline.domain.completion import Completion, completion_fields
from measurement_pipeline.domain.coverage import describe_left_out, describe_value
from measurement_pipeline.domain.measurement_job import Source
from measurement_pipeline.domain.spend import cost_eur, hits_per_recording, sum_by_cause, sum_calls
from measurement_pipeline.intake import estimate
from measurement_pipeline.postgres import purchase_pauses, spend
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.spend import Origin

_VALUES_SHOWN = 5


def print_receipt(
    connection: Connection,
    job: dict[str, Any],
    *,
    eur_per_hit: float,
    as_json: bool,
    completion: Completion | None = None,
) -> None:
    """Print the receipt of the request that `progress.load_request` returned. `completion`: None if it has ended."""
    pause = purchase_pauses.of_job(connection, job)
    job = {**job, "paused": None if pause is None else f"{pause.cause} {pause.next_step}"}
    if job["source"] == Source.CURRENT:
        _print_capture_receipt(job, as_json=as_json)
        return
    value = estimate.value_of_job(connection, job)
    origin = spend.get_origin(connection, job["id"])
    calls = spend.list_calls_of_job(connection, job["id"])
    total, by_cause = sum_calls(calls), sum_by_cause(calls)
    eur = cost_eur(total.hits, eur_per_hit)
    per_recording = hits_per_recording(total.hits - total.undecided, origin.bought)
    if as_json:
        output.print_json(
            {
                **job,
                **completion_fields(completion),
                "hits": total.hits,
                "eur": float(eur),
                "hits_per_recording_settled": per_recording,
                "came_from": asdict(origin),
                "value": [asdict(point) for point in value],
                "spent": spend_tables.to_json_rows(by_cause, key_name="cause", eur_per_hit=eur_per_hit),
            }
        )
        return
    queued_before = None
    if job["asked"] is not None:
        queued_before = job["asked"] - job["enqueued"] - job["skipped"] or None
    output.console().print(
        output.build_facts(
            {
                "request": str(job["id"]),
                "account": str(job["account"]),
                "source": job["source"],
                "scope": _scope(job["scope"]),
                "state": f"{job['state']}{f' ({code})' if (code := job['status_code']) else ''}",
                "reason": job["error"],
                "paused": job["paused"],
                "checkout": job["checkout_url"],
                "asked": job["asked"],
                "enqueued": job["enqueued"],
                "skipped": job["skipped"],
                "left out": describe_left_out(
                    job["left_out"] or 0,
                    of=(job["asked"] or 0) + (job["left_out"] or 0),
                    covered=job["covered_share"],
                ),
                "share of known plays": describe_value(value),
                "queued before": queued_before,
                "settled": None if job["asked"] is None else f"{job['settled']:,} of {job['asked']:,}",
                "stored": job["stored"] or None,
                "no history": job["no_history"] or None,
                "rejected": job["rejected"] or None,
                "failed": job["failed"] or None,
                "came from": _came_from(origin) if job["asked"] else None,
                "hits": f"{total.hits:,} (€{eur:,.2f}) spent for this request",
                "hits per recording settled": None
                if per_recording is None
                else f"{per_recording:.2f} (ideal 1.00): {origin.bought:,} settled with this request's hits",
                "complete": output.format_completion(completion),
                "requested at": job["created_at"],
                "last change": job["updated_at"],
            }
        )
    )
    if by_cause:
        output.print_line("\nspent for this request:")
        output.console().print(
            spend_tables.build_spend_table(by_cause, key_name="cause", total=total, eur_per_hit=eur_per_hit)
        )


def _print_capture_receipt(job: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.print_json(job)
        return
    cost = job["estimated_cost_usd"]
    output.console().print(
        output.build_facts(
            {
                "request": str(job["id"]),
                "account": str(job["account"]),
                "source": job["source"],
                "schedule": job["schedule"],
                "scope": _scope(job["scope"]),
                "state": f"{job['state']}{f' ({code})' if (code := job['status_code']) else ''}",
                "reason": _reason(job),
                "paused": job["paused"],
                "capture": job["snapshot"] and f"{job['snapshot']} ({job['snapshot_state']})",
                "without an album": job["skipped"] or None,
                "albums": job["album_count"],
                "cost": None if cost is None else f"${cost:,.3f}" + (" (an earlier capture)" if job["reused"] else ""),
                "tracks": job["tracks"],
                "recordings measured": job["recordings"],
                "without a count": job["without_count"] or None,
                "without an ISRC": job["unmapped"] or None,
                "requested at": job["created_at"],
                "last change": job["updated_at"],
            }
        )
    )


def _reason(job: dict[str, Any]) -> str | None:
    """Join the errors of the capture and of the request; a settled request may already contain the capture's."""
    request_error: str | None = job["error"]
    capture_error: str | None = job["snapshot_error"]
    if capture_error is None or capture_error in (request_error or ""):
        return request_error
    return "; ".join(filter(None, (capture_error, request_error)))


def _came_from(origin: Origin) -> str:
    parts = {
        "bought with this request's hits": origin.bought,
        "bought meanwhile for another request or a launch": origin.bought_for_others,
        "owned or settled before": origin.owned,
        "failed": origin.failed,
        "still open": origin.still_open,
        "withdrawn and not bought": origin.withdrawn,
    }
    return "; ".join(f"{count:,} {what}" for what, count in parts.items() if count) or "nothing"


def _scope(scope: Any) -> str:
    if not isinstance(scope, dict):
        return str(scope)
    parts = []
    for key, value in scope.items():
        values = value if isinstance(value, list) else [value]
        more = len(values) - _VALUES_SHOWN
        parts.append(f"{key}: {', '.join(map(str, values[:_VALUES_SHOWN]))}{f' and {more:,} more' if more > 0 else ''}")
    return "; ".join(parts)
