"""Dagster's database refuses events (its disk is full) while a run has calls in flight.

The pipeline's tables are in another database, so it stores and settles every paid response there. Once Dagster accepts events
again, the run or the reclaim reports recordings that are stored and not materialized.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import sqlalchemy.exc

from measurement_pipeline.defs.asset_keys import SONGSTATS_HISTORY
from measurement_pipeline.postgres.audit import audit
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.conftest import Server
from measurement_pipeline_tests.defs.conftest import Stage
from measurement_pipeline_tests.faults.dagster_instance import shared_instance
from measurement_pipeline_tests.faults.invariants import HISTORY, assert_all_stored_and_accounted_for
from measurement_pipeline_tests.faults.matrix import ProofRecorder
from measurement_pipeline_tests.faults.test_crash_points import DAGSTER_RUN, task_for
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.workbench import Workbench, isrcs

HELD = ["I1", "I2", "I4", "I5", "I6", "I10", "I13", "I14"]

_REFUSE = """
create function refuse() returns trigger language plpgsql as $$
begin raise exception 'could not extend file: No space left on device' using errcode = 'disk_full'; end $$;
create trigger refuse before insert on event_logs for each row when ({when}) execute function refuse();
"""
MATERIALIZATIONS = "new.dagster_event_type = 'ASSET_MATERIALIZATION'"


class DagsterDatabase:
    """The database of the test's Dagster instance, which can refuse events."""

    def __init__(self, url: str) -> None:
        self.url = url

    def refuse(self, when: str = "true") -> None:
        self._execute(_REFUSE.format(when=when))

    def accept(self) -> None:
        self._execute("drop function if exists refuse cascade")

    def _execute(self, statement: str) -> None:
        with connect(self.url) as connection:
            connection.execute(statement)  # type: ignore[call-overload]


@pytest.fixture
def dagster(server: Server) -> Iterator[DagsterDatabase]:
    name = server.create_database()
    yield DagsterDatabase(server.url(name))
    server.drop(name)


@contextmanager
def opened(bench: Workbench, dagster: DagsterDatabase, directory: Path) -> Iterator[Stage]:
    where = {"dagster_url": dagster.url, "directory": str(directory)}
    bench.sandbox.card(str(bench.account))
    with shared_instance(task_for(bench, DAGSTER_RUN, claim_timeout_seconds=30.0, **where)) as stage:
        yield stage


def submit_request(bench: Workbench, stage: Stage, count: int) -> list[str]:
    songs = isrcs(count)
    bench.submit_request(songs)
    stage.register(songs)
    return songs


def assert_all_materialized(bench: Workbench, stage: Stage, songs: Sequence[str]) -> None:
    """Assert that nothing was lost or bought twice, and that Dagster shows each recording."""
    materialized = stage.instance.get_materialized_partitions(SONGSTATS_HISTORY)
    with connect(bench.database_url) as connection:
        results = audit(connection, max_attempts=5, at_rest=True, materialized=materialized)
    assert [f"{one.invariant}: {breach}" for one in results for breach in one.breaches] == []
    assert materialized == set(songs)
    counts = assert_all_stored_and_accounted_for(bench, songs)
    assert (counts.in_vain, counts.unknown, bench.sandbox.hits()) == (0, 0, len(songs))


def test_a_run_with_refused_materializations_succeeds_and_the_reclaim_reports_them(
    bench: Workbench, dagster: DagsterDatabase, tmp_path: Path, long_form: bool, record_proof: ProofRecorder
):
    with opened(bench, dagster, tmp_path) as stage:
        songs = submit_request(bench, stage, 100 if long_form else 20)
        dagster.refuse(MATERIALIZATIONS)
        result = stage.backfill(songs)
        assert result.success
        assert stage.totals()["not reported yet"] == len(songs)
        assert stage.instance.get_materialized_partitions(SONGSTATS_HISTORY) == set()
        dagster.accept()
        assert stage.reclaim().success
        assert_all_materialized(bench, stage, songs)
    record_proof("Dagster's database refuses materializations during a whole run", HELD)


@contextmanager
def run_in_thread(work: Callable[[], None]) -> Iterator[None]:
    """Run `work` in a thread until the block ends."""
    with ThreadPoolExecutor(1) as threads:
        doing = threads.submit(work)
        yield
        doing.result(60)


@contextmanager
def calls_in_flight(bench: Workbench) -> Iterator[None]:
    """Enter once a few calls are made. No further hit can be reserved until the block ends, so the run cannot end earlier."""
    wait_until(lambda: bench.sandbox.hits() >= 4)
    with connect(bench.database_url) as tester, tester.transaction():
        tester.execute("select pg_advisory_xact_lock(hashtextextended('songstats_quota', 0))")
        yield


def test_the_same_run_reports_temporarily_refused_events(
    bench: Workbench, dagster: DagsterDatabase, tmp_path: Path, long_form: bool, record_proof: ProofRecorder
):
    count = 300 if long_form else 60
    bench.sandbox.faults(HISTORY, delay=0.3)

    def refuse_for_a_while() -> None:
        with calls_in_flight(bench):
            dagster.refuse()
            wait_until(lambda: bench.statuses().get("stored") == bench.sandbox.hits())
            dagster.accept()

    with opened(bench, dagster, tmp_path) as stage:
        songs = submit_request(bench, stage, count)
        with run_in_thread(refuse_for_a_while):
            result = stage.backfill(songs)
        assert result.success
        assert "not reported yet" not in stage.totals()
        assert_all_materialized(bench, stage, songs)
    record_proof("Dagster's database refuses every event while calls are in flight", HELD)


def test_a_run_that_dagster_cannot_end_loses_none_of_its_calls(
    bench: Workbench, dagster: DagsterDatabase, tmp_path: Path, long_form: bool, record_proof: ProofRecorder
):
    count = 300 if long_form else 60
    bench.sandbox.faults(HISTORY, delay=0.3)

    def refuse_for_good() -> None:
        with calls_in_flight(bench):
            dagster.refuse()

    with opened(bench, dagster, tmp_path) as stage:
        songs = submit_request(bench, stage, count)
        # Dagster cannot record that the step succeeded, and reports that.
        with run_in_thread(refuse_for_good), suppress(sqlalchemy.exc.SQLAlchemyError):
            assert not stage.backfill(songs).success
        assert bench.statuses() == {"stored": count}, "everything is bought, stored and settled nevertheless"
        dagster.accept()
        assert stage.reclaim().success
        assert_all_materialized(bench, stage, songs)
    record_proof("Dagster's database refuses every event until after the end of a run", HELD)
