"""The asset `pipeline_health`, which holds the health checks."""

import dagster as dg

from measurement_pipeline.defs.asset_keys import PIPELINE_HEALTH
from measurement_pipeline.defs.owners import OWNERS

_DESCRIPTION = """Whether the pipeline works. Open *Checks*: each shows its result, the reason, and what to do.

`health_schedule` runs the checks every 15 minutes and `reconciliation_schedule` runs `ledger_matches_vendor` once a day. They
cover requests, `songstats_history` and `current_play_counts`. This asset holds no data and is never materialized, so the
latest result of each check is shown at any time, also while recordings are bought.
"""

pipeline_health = dg.AssetSpec(
    PIPELINE_HEALTH, group_name="health", kinds={"dagster"}, owners=OWNERS, description=_DESCRIPTION
)
