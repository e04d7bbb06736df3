"""How the messages of failed runs begin that are not incidents, and the failure of a run that covers no partition."""

from collections.abc import Mapping

import dagster as dg

from measurement_pipeline.defs import tags

# A person launched the run wrongly. The run's page shows the reason, and no alert is sent.
REFUSED_LAUNCH = "nothing was launched: "
# A capture found nothing to capture. Its request is answered with the reason.
NOTHING_TO_CAPTURE = "nothing to capture: "


def refused_launch(run_tags: Mapping[str, str]) -> dg.Failure:
    """The failure of a backfill that covers no existing partition."""
    first = run_tags.get(tags.RANGE_START) or run_tags.get(tags.PARTITION)
    last = run_tags.get(tags.RANGE_END) or first
    if first is None:
        why = "no recording was selected"
    elif first == last:
        why = f"{first} is not a partition"
    else:
        why = (
            f"{first} to {last} is not a range of partitions: one of them does not exist, or they are in reverse order"
        )
    next_step = (
        "select partitions of songstats_history; add an ISRC that no job has requested on its partitions page first"
    )
    return dg.Failure(f"{REFUSED_LAUNCH}{why}; {next_step}", allow_retries=False)
