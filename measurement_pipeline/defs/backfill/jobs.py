"""The job of the backfill."""

import dagster as dg

from measurement_pipeline.defs.backfill.assets import songstats_history
from measurement_pipeline.defs.owners import OWNERS

songstats_backfill = dg.define_asset_job(
    "songstats_backfill",
    selection=dg.AssetSelection.assets(songstats_history),
    description=(
        "Buys the history of a range of recordings. `backfill_queue_sensor` launches it for due rows, the most played first. An "
        "operator launches one ISRC, a range, or all missing."
    ),
    executor_def=dg.in_process_executor,
    owners=OWNERS,
)
