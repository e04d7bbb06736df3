"""The decorator of all checks: a function that returns a `HealthResult` becomes an asset check, and an incident if it fails."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

from measurement_pipeline.defs.asset_keys import PIPELINE_HEALTH
from measurement_pipeline.defs.stopping import stops_in_one_line
from measurement_pipeline.health import incidents
from measurement_pipeline.health.result import HealthResult
from measurement_pipeline.postgres.database import StatementTimeout, transaction_with_timeout
from measurement_pipeline.services import Alerts, MeasurementDatabase

# Of one statement. No check needs a tenth of it, and one that waits for a lock must not delay the other checks.
_STATEMENT_SECONDS = 60.0

_Check = Callable[..., HealthResult]


def health_check(
    description: str,
    asset: dg.AssetKey = PIPELINE_HEALTH,
    *,
    blocking: bool = False,
    statement_seconds: float = _STATEMENT_SECONDS,
) -> Callable[[_Check], dg.AssetChecksDefinition]:
    """Create a check with the name of the decorated function. `blocking`: if it fails, Dagster materializes nothing downstream.

    The function's first parameter is a connection. Each other parameter is a resource, by its name.
    """

    def decorate(run_check: _Check) -> dg.AssetChecksDefinition:
        name = run_check.__name__
        _, *resource_keys = inspect.signature(run_check).parameters

        @dg.multi_asset_check(
            name=name,
            specs=[dg.AssetCheckSpec(name, asset=asset, description=description, blocking=blocking)],
            description=description,
            required_resource_keys={"measurement_database", "alerts", *resource_keys},
        )
        @stops_in_one_line
        def check(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
            # The one place that reads resources by name: Dagster takes them as parameters only of functions that it decorates.
            database: MeasurementDatabase = context.resources.measurement_database
            alerts: Alerts = context.resources.alerts
            resources = {key: getattr(context.resources, key) for key in resource_keys}
            result = _run_in_time(run_check, resources, database, seconds=statement_seconds)
            # Shown before the alert is sent, so that an unreachable webhook fails the step and hides nothing.
            yield as_check_result(result)
            incidents.record_result(database.url, name, result)
            incidents.send_alerts(database.url, alerts.post)

        return check

    return decorate


def as_check_result(result: HealthResult) -> dg.AssetCheckResult:
    """Translate a result into Dagster's terms."""
    return dg.AssetCheckResult(
        passed=result.passed,
        severity=dg.AssetCheckSeverity.ERROR if result.should_alert else dg.AssetCheckSeverity.WARN,
        description=result.message,
        metadata=dict(result.metadata),
    )


def _run_in_time(
    run_check: _Check, resources: dict[str, Any], database: MeasurementDatabase, *, seconds: float
) -> HealthResult:
    """Run a check. A statement that times out fails it: the state is unknown then."""
    try:
        with database.connect() as connection, transaction_with_timeout(connection, seconds=seconds):
            return run_check(connection, **resources)
    except StatementTimeout:
        message = f"not known: a statement of this check took longer than {seconds:g} s, or waited for a lock"
        next_step = "`measurement-pipeline doctor` names the sessions that may hold it (line sessions)"
        return HealthResult(False, f"{message}; {next_step}", should_alert=True, reason="no answer")
