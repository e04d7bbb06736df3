"""The asset `current_play_counts`: its op, and what a run says of a capture. What a capture does is `capture/run`."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import dagster as dg

from measurement_pipeline.capture.run import Ended, Kind, make_capture
from measurement_pipeline.capture.series import start_due
from measurement_pipeline.capture.terms import Captures
from measurement_pipeline.defs import retry_policies, tags
from measurement_pipeline.defs.owners import OWNERS
from measurement_pipeline.defs.partitions import snapshot_partitions
from measurement_pipeline.defs.resources import Pipeline
from measurement_pipeline.defs.sign_of_life import beating
from measurement_pipeline.domain.wording import counted
from measurement_pipeline.postgres import run_heartbeats
from measurement_pipeline.postgres.database import connect

CURRENT_PLAY_COUNTS = dg.AssetKey("current_play_counts")

# One run at a time waits for the actor; dagster.yaml sets the limit, an operator may raise it.
POOL = "apify"

NOT_SET_UP = "captures are not set up here: APIFY_TOKEN is not set"

_DESCRIPTION = """What Spotify displays today for whole albums: one play count a recording, stored in `song_measurements`.

One partition a capture (`playcount_snapshots.id`). **Green**: captured; the metadata says how many albums, tracks and recordings,
what it cost, and which tracks have no known ISRC. **Missing**: not made yet, or put off; it goes on by itself. **Failed**: the
actor's own words are in the run's last line.

Launching one that is done costs nothing: where tracks are without an ISRC, what was kept is mapped once more. Launching a failed
one buys again what is missing.
"""


@dg.op(
    required_resource_keys={"pipeline"},
    out=dg.Out(dg.Nothing, is_required=False),
    pool=POOL,
    description=(
        "Starts the actor once for each hundred albums, keeps its result as received, matches tracks with recordings, and "
        "stores their counts. A run of the actor that was started is never started again: it is waited for, or looked for."
    ),
)
def capture_play_counts(context: dg.OpExecutionContext) -> Iterator[dg.Output[None]]:
    """Yields no output: a capture that came to its end is said by its materialization."""
    with retry_policies.tried_again(context.retry_number):
        pipeline: Pipeline = context.resources.pipeline
        pipeline.require_own_database()
        captures = require(pipeline)
        with connect(captures.terms.database_url) as connection:
            run_heartbeats.beat(connection, context.run_id)
        operator = tags.is_operators(context.run)
        with beating(captures.terms.database_url, context.run_id, every_seconds=captures.terms.beat_seconds):
            ended = make_capture(
                _snapshot(context.partition_key),
                captures,
                run=context.run_id,
                operator=operator,
                retry_number=context.retry_number,
                last_try=context.retry_number >= retry_policies.MAX_RETRIES,
            )
        _tell(context, ended)
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
    required_resource_keys={"pipeline"},
    ins={"swept": dg.In(dg.Nothing)},
    description="Starts the captures of monthly series whose last one is 30 days old; each once, whatever was missed meanwhile.",
)
def start_due_series(context: dg.OpExecutionContext) -> None:
    """A deployment that captures nothing has nothing to start."""
    pipeline: Pipeline = context.resources.pipeline
    pipeline.require_own_database()
    if pipeline.captures is None:
        context.add_output_metadata({"series due": 0, "captures started": 0, "why": NOT_SET_UP})
        return
    started = start_due(pipeline.captures.terms)
    for refusal in started.refused:
        context.log.warning(refusal)
    context.add_output_metadata(
        {
            "series due": started.due,
            "captures started": started.started,
            "refused by the monthly cap": len(started.refused),
        }
    )


def require(pipeline: Pipeline) -> Captures:
    """What captures are made with. Raises `dg.Failure` where they are not set up."""
    if pipeline.captures is None:
        raise dg.Failure(NOT_SET_UP, allow_retries=False)
    return pipeline.captures


def _snapshot(partition_key: str) -> UUID:
    try:
        return UUID(partition_key)
    except ValueError as error:
        raise dg.Failure(
            f"{partition_key!r} is no capture: expected the id of a row of playcount_snapshots", allow_retries=False
        ) from error


def _tell(context: dg.OpExecutionContext, ended: Ended) -> None:
    shown = ended.shown
    if shown:
        context.instance.add_run_tags(context.run_id, tags.of_accounts_and_jobs([shown["account"]], shown["jobs"]))
    if ended.kind not in {Kind.DONE, Kind.DONE_BEFORE}:
        context.log.info(f"{ended.kind}: {ended.reason}")
        return
    metadata: dict[str, Any] = {
        "albums": shown["album_count"],
        "tracks": shown["tracks"],
        "recordings measured": shown["recordings"],
        "tracks without a count": shown["without_count"],
        "tracks without an ISRC": shown["unmapped"],
        "cost_usd": 0.0 if ended.kind is Kind.DONE_BEFORE else float(shown["estimated_cost_usd"]),
        "account": str(shown["account"]),
        "schedule": shown["schedule"],
    }
    if ended.unmapped:
        metadata["without an ISRC"] = dg.MetadataValue.md("\n".join(f"- {name}" for name in ended.unmapped))
    if shown["error"]:
        metadata["missing"] = shown["error"]
    context.log_event(
        dg.AssetMaterialization(
            CURRENT_PLAY_COUNTS,
            partition=context.partition_key,
            description="captured before: nothing was paid" if ended.kind is Kind.DONE_BEFORE else _headline(shown),
            metadata=metadata,
        )
    )


def _headline(shown: dict[str, Any]) -> str:
    return f"{counted(shown['recordings'], 'recording')} on {counted(shown['album_count'], 'album')}"


def _raise_for(ended: Ended, *, operator: bool, retry_number: int) -> None:
    if ended.kind is Kind.TRY_AGAIN:
        raise dg.RetryRequested(
            max_retries=retry_policies.MAX_RETRIES, seconds_to_wait=retry_policies.seconds_before(retry_number)
        )
    is_bad = ended.kind in {Kind.FAILED, Kind.STOPPED} or (ended.kind is Kind.DONE and ended.reason is not None)
    if is_bad or (operator and ended.kind in {Kind.LEFT_ALONE, Kind.PUT_OFF}):
        raise dg.Failure(ended.reason or str(ended.kind), allow_retries=False)
