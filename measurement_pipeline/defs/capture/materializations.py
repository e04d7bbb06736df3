"""Materializations of `current_play_counts`, emitted by a run or by the sweep after it."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from measurement_pipeline.capture.config import CaptureServices
from measurement_pipeline.capture.mapping import SPOTIFY
from measurement_pipeline.capture.outcome import CaptureOutcome, CaptureResultKind
from measurement_pipeline.capture.retry_mapping import remap_capture
from measurement_pipeline.defs import tags
from measurement_pipeline.defs.asset_keys import CURRENT_PLAY_COUNTS
from measurement_pipeline.defs.heartbeat import heartbeats
from measurement_pipeline.defs.partition_status import restore_statuses
from measurement_pipeline.defs.partitions import register, snapshot_partitions
from measurement_pipeline.domain.text import counted
from measurement_pipeline.postgres import captures, partition_keys, vendor_state
from measurement_pipeline.postgres.database import connect

# How far back the sweep looks: a pause of Spotify has ended by then.
_SWEPT_DAYS = 7
_MOST_REMAPPED = 20

_FINISHED = frozenset({CaptureResultKind.DONE, CaptureResultKind.PARTLY_DONE, CaptureResultKind.ALREADY_DONE})


def emit_outcome(context: dg.OpExecutionContext, outcome: CaptureOutcome) -> None:
    """Emit the materialization of a finished capture, or log why it is not finished."""
    shown = outcome.row
    if shown:
        context.instance.add_run_tags(context.run_id, tags.of_accounts_and_jobs([shown["account"]], shown["jobs"]))
    if outcome.kind not in _FINISHED:
        context.log.info(f"{outcome.kind}: {outcome.reason}")
        return
    cost_nothing = outcome.kind is CaptureResultKind.ALREADY_DONE and not outcome.paid_usd
    description = "captured before: no cost" if cost_nothing else _headline(shown)
    context.log_event(_materialization(shown, description, cost_usd=float(outcome.paid_usd), unmapped=outcome.unmapped))


def emit_missing_capture_materializations(context: dg.OpExecutionContext, services: CaptureServices) -> int:
    """Emit the materializations of finished captures that a crash prevented, and return their number."""
    materialized = context.instance.get_materialized_partitions(CURRENT_PLAY_COUNTS)
    with connect(services.config.database_url) as connection:
        done = partition_keys.ensure_for_captures(connection, captures.list_recently_done(connection, days=_SWEPT_DAYS))
        missing = {snapshot: key for snapshot, key in done.items() if key not in materialized}
        register(context.instance, snapshot_partitions, list(missing.values()))
        for snapshot in missing:
            shown = captures.get(connection, snapshot)
            if shown is not None:
                description = "captured earlier, reported by the sweep"
                context.instance.report_runless_asset_event(_materialization(shown, description, cost_usd=0.0))
    return len(missing)


def restore_capture_statuses(context: dg.OpExecutionContext, services: CaptureServices) -> int:
    """Restore the status of captures that did not fail but whose run did, and return their number."""

    def failed_among(keys: Sequence[str]) -> frozenset[str]:
        with connect(services.config.database_url) as connection:
            return partition_keys.list_failed_captures(connection, keys)

    return restore_statuses(context, CURRENT_PLAY_COUNTS, snapshot_partitions, failed_among)


def retry_deferred_mappings(context: dg.OpExecutionContext, services: CaptureServices) -> int:
    """Look up the tracks again whose lookup Spotify did not answer, at no cost. Returns the number of captures."""
    config = services.config
    with connect(config.database_url) as connection:
        if vendor_state.get_pause(connection, SPOTIFY) is not None or services.dependencies.new_spotify is None:
            return 0
        deferred = captures.list_with_deferred_tracks(connection, days=_SWEPT_DAYS, limit=_MOST_REMAPPED)
    with heartbeats(config.database_url, context.run_id, every_seconds=config.heartbeat_seconds):
        for snapshot in deferred:
            kind, why = remap_capture(snapshot, services, run_id=context.run_id)
            context.log.info(f"capture {snapshot} was mapped again: {kind} ({why})")
    return len(deferred)


def _materialization(
    shown: dict[str, Any], description: str, *, cost_usd: float, unmapped: Sequence[str] = ()
) -> dg.AssetMaterialization:
    metadata: dict[str, Any] = {
        "albums": shown["album_count"],
        "tracks": shown["tracks"],
        "recordings measured": shown["recordings"],
        "tracks without a count": shown["without_count"],
        "tracks without an ISRC": shown["unmapped"],
        "cost of this run (USD)": cost_usd,
        "account": str(shown["account"]),
        "schedule": shown["schedule"],
    }
    if unmapped:
        metadata["names without an ISRC"] = dg.MetadataValue.md("\n".join(f"- {name}" for name in unmapped))
    if shown["error"]:
        metadata["missing"] = shown["error"]
    return dg.AssetMaterialization(
        CURRENT_PLAY_COUNTS, partition=shown["partition_key"], description=description, metadata=metadata
    )


def _headline(shown: dict[str, Any]) -> str:
    return f"{counted(shown['recordings'], 'recording')} on {counted(shown['album_count'], 'album')}"
