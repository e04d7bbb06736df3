"""The assets of the project."""

from typing import Any

import dagster as dg

from measurement_pipeline.defs.analytics import analytics_assets
from measurement_pipeline.defs.asset_checks import pipeline_health
from measurement_pipeline.defs.captures import current_play_counts
from measurement_pipeline.defs.ops import backfill_recordings, check_payment_method, find_payers
from measurement_pipeline.defs.owners import OWNERS
from measurement_pipeline.defs.partitions import isrc_partitions
from measurement_pipeline.domain.plan import RECORDINGS_PER_RUN

_DESCRIPTION = """The play-count history of each recording, bought from Songstats once and stored in `song_measurements`.

One partition an ISRC. **Green**: settled; the metadata says with what (`stored`, `no_history`, `rejected`), how many points, from
when to when, and what it cost. **Missing**: not bought yet; the sensor asks for it when it is due. **Failed**: the answer could
not be read, or the attempts are used up; the run's last line says why.

Launching a stored ISRC costs no hit. Launching a failed one takes it up again. Launching one that no request wants spends hits
of the account in `BACKFILL_ACCOUNT_ID`, if that has a card on file.
"""


@dg.graph_asset(
    partitions_def=isrc_partitions,
    backfill_policy=dg.BackfillPolicy.multi_run(RECORDINGS_PER_RUN),
    group_name="historical_backfill",
    kinds={"python", "postgres"},
    description=_DESCRIPTION,
    owners=OWNERS,
    metadata={
        "tables": dg.MetadataValue.md("`song_measurements`, `songstats_responses`, `songstats_backfill_queue`"),
        "unit": "cumulative plays on Spotify, one point a day",
        "vendor": dg.MetadataValue.url("https://songstats.com/enterprise"),
    },
)
def songstats_history() -> Any:
    """Payment gate, then the money path."""
    return backfill_recordings(check_payment_method(find_payers()))


assets: list[dg.AssetsDefinition | dg.AssetSpec] = [
    songstats_history,
    current_play_counts,
    pipeline_health,
    *analytics_assets,
]
