"""Run tags that the project sets and reads: what kind of run it is, and how to find it."""

from collections.abc import Iterable
from uuid import UUID

import dagster as dg

# Only sensors set it: a run without it was launched by a person.
PLAN = "measurement_pipeline/plan"
RECORDINGS = "measurement_pipeline/recordings"
# Why a run that Dagster called failed was cancelled (defs/health/interruptions.py).
INTERRUPTED = "measurement_pipeline/interrupted"
# The incident whose alert this failed run sent itself, because the table of incidents was unavailable.
ALERTED = "measurement_pipeline/alerted"

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
PARTITION = "dagster/partition"
PRIORITY = "dagster/priority"

# Dagster's run page shows every tag, so a run for thousands of requests names only the first ones.
_MAX_TAGS = 20


def is_operators(run: dg.DagsterRun) -> bool:
    """Whether a person launched `run`. Re-executing a planned run counts as such, too."""
    return PLAN not in run.tags or run.parent_run_id is not None


def of_accounts_and_jobs(accounts: Iterable[UUID], jobs: Iterable[UUID]) -> dict[str, str]:
    """Tags to find the runs of an account (`account/<id>`) or of a request (`measurement_job/<id>`) on the runs page."""
    tags = {f"account/{account}": "pays" for account in list(accounts)[:_MAX_TAGS]}
    return tags | {f"measurement_job/{job}": "requested" for job in list(jobs)[:_MAX_TAGS]}
