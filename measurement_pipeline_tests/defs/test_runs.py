"""What a run of the real jobs does to the queue and shows in Dagster, for a planned run and for an operator's."""

import json

import dagster as dg

from measurement_pipeline.defs import tags
from measurement_pipeline.defs.materializations import SONGSTATS_HISTORY
from measurement_pipeline_tests.workbench import isrcs
from measurement_pipeline_tests.backfill.test_money_path import HISTORY
from measurement_pipeline_tests.defs.conftest import Stage


def test_a_planned_run_materializes_each_recording_with_what_it_came_to(stage: Stage):
    songs = isrcs(3)
    job = stage.bench.ask_for(songs)
    stage.register(songs)
    stage.bench.sandbox.faults(HISTORY, status=404, isrc=songs[2])
    result = stage.backfill(songs)
    assert result.success
    told = stage.told()
    assert {song: told[song]["outcome"] for song in songs} == {songs[0]: "stored", songs[1]: "stored", songs[2]: "no_history"}
    shown = told[songs[0]]
    assert shown["points"] > 0
    assert shown["hit"] is True
    assert shown["cost_eur"] == 0.0833
    assert shown["measurement_job"] == str(job)
    assert len(shown["response_sha256"]) == 64
    assert shown["first_date"] < shown["last_date"]
    run = stage.instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags[f"measurement_job/{job}"] == "asked"
    assert run.tags[f"account/{stage.bench.account}"] == "pays"
