"""Opens Dagster's instance read-only, for any deployment. It creates nothing, not even the tables that Dagster would create."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from measurement_pipeline.cli.environment import CliEnvironment
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.postgres import address, dagster_tables
from measurement_pipeline.postgres.database import DatabaseUnavailable
from measurement_pipeline.postgres.errors import first_line

if TYPE_CHECKING:
    from dagster import DagsterInstance


@contextmanager
def open_dagster_instance(environment: CliEnvironment) -> Iterator["DagsterInstance"]:
    """Open the instance with the settings in DAGSTER_HOME. Raises `CommandError` if there is none."""
    where = address.describe(environment.dagster_url)
    if not (environment.dagster_home / "dagster.yaml").exists():
        raise CommandError(
            f"there is no dagster.yaml in {environment.dagster_home}: start `measurement-pipeline dev`, or set DAGSTER_HOME to a "
            "directory with this project's dagster.yaml"
        )
    try:
        used = dagster_tables.do_tables_exist(environment.dagster_url)
    except DatabaseUnavailable as error:
        raise CommandError(f"{where} cannot be reached (DAGSTER_POSTGRES_URL): {first_line(error)}") from error
    if not used:
        raise CommandError(f"{where} is empty: Dagster was never started on it: start `measurement-pipeline dev`")
    # Imported late: it takes two seconds, and most commands do not need it.
    from dagster import DagsterInstance

    from measurement_pipeline.defs.dagster_private import InstanceRef

    storage = {
        "module": "measurement_pipeline.defs.storage",
        "class": "PooledPostgresStorage",
        "config": {"postgres_url": environment.dagster_url, "should_autocreate_tables": False},
    }
    ref = InstanceRef.from_dir(str(environment.dagster_home), overrides={"storage": {"custom": storage}})
    with DagsterInstance.from_ref(ref) as instance:
        yield instance
