"""The composition root: settings → terms and means → `Definitions`. Loaded by Dagster (workspace.yaml), imported by nobody.

Loading it needs no setting and no database: what is missing is named when a run or a tick starts. A setting that is wrong, or a
database of another deployment, is refused at load, before anything can be spent.
"""

import os
import warnings

import dagster as dg

# `owners` of jobs, sensors and schedules is beta in this version; its worst end is a label that is not shown.
warnings.filterwarnings("ignore", category=dg.BetaWarning, message="Parameter `owners`")

from measurement_pipeline import services  # noqa: E402
from measurement_pipeline.defs import analytics_checks, asset_checks, assets, jobs, schedules, sensors  # noqa: E402
from measurement_pipeline.defs.resources import resource_definitions  # noqa: E402

defs = dg.Definitions(
    assets=assets.assets,
    asset_checks=[*asset_checks.asset_checks, *analytics_checks.analytics_asset_checks],
    jobs=jobs.jobs,
    sensors=sensors.sensors,
    schedules=schedules.schedules,
    resources=resource_definitions(services.pipeline_at_launch(os.environ)),
    executor=dg.in_process_executor,
)
