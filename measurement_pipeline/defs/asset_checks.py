"""The checks of the pipeline's health: what an operator sees as passing or failing, with the reason in words.

Each gathers facts at the edge, asks `health/` for its finding, and shows it. A failing one of severity ERROR is an incident as
well, and is told; a WARN is a wait that passes by itself, or work for a person that can wait. They belong to `pipeline_health`,
an asset that is never materialized: of an asset that is, Dagster shows a check only as of the latest materialization, so that
the checks of `songstats_history` read "Not evaluated" during each drain (docs/decisions/0027).
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import dagster as dg

from measurement_pipeline.backfill import vendor_status
from measurement_pipeline.defs.instance_status import read_instance_state
from measurement_pipeline.defs.materializations import SONGSTATS_HISTORY
from measurement_pipeline.defs.owners import OWNERS
from measurement_pipeline.defs.resources import alerts, backfill_config, own_database, songstats
from measurement_pipeline.defs.stopping import stops_in_one_line
from measurement_pipeline.health import incidents, queue_checks, reconciliation, stall_checks
from measurement_pipeline.health.result import HealthResult
from measurement_pipeline.postgres import health, spend
from measurement_pipeline.postgres.audit import shown_and_stored
from measurement_pipeline.postgres.database import Connection, StatementTimeout, connect, transaction_with_timeout

PIPELINE_HEALTH = dg.AssetKey("pipeline_health")

_DESCRIPTION = """Whether the pipeline is well. Open *Checks*: each says in words what it found, and what to do.

`health_schedule` runs the checks every 15 minutes and `reconciliation_schedule` runs `ledger_matches_vendor` once a day. They are
about requests, `songstats_history` and `current_play_counts`. This asset holds no data and is never materialized, so the
latest result of each check is shown at any time, also while recordings are bought.
"""

pipeline_health = dg.AssetSpec(
    PIPELINE_HEALTH, group_name="health", kinds={"dagster"}, owners=OWNERS, description=_DESCRIPTION
)

# Its last argument is the context's resources.
_Look = Callable[[dg.DagsterInstance, Connection, Any], HealthResult]

# Of one statement of a check. None takes a tenth of it; one that waits for a lock must not keep the other checks waiting.
_LONGEST_SECONDS = 60.0

# The sweep shows within the hour what a crash kept from being shown; twice that is a failure.
_GRACE_HOURS = 2.0


def check(
    description: str,
    asset: dg.AssetKey = PIPELINE_HEALTH,
    *,
    blocking: bool = False,
    uses: Collection[str] = (),
    seconds: float = _LONGEST_SECONDS,
) -> Callable[[_Look], dg.AssetChecksDefinition]:
    """A check named like the function that makes its finding. `blocking`: where it fails, nothing downstream is made.

    `uses`: keys of resources beside `measurement_database` and `alerts`, which every check uses. `seconds`: how long a statement
    of the check may take.
    """

    def made(look: _Look) -> dg.AssetChecksDefinition:
        spec = dg.AssetCheckSpec(look.__name__, asset=asset, description=description, blocking=blocking)

        @dg.multi_asset_check(
            name=look.__name__,
            specs=[spec],
            description=description,
            required_resource_keys={"measurement_database", "alerts", *uses},
        )
        @stops_in_one_line
        def looked(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
            url = own_database(context.resources)
            finding = _look_in_time(look, context, url, seconds=seconds)
            # Shown before it is told, so that a webhook that is away fails the step and hides nothing.
            yield result(finding)
            incidents.record_result(url, look.__name__, finding)
            incidents.send_alerts(url, alerts(context.resources).post)

        return looked

    return made


def _look_in_time(look: _Look, context: dg.AssetCheckExecutionContext, url: str, *, seconds: float) -> HealthResult:
    """The finding of a check; where the database gives no answer in time, that is the finding: nothing is known then."""
    try:
        with connect(url) as connection, transaction_with_timeout(connection, seconds=seconds):
            return look(context.instance, connection, context.resources)
    except StatementTimeout:
        words = f"not known: a statement of this check took longer than {seconds:g} s, or waited for a lock"
        cure = "`measurement-pipeline doctor` names the sessions that may hold it (line sessions)"
        return HealthResult(False, f"{words}; {cure}", should_alert=True, reason="no answer")


def result(finding: HealthResult) -> dg.AssetCheckResult:
    """A finding as Dagster shows it."""
    return dg.AssetCheckResult(
        passed=finding.passed,
        severity=dg.AssetCheckSeverity.ERROR if finding.should_alert else dg.AssetCheckSeverity.WARN,
        description=finding.message,
        metadata=dict(finding.metadata),
    )


@check(
    "Recordings that somebody wants bought do not wait while nothing is settled for SILENCE_ALARM_HOURS. Says what stands in the "
    "way: daemon, sensor, breaker, payment, slot, vendor, budget, pause, failing runs.",
    uses={"backfill_config", "dagster_database"},
)
def backfill_is_progressing(instance: dg.DagsterInstance, connection: Connection, resources: Any) -> HealthResult:
    """Whether buying is silent."""
    terms = backfill_config(resources)
    return stall_checks.backfill_is_progressing(
        health.read_backfill_state(
            connection, hits_allowed=terms.hits_allowed, operators_account=terms.rules.operators_account
        ),
        read_instance_state(instance, sensor="backfill_queue_sensor", job="songstats_backfill", buys=True),
        alarm_hours=alerts(resources).silence_alarm_hours,
    )


@check(
    "Requests do not stay queued for SILENCE_ALARM_HOURS. Says what stands in the way: daemon, sensor, failing runs, Stripe.",
    uses={"dagster_database"},
)
def intake_is_progressing(instance: dg.DagsterInstance, connection: Connection, resources: Any) -> HealthResult:
    """Whether intake is silent."""
    return stall_checks.intake_is_progressing(
        health.answering(connection),
        read_instance_state(instance, sensor="measurement_job_sensor", job="measurement_job_intake", buys=False),
        alarm_hours=alerts(resources).silence_alarm_hours,
    )


@check(
    "No recording has used up its attempts, none is malformed or suspect; if one is, says which and what a person can do."
)
def no_exhausted_recordings(_instance: dg.DagsterInstance, connection: Connection, _resources: Any) -> HealthResult:
    """Whether rows wait for a person."""
    return queue_checks.no_exhausted_recordings(health.given_up(connection))


@check(
    "Partitions shown as materialized, queue rows that are done and measurements that are stored agree, both ways.",
    uses={"dagster_database"},
)
def partitions_match_tables(instance: dg.DagsterInstance, connection: Connection, _resources: Any) -> HealthResult:
    """Whether Dagster and the tables agree. Dagster is asked first: a row is done before it is shown."""
    materialized = instance.get_materialized_partitions(SONGSTATS_HISTORY)
    breaches = shown_and_stored(connection, materialized, at_rest=False, grace_hours=_GRACE_HOURS)
    breaches += health.rows_against_measurements(connection)
    return queue_checks.partitions_match_tables(breaches, materialized=len(materialized))


@check("The recordings stored in the last day have a last count, a last day and a course that a play count can have.")
def values_in_range(_instance: dg.DagsterInstance, connection: Connection, _resources: Any) -> HealthResult:
    """Whether the latest figures are plausible."""
    latest = health.latest_series(connection)
    return queue_checks.values_in_range(latest, stored=health.stored_of_late(connection))


@check(
    "Captures do not stay open for SILENCE_ALARM_HOURS. Says what stands in the way: daemon, sensor, slot, failing runs, Apify.",
    uses={"dagster_database"},
)
def captures_are_progressing(instance: dg.DagsterInstance, connection: Connection, resources: Any) -> HealthResult:
    """Whether capturing is silent."""
    return stall_checks.captures_are_progressing(
        health.capturing(connection),
        read_instance_state(instance, sensor="playcount_snapshot_sensor", job="play_count_capture", buys=False),
        alarm_hours=alerts(resources).silence_alarm_hours,
    )


# What the schedule runs: cheap, and free of the vendor.
health_checks: list[dg.AssetChecksDefinition] = [
    backfill_is_progressing,
    intake_is_progressing,
    no_exhausted_recordings,
    partitions_match_tables,
    values_in_range,
    captures_are_progressing,
]


@check(
    "The ledger's hits of this month against the requests and objects that Songstats counts (`GET /status`, free). A drift is a "
    "warning, and so is a vendor that cannot be asked: then it is unknown.",
    uses={"songstats"},
)
def ledger_matches_vendor(_instance: dg.DagsterInstance, connection: Connection, resources: Any) -> HealthResult:
    """Whether the vendor counts what we count."""
    before = spend.month(connection)
    counted = vendor_status.fetch_vendor_status(songstats(resources).new_client).month
    return reconciliation.ledger_matches_vendor(before, spend.month(connection), counted)


asset_checks: list[dg.AssetChecksDefinition] = [*health_checks, ledger_matches_vendor]
