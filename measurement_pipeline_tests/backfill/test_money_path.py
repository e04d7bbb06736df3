"""The money path on a real database and doubles: every outcome, and every hit."""

from measurement_pipeline.backfill.report import Kind
from measurement_pipeline_tests.backfill.conftest import Bench, isrcs


def test_a_due_recording_is_bought_once_and_stored(bench: Bench):
    (song,) = songs = isrcs(1)
    job = bench.ask_for(songs)
    coverage, told = bench.cover(songs)
    assert [(r.song, r.kind, r.hit) for r in told] == [(song, Kind.SETTLED, True)]
    assert bench.row(song)["outcome"] == "stored"
    assert bench.sandbox.hits() == 1
    points = bench.sql("select count(*) n from song_measurements where metric = 'platform_displayed_play_count'")[0]["n"]
    assert points == len(told[0].history.play_counts) > 0
    (hit,) = bench.ledger()
    assert (hit["reason"], hit["billable"], hit["job"], hit["account"]) == ("stored", True, job, bench.account)
    assert bench.sql("select state from measurement_jobs")[0]["state"] == "done"
