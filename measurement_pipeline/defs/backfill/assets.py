"""The asset `songstats_history`."""

from typing import Any

import dagster as dg

from measurement_pipeline.defs.backfill.ops import backfill_recordings, find_payers
from measurement_pipeline.defs.owners import OWNERS
from measurement_pipeline.defs.partitions import isrc_partitions
from measurement_pipeline.defs.payment import check_payment_method
from measurement_pipeline.domain.plan import RECORDINGS_PER_RUN

_DESCRIPTION = """The play-count history of each recording, bought from Songstats once and stored in `song_measurements`.

One partition for each ISRC. **Green**: settled. The metadata shows the outcome (`stored`, `no_history`, `rejected`), the number
of points, the first and last day, and the cost. **Missing**: not bought yet; the sensor launches it when it is due. **Failed**:
the response could not be parsed, or the attempts are used up; the last line of the run's log gives the reason.

Launching a stored ISRC costs no hit. Launching a failed ISRC tries it again. Launching an ISRC that no request wants spends hits
of the account in `BACKFILL_ACCOUNT_ID`, if that account has a card on file.
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
