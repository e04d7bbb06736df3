"""How long a run may be silent, and what keeps it from being so while it waits."""

from typing import Any

import dagster as dg
import pytest

from measurement_pipeline.defs import tags
from measurement_pipeline.defs.heartbeat import heartbeats
from measurement_pipeline_tests.defs.conftest import Stage
from measurement_pipeline_tests.defs.test_sensors import started_event
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.workbench import Workbench, isrcs


def test_a_run_beats_for_as_long_as_it_waits_and_no_longer(bench: Workbench):
    def beats() -> list[Any]:
        return [row["beat_at"] for row in bench.sql("select beat_at from run_heartbeats where run_id = 'waiting'")]

    with heartbeats(bench.database_url, "waiting", every_seconds=0.02):
        wait_until(beats, what="a beat")
        first = beats()
        wait_until(lambda: beats() != first, what="a second beat")
    last = beats()
    with heartbeats(bench.database_url, "another", every_seconds=0.02):
        wait_until(
            lambda: bench.sql("select run_id from run_heartbeats where run_id = 'another'"), what="another's beat"
        )
    assert beats() == last


@pytest.mark.parametrize("sqlstate", ["25006", "57P01", "42501"])
def test_a_beat_that_the_database_refuses_is_not_the_last_one(bench: Workbench, sqlstate: str):
    def beats() -> list[Any]:
        return bench.sql("select beat_at from run_heartbeats where run_id = 'waiting'")

    bench.sql(
        "create function refuse() returns trigger language plpgsql as $$ begin perform nextval('refused');"
        f" raise exception 'no' using errcode = '{sqlstate}'; end $$"
    )
    bench.sql("create sequence refused")
    bench.sql("create trigger refuse before insert on run_heartbeats for each row execute function refuse()")
    with heartbeats(bench.database_url, "waiting", every_seconds=0.02):
        wait_until(lambda: bench.sql("select 1 from refused where is_called"), what="a beat that was refused")
        assert beats() == []
        bench.sql("drop function refuse cascade")
        wait_until(beats, what="the next beat")


@pytest.mark.parametrize(("silence", "lives"), [(35, True), (50, False)])
def test_a_run_may_be_silent_for_its_longest_wait_between_two_tries_and_not_for_much_longer(
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
