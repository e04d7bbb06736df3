"""Run tags that the project sets and reads: how a run is told from another, and found again."""

from collections.abc import Iterable
from uuid import UUID

import dagster as dg

# Set by the sensor alone: a run without it was launched by a person.
PLAN = "measurement_pipeline/plan"
RECORDINGS = "measurement_pipeline/recordings"
# Why a run was cancelled that Dagster had called failed (defs/interruptions.py).
INTERRUPTED = "measurement_pipeline/interrupted"

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
PARTITION = "dagster/partition"
PRIORITY = "dagster/priority"

# Dagster's run page shows every tag: a run for thousands of requests names the first ones.
_MOST_TAGGED = 20


def is_operators(run: dg.DagsterRun) -> bool:
    """Whether a person launched `run`; re-executing a planned one is a person's launch too."""
    return PLAN not in run.tags or run.parent_run_id is not None


def of_accounts_and_jobs(accounts: Iterable[UUID], jobs: Iterable[UUID]) -> dict[str, str]:
    """Tags by which the runs page finds the runs of an account (`account/<id>`) or a request (`measurement_job/<id>`)."""
    tags = {f"account/{account}": "pays" for account in list(accounts)[:_MOST_TAGGED]}
    return tags | {f"measurement_job/{job}": "asked" for job in list(jobs)[:_MOST_TAGGED]}
