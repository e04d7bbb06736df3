"""The real definitions on a real Dagster instance, whose storage is a database of the test's own."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import dagster as dg
import pytest

from measurement_pipeline.defs import tags
from measurement_pipeline.defs.asset_keys import SONGSTATS_HISTORY
from measurement_pipeline.defs.loading import load_definitions
from measurement_pipeline.defs.partitions import isrc_partitions
from measurement_pipeline.defs.resources import resource_definitions
from measurement_pipeline.postgres.conninfo import sqlalchemy_url
from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline.services import Services, create_services
from measurement_pipeline.settings import Settings
from measurement_pipeline_tests.conftest import Server
from measurement_pipeline_tests.dagster_private import SensorExecutionData
from measurement_pipeline_tests.health.receiver import Receiver, listening
from measurement_pipeline_tests.workbench import OPERATORS, Workbench


@dataclass
class Stage:
    """Definitions and instance, with the actions of the tests."""

    instance: dg.DagsterInstance
    definitions: dg.Definitions
    services: Services
    bench: Workbench

    def register(self, songs: Sequence[str]) -> None:
        self.instance.add_dynamic_partitions("isrc", list(songs))

    def backfill(self, songs: Sequence[str], *, planned: bool = True, **run_tags: str) -> dg.ExecuteInProcessResult:
        """Run a range of registered partitions as the sensor does (`planned`) or as an operator does."""
        chosen = {tags.RANGE_START: songs[0], tags.RANGE_END: songs[-1], **run_tags}
        if planned:
            chosen[tags.PLAN] = "plan-1"
        job = self.definitions.resolve_job_def("songstats_backfill")
        return job.execute_in_process(instance=self.instance, tags=chosen, raise_on_error=False)

    def intake(self) -> dg.ExecuteInProcessResult:
        return self.definitions.resolve_job_def("measurement_job_intake").execute_in_process(
            instance=self.instance, raise_on_error=False
        )

    def reclaim(self) -> dg.ExecuteInProcessResult:
        return self.definitions.resolve_job_def("backfill_reclaim").execute_in_process(
            instance=self.instance, raise_on_error=False
        )

    def submit_request(self, scope: object, *, account: UUID | None = None, source: str = "historical") -> UUID:
        """Insert a request as a client does."""
        rows = self.bench.sql(
            "insert into measurement_jobs (account, source, scope) values (%s, %s, %s) returning id",
            account or self.bench.account,
            source,
            json.dumps(scope),
        )
        return UUID(str(rows[0]["id"]))

    def breaker(self) -> str:
        return str(self.bench.sql("select breaker from vendor_state")[0]["breaker"])

    def failure_message(self, result: dg.ExecuteInProcessResult) -> str:
        """The failure on the run's page."""
        (failure,) = [event for event in result.all_events if event.is_step_failure]
        error = failure.step_failure_data.error
        assert error is not None
        cause = error.cause or error
        return f"{error.message} {cause.message} {failure.step_failure_data.user_failure_data}"

    def log(self, run_id: str) -> str:
        """A run's log."""
        return "\n".join(entry.user_message for entry in self.instance.all_logs(run_id))

    def totals(self) -> dict[str, Any]:
        """The metadata of the latest run's totals."""
        (record,) = self.instance.fetch_observations(SONGSTATS_HISTORY, limit=1).records
        assert record.asset_observation is not None
        return {key: value.value for key, value in record.asset_observation.metadata.items()}

    def partition_statuses(self) -> dict[str, str]:
        """Each partition's status on the UI's partitions page."""
        keys = self.instance.get_dynamic_partitions("isrc")
        result = self.instance.get_status_by_partition(SONGSTATS_HISTORY, keys, isrc_partitions) or {}
        return {key: status.name for key, status in result.items() if status is not None}

    def tick(self, sensor: str, resources: dict[str, dg.ResourceDefinition] | None = None) -> SensorExecutionData:
        """Evaluate a sensor once, as the daemon does. By default it does not wait for work."""
        definition = self.definitions.resolve_sensor_def(sensor)
        with dg.build_sensor_context(
            instance=self.instance,
            resources=resources or resource_definitions(lambda: self.services),
            sensor_name=sensor,
            definitions=self.definitions,
        ) as context:
            return definition.evaluate_tick(context)

    def with_hits_allowed(self, hits: int) -> None:
        self.services = replace(
            self.services, backfill_config=replace(self.services.backfill_config, hits_allowed=hits)
        )
        self.definitions = definitions(self.services)

    def metadata_by_isrc(self) -> dict[str, dict[str, Any]]:
        """The latest materialization of each ISRC: its metadata."""
        result: dict[str, dict[str, Any]] = {}
        records = self.instance.fetch_materializations(SONGSTATS_HISTORY, limit=1000, ascending=True).records
        for record in records:
            materialization = record.asset_materialization
            assert materialization is not None
            assert materialization.partition is not None
            result[materialization.partition] = {k: v.value for k, v in materialization.metadata.items()}
        return result


def pooled(url: str) -> dict[str, Any]:
    """The storage that dagster.yaml names, so that events are written as in production."""
    named = {"module": "measurement_pipeline.defs.storage", "class": "PooledPostgresStorage"}
    return {"custom": {**named, "config": {"postgres_url": url}}}


def open_instance(storage: dict[str, Any], directory: Path) -> dg.DagsterInstance:
    # Captured output costs four processes a run, and no test reads it.
    no_logs = {"module": "dagster.core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
    overrides = {"storage": storage, "telemetry": {"enabled": False}, "compute_logs": no_logs}
    return dg.DagsterInstance.local_temp(str(directory), overrides=overrides)


@pytest.fixture(scope="session")
def dagster_template(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database with Dagster's tables, which take a second to create."""
    name = server.create_database()
    # Dagster's own storage keeps no connection: a database with one cannot be a template.
    stock = {"postgres": {"postgres_url": sqlalchemy_url(server.url(name))}}
    with open_instance(stock, tmp_path_factory.mktemp("dagster")) as opened:
        opened.get_runs_count()
        opened.get_dynamic_partitions("isrc")
        opened.all_instigator_state()
    yield name
    server.drop(name)


@pytest.fixture
def instance(server: Server, dagster_template: str, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    name = server.create_database(template=dagster_template)
    with open_instance(pooled(server.url(name)), tmp_path) as opened:
        yield opened
    server.drop(name)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening() as opened:
        yield opened


@pytest.fixture
def stage(instance: dg.DagsterInstance, bench: Workbench, sandbox: SandboxClient) -> Stage:
    settings = Settings.read(
        {
            **sandbox.environment,
            "DATABASE_URL": bench.database_url,
            "SONGSTATS_REQUESTS_PER_SECOND": "0",
            "SONGSTATS_TIMEOUT_SECONDS": "30",
            "CLAIM_TIMEOUT_SECONDS": "40",
            "BACKFILL_ACCOUNT_ID": str(OPERATORS),
            "APIFY_USD_PER_ALBUM": "0.003",
        }
    )
    services = create_services(settings)
    assert services.captures is not None
    # The double's results are complete at once, so a result that lacks an item is final.
    terms = replace(services.captures.config, result_settle_seconds=0.3)
    services = replace(services, captures=replace(services.captures, config=terms))
    sandbox.card(str(bench.account))
    return Stage(instance, definitions(services), services, bench)


def definitions(services: Services) -> dg.Definitions:
    return load_definitions(lambda: services)
