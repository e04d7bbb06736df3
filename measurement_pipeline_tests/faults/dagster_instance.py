"""The real definitions on a Dagster storage that several processes of a test share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline.services import create_services
from measurement_pipeline.settings import Settings
from measurement_pipeline_tests.defs.conftest import Stage, definitions, open_instance, pooled
from measurement_pipeline_tests.faults.child import ChildTask
from measurement_pipeline_tests.workbench import create_workbench


@contextmanager
def shared_instance(task: ChildTask) -> Iterator[Stage]:
    """A Dagster instance whose storage is at `dagster_url`, with the services that `task` describes."""
    bench = create_workbench(task.database_url, SandboxClient(task.sandbox_url))
    services = create_services(
        Settings.read(
            {
                "DATABASE_URL": task.database_url,
                "SONGSTATS_API_KEY": bench.sandbox.songstats_key,
                "SONGSTATS_BASE_URL": bench.sandbox.songstats_url,
                "SONGSTATS_REQUESTS_PER_SECOND": "0",
                "SONGSTATS_TIMEOUT_SECONDS": "30",
                "CLAIM_TIMEOUT_SECONDS": str(task.claim_timeout_seconds),
                "STRIPE_SECRET_KEY": bench.sandbox.stripe_key,
                "STRIPE_API_BASE": bench.sandbox.stripe_url,
            }
        )
    )
    with open_instance(pooled(task.dagster_url), Path(task.directory)) as instance:
        yield Stage(instance, definitions(services), services, bench)
