"""The job of captures."""

import dagster as dg

from measurement_pipeline.defs.capture.assets import current_play_counts
from measurement_pipeline.defs.owners import OWNERS

play_count_capture = dg.define_asset_job(
    "play_count_capture",
    selection=dg.AssetSelection.assets(current_play_counts),
    description=(
        "Makes one capture. `playcount_snapshot_sensor` launches it for each requested capture. Launching a finished one maps "
        "its stored result again at no cost. Launching a failed one buys what is missing."
    ),
    executor_def=dg.in_process_executor,
    owners=OWNERS,
)
