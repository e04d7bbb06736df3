"""The asset `current_play_counts`: its op, and what a run says of a capture. What a capture does is `capture/run`."""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import dagster as dg

from measurement_pipeline.capture.config import CaptureServices
from measurement_pipeline.capture.mapping import SPOTIFY
from measurement_pipeline.capture.outcome import CaptureResultKind
from measurement_pipeline.capture.retry_mapping import remap_capture
from measurement_pipeline.capture.run import CaptureOutcome, Launch, make_capture
from measurement_pipeline.capture.series import start_due_captures
from measurement_pipeline.defs import failures, resources, retry_policies, tags
from measurement_pipeline.defs.heartbeat import heartbeats
from measurement_pipeline.defs.materializations import is_reported
from measurement_pipeline.defs.owners import OWNERS
from measurement_pipeline.defs.partition_status import restore_statuses
from measurement_pipeline.defs.partitions import register, snapshot_partitions
from measurement_pipeline.defs.stopping import stops_in_one_line
from measurement_pipeline.domain.capture import NO_CAPTURES
from measurement_pipeline.domain.text import counted
from measurement_pipeline.postgres import captures, partition_keys, run_heartbeats, vendor_state
from measurement_pipeline.postgres.database import connect

CURRENT_PLAY_COUNTS = dg.AssetKey("current_play_counts")

# One run at a time waits for the actor; dagster.yaml sets the limit, an operator may raise it.
POOL = "apify"

# What the sweep looks at again: a pause of Spotify's is over by then.
_DAYS_SWEPT = 7
_MOST_MAPPED_AGAIN = 20

_DESCRIPTION = """What Spotify displays today for whole albums: one play count a recording, stored in `song_measurements`.

One partition a capture, named after its catalogue or first album, its day and its id
(`playcount_snapshots.partition_key`). **Green**: captured; the metadata says how many albums, tracks and recordings,
what it cost, and which tracks have no known ISRC. **Missing**: not made yet, or put off; it goes on by itself. **Failed**: the
actor's own words are in the run's last line.

Launching one that is done costs nothing: where tracks are without an ISRC, what was kept is mapped once more. Launching a failed
one buys what is missing, where the account's month allows it.
"""


@dg.op(
    required_resource_keys={"measurement_database", "capture_config", "apify", "spotify"},
    out=dg.Out(dg.Nothing, is_required=False),
    pool=POOL,
    description=(
        "Starts the actor once for each hundred albums, keeps its result as received, matches tracks with recordings, and "
        "stores their counts. A run of the actor that was started is never started again: it is waited for, or looked for."
    ),
)
@stops_in_one_line
def capture_play_counts(context: dg.OpExecutionContext) -> Iterator[dg.Output[None]]:
    """Yields no output: a capture that came to its end is said by its materialization."""
    with retry_policies.retry_on_error(context.retry_number):
        url = resources.own_database(context.resources)
        services = resources.captures(context.resources)
        if services is None:
            raise dg.Failure(NO_CAPTURES, allow_retries=False)
        with connect(url) as connection:
            run_heartbeats.renew(connection, context.run_id)
        operator = tags.is_operators(context.run)
        with heartbeats(services.config.database_url, context.run_id, every_seconds=services.config.heartbeat_seconds):
            ended = make_capture(
                _snapshot(context, services),
                services,
                run_id=context.run_id,
                launch=Launch.OPERATOR if operator else Launch.PLANNED,
                retry_number=context.retry_number,
                is_last_try=context.retry_number >= retry_policies.MAX_RETRIES,
            )
        # The capture is stored: what Dagster's database refuses now, the sweep reports.
        is_reported(lambda: _emit_materialization(context, ended))
        _raise_for(ended, operator=operator, retry_number=context.retry_number)
    yield from ()


@dg.graph_asset(
    partitions_def=snapshot_partitions,
    group_name="current_counts",
    kinds={"python", "postgres"},
    description=_DESCRIPTION,
    owners=OWNERS,
    metadata={
        "tables": dg.MetadataValue.md("`song_measurements`, `playcount_snapshots`, `apify_runs`"),
        "unit": "cumulative plays on Spotify, as displayed at the moment of the capture",
        "vendor": dg.MetadataValue.url("https://apify.com/beatanalytics/spotify-play-count-scraper"),
    },
)
def current_play_counts() -> Any:
    """One capture."""
    return capture_play_counts()


@dg.op(
    required_resource_keys={"measurement_database", "capture_config"},
    description="Starts the captures of monthly series whose last one is 30 days old; each once, whatever was missed meanwhile.",
)
@stops_in_one_line
def start_due_series(context: dg.OpExecutionContext) -> None:
    """A deployment that captures nothing has nothing to start."""
    resources.own_database(context.resources)
    config = resources.capture_config(context.resources)
    if config is None:
        context.add_output_metadata({"series due": 0, "captures started": 0, "why": NO_CAPTURES})
        return
    started = start_due_captures(config)
    context.add_output_metadata(
        {
            "series due": started.due,
            "captures started": started.started,
            "refused by the monthly cap": len(started.refused),
        }
    )
    if started.refused:
        # Nobody asked just now who could be told: an operator is. They are asked for again tomorrow.
        raise dg.Failure("; ".join(started.refused), allow_retries=False)


def emit_missing_materializations(context: dg.OpExecutionContext, services: CaptureServices) -> int:
    """Report captures that are done and whose materialization a crash swallowed; how many."""
    told = context.instance.get_materialized_partitions(CURRENT_PLAY_COUNTS)
    with connect(services.config.database_url) as connection:
        done = partition_keys.ensure_for_captures(connection, captures.list_recently_done(connection, days=_DAYS_SWEPT))
        untold = {snapshot: key for snapshot, key in done.items() if key not in told}
        register(context.instance, snapshot_partitions, list(untold.values()))
        for snapshot in untold:
            shown = captures.get(connection, snapshot)
            if shown is not None:
                said = "captured earlier, reported by the sweep"
                context.instance.report_runless_asset_event(_materialization(shown, said, cost_usd=0.0))
    return len(untold)


def restore_partition_statuses(context: dg.OpExecutionContext, services: CaptureServices) -> int:
    """Let captures that did not fail, but whose run did, show as missing or captured again; how many."""

    def failed(keys: Sequence[str]) -> frozenset[str]:
        with connect(services.config.database_url) as connection:
            return partition_keys.list_failed_captures(connection, keys)

    return restore_statuses(context, CURRENT_PLAY_COUNTS, snapshot_partitions, failed)


def retry_deferred_mappings(context: dg.OpExecutionContext, services: CaptureServices) -> int:
    """Look the tracks up again that Spotify could not be asked about, for nothing; of how many captures."""
    with connect(services.config.database_url) as connection:
        if vendor_state.get_pause(connection, SPOTIFY) is not None or services.dependencies.new_spotify is None:
            return 0
        deferred = captures.list_with_deferred_tracks(connection, days=_DAYS_SWEPT, limit=_MOST_MAPPED_AGAIN)
    with heartbeats(services.config.database_url, context.run_id, every_seconds=services.config.heartbeat_seconds):
        for snapshot in deferred:
            kind, why = remap_capture(snapshot, services, run_id=context.run_id)
            context.log.info(f"capture {snapshot} was mapped again: {kind} ({why})")
    return len(deferred)


def _snapshot(context: dg.OpExecutionContext, services: CaptureServices) -> UUID:
    """The capture that the run is of. Raises `dg.Failure`, which nobody but whoever launched it is told."""
    if not context.has_partition_key:
        raise _refused_launch("no capture was chosen")
    key = context.partition_key
    with connect(services.config.database_url) as connection:
        snapshot = partition_keys.find_capture(connection, key)
    if snapshot is None:
        raise _refused_launch(f"{key!r} is no capture: playcount_snapshots has none with this partition_key")
    return snapshot


def _refused_launch(why: str) -> dg.Failure:
    cure = "choose partitions of current_play_counts; a request of source current makes one"
    return dg.Failure(f"{failures.REFUSED_LAUNCH}{why}; {cure}", allow_retries=False)


def _emit_materialization(context: dg.OpExecutionContext, ended: CaptureOutcome) -> None:
    shown = ended.row
    if shown:
        context.instance.add_run_tags(context.run_id, tags.of_accounts_and_jobs([shown["account"]], shown["jobs"]))
    if ended.kind not in {CaptureResultKind.DONE, CaptureResultKind.PARTLY_DONE, CaptureResultKind.ALREADY_DONE}:
        context.log.info(f"{ended.kind}: {ended.reason}")
        return
    nothing = (
        "captured before: nothing was paid"
        if ended.kind is CaptureResultKind.ALREADY_DONE and not ended.paid_usd
        else None
    )
    said = _materialization(shown, nothing or _headline(shown), cost_usd=float(ended.paid_usd), unmapped=ended.unmapped)
    context.log_event(said)


def _materialization(
    shown: dict[str, Any], description: str, *, cost_usd: float, unmapped: Sequence[str] = ()
) -> dg.AssetMaterialization:
    metadata: dict[str, Any] = {
        "albums": shown["album_count"],
        "tracks": shown["tracks"],
        "recordings measured": shown["recordings"],
        "tracks without a count": shown["without_count"],
        "tracks without an ISRC": shown["unmapped"],
        "paid by this run (USD)": cost_usd,
        "account": str(shown["account"]),
        "schedule": shown["schedule"],
    }
    if unmapped:
        metadata["without an ISRC"] = dg.MetadataValue.md("\n".join(f"- {name}" for name in unmapped))
    if shown["error"]:
        metadata["what is missing"] = shown["error"]
    return dg.AssetMaterialization(
        CURRENT_PLAY_COUNTS, partition=shown["partition_key"], description=description, metadata=metadata
    )


def _headline(shown: dict[str, Any]) -> str:
    return f"{counted(shown['recordings'], 'recording')} on {counted(shown['album_count'], 'album')}"


def _raise_for(ended: CaptureOutcome, *, operator: bool, retry_number: int) -> None:
    if ended.kind is CaptureResultKind.TRY_AGAIN:
        raise dg.RetryRequested(
            max_retries=retry_policies.MAX_RETRIES, seconds_to_wait=retry_policies.seconds_before(retry_number)
        )
    # Whoever asked is told 404. So is an operator where it may be the actor that found nothing, or where nobody asked: a series.
    if ended.kind is CaptureResultKind.NOT_FOUND and ended.row["jobs"] and not ended.row["may_exist"]:
        raise dg.Failure(f"{failures.NOTHING_TO_CAPTURE}{ended.reason}", allow_retries=False)
    bad = {
        CaptureResultKind.FAILED,
        CaptureResultKind.NOT_FOUND,
        CaptureResultKind.STOPPED,
        CaptureResultKind.PARTLY_DONE,
    }
    if operator:
        bad |= {CaptureResultKind.UNCHANGED, CaptureResultKind.POSTPONED}
    if ended.kind in bad:
        raise dg.Failure(ended.reason or str(ended.kind), allow_retries=False)
