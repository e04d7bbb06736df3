"""The definitions without anything to work with: enough for what only looks at them, Dagster's GraphQL included."""

import dagster as dg

from measurement_pipeline.defs import analytics_checks, asset_checks, assets, jobs, schedules, sensors

without_resources = dg.Definitions(
    assets=assets.assets,
    asset_checks=[*asset_checks.asset_checks, *analytics_checks.analytics_checks],
    jobs=jobs.jobs,
    sensors=sensors.sensors,
    schedules=schedules.schedules,
    resources={"pipeline": dg.ResourceDefinition.none_resource()},
    executor=dg.in_process_executor,
)
