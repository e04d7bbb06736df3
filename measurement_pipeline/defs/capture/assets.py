"""The asset `current_play_counts` and its op. The work of a capture is in `capture/run`."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import dagster as dg

from measurement_pipeline.capture.config import CaptureConfig, CaptureServices
from measurement_pipeline.capture.outcome import CaptureOutcome, CaptureResultKind
from measurement_pipeline.capture.run import Launch, make_capture
from measurement_pipeline.defs import retry_policies, tags
from measurement_pipeline.defs.capture import materializations
from measurement_pipeline.defs.expected_failures import NOTHING_TO_CAPTURE, REFUSED_LAUNCH
from measurement_pipeline.defs.heartbeat import heartbeats
from measurement_pipeline.defs.owners import OWNERS
from measurement_pipeline.defs.partitions import snapshot_partitions
from measurement_pipeline.defs.reporting import try_report
from measurement_pipeline.defs.resources import Apify, Spotify, capture_services
from measurement_pipeline.defs.steps import begin_step
from measurement_pipeline.defs.stopping import stops_in_one_line
from measurement_pipeline.domain.capture import NO_CAPTURES
from measurement_pipeline.postgres import partition_keys
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.services import MeasurementDatabase

# One run at a time waits for the actor: dagster.yaml sets the limit, and an operator may raise it.
POOL = "apify"

_DESCRIPTION = """What Spotify displays today for whole albums: one play count for each recording, stored in `song_measurements`.

One partition for each capture, named after its catalogue or first album, its day and its id
(`playcount_snapshots.partition_key`). **Green**: captured. The metadata shows the numbers of albums, tracks and recordings, the
cost, and the tracks without a known ISRC. **Missing**: not captured yet, or postponed; it continues by itself. **Failed**: the
last line of the run's log quotes the actor.

Launching a finished capture costs nothing: its stored result is mapped again if tracks have no ISRC. Launching a failed capture
buys what is missing, within the account's monthly cap.
"""


@dg.op(
    out=dg.Out(dg.Nothing, is_required=False),
    pool=POOL,
    description=(
        "Starts the actor once for each hundred albums, stores its result as received, matches tracks with recordings, and "
        "stores their counts. A run of the actor that was started is never started again: the op waits for it, or searches it."
    ),
)
@stops_in_one_line
def capture_play_counts(
    context: dg.OpExecutionContext,
    measurement_database: dg.ResourceParam[MeasurementDatabase],
    capture_config: dg.ResourceParam[CaptureConfig | None],
    apify: dg.ResourceParam[Apify],
    spotify: dg.ResourceParam[Spotify],
) -> Iterator[dg.Output[None]]:
    """Yields no output: a finished capture has a materialization."""
    with retry_policies.retry_on_error(context.retry_number):
        database_url = begin_step(context, measurement_database)
        services = capture_services(capture_config, apify, spotify)
        if services is None:
            raise dg.Failure(NO_CAPTURES, allow_retries=False)
        operator = tags.is_operators(context.run)
        with heartbeats(database_url, context.run_id, every_seconds=services.config.heartbeat_seconds):
            outcome = make_capture(
                _snapshot(context, services),
                services,
                run_id=context.run_id,
                launch=Launch.OPERATOR if operator else Launch.PLANNED,
                retry_number=context.retry_number,
                is_last_try=context.retry_number >= retry_policies.MAX_RETRIES,
            )
        # The capture is stored: the sweep reports what Dagster's database refuses now.
        try_report(lambda: materializations.emit_outcome(context, outcome))
        _raise_for(outcome, operator=operator, retry_number=context.retry_number)
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


def _snapshot(context: dg.OpExecutionContext, services: CaptureServices) -> UUID:
    """The capture that the run covers. Raises `dg.Failure`, which is no incident: a person launched the run wrongly."""
    if not context.has_partition_key:
        raise _refused_launch("no capture was selected")
    key = context.partition_key
    with connect(services.config.database_url) as connection:
        snapshot = partition_keys.find_capture(connection, key)
    if snapshot is None:
        raise _refused_launch(f"{key!r} is no capture: no row of playcount_snapshots has this partition_key")
    return snapshot


def _refused_launch(why: str) -> dg.Failure:
    next_step = "select partitions of current_play_counts; a request of source current creates one"
    return dg.Failure(f"{REFUSED_LAUNCH}{why}; {next_step}", allow_retries=False)


def _raise_for(outcome: CaptureOutcome, *, operator: bool, retry_number: int) -> None:
    if outcome.kind is CaptureResultKind.TRY_AGAIN:
        raise dg.RetryRequested(
            max_retries=retry_policies.MAX_RETRIES, seconds_to_wait=retry_policies.seconds_before(retry_number)
        )
    # The client is answered 404. It is an incident, too, if the actor may have missed something, or if no client asked: a series.
    if outcome.kind is CaptureResultKind.NOT_FOUND and outcome.row["jobs"] and not outcome.row["may_exist"]:
        raise dg.Failure(f"{NOTHING_TO_CAPTURE}{outcome.reason}", allow_retries=False)
    failed_kinds = {
        CaptureResultKind.FAILED,
        CaptureResultKind.NOT_FOUND,
        CaptureResultKind.STOPPED,
        CaptureResultKind.PARTLY_DONE,
    }
    if operator:
        failed_kinds |= {CaptureResultKind.UNCHANGED, CaptureResultKind.POSTPONED}
    if outcome.kind in failed_kinds:
        raise dg.Failure(outcome.reason or str(outcome.kind), allow_retries=False)
