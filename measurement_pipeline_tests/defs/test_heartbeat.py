"""A run's heartbeats while it waits, and the limit of its silence."""

from typing import Any

import dagster as dg
import pytest

from measurement_pipeline.defs import tags
from measurement_pipeline.defs.heartbeat import heartbeats
from measurement_pipeline_tests.defs.conftest import Stage
from measurement_pipeline_tests.defs.test_sensors import started_event
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.workbench import Workbench, isrcs


def test_a_run_writes_heartbeats_only_while_it_waits(bench: Workbench):
    def heartbeat_times() -> list[Any]:
        return [row["beat_at"] for row in bench.sql("select beat_at from run_heartbeats where run_id = 'waiting'")]

    with heartbeats(bench.database_url, "waiting", every_seconds=0.02):
        wait_until(heartbeat_times, what="a heartbeat")
        first = heartbeat_times()
        wait_until(lambda: heartbeat_times() != first, what="a second heartbeat")
    last = heartbeat_times()
    with heartbeats(bench.database_url, "another", every_seconds=0.02):
        wait_until(
            lambda: bench.sql("select run_id from run_heartbeats where run_id = 'another'"),
            what="another run's heartbeat",
        )
    assert heartbeat_times() == last


@pytest.mark.parametrize("sqlstate", ["25006", "57P01", "42501"])
def test_a_heartbeat_that_the_database_refuses_is_repeated(bench: Workbench, sqlstate: str):
    def heartbeat_times() -> list[Any]:
        return bench.sql("select beat_at from run_heartbeats where run_id = 'waiting'")

    bench.sql(
        "create function refuse() returns trigger language plpgsql as $$ begin perform nextval('refused');"
        f" raise exception 'no' using errcode = '{sqlstate}'; end $$"
    )
    bench.sql("create sequence refused")
    bench.sql("create trigger refuse before insert on run_heartbeats for each row execute function refuse()")
    with heartbeats(bench.database_url, "waiting", every_seconds=0.02):
        wait_until(lambda: bench.sql("select 1 from refused where is_called"), what="a refused heartbeat")
        assert heartbeat_times() == []
        bench.sql("drop function refuse cascade")
        wait_until(heartbeat_times, what="the next heartbeat")


@pytest.mark.parametrize(("silence", "lives"), [(35, True), (50, False)])
def test_the_limit_of_silence_is_little_more_than_the_longest_wait_between_two_tries(
    stage: Stage, silence: int, lives: bool
):
    songs = isrcs(2)
    stage.bench.submit_request(songs)
    stage.register(songs)
    job = stage.definitions.resolve_job_def("songstats_backfill")
    covering = {tags.RANGE_START: songs[0], tags.RANGE_END: songs[1], tags.PLAN: "plan-1"}
    run = stage.instance.create_run_for_job(job, tags=covering)
    stage.instance.handle_new_event(started_event(run.run_id, seconds_ago=60))
    stage.bench.sql("insert into run_heartbeats values (%s, now() - make_interval(secs => %s))", run.run_id, silence)
    stage.tick("backfill_queue_sensor")
    result = stage.instance.get_run_by_id(run.run_id)
    assert result is not None
    assert (result.status is dg.DagsterRunStatus.STARTED) is lives
