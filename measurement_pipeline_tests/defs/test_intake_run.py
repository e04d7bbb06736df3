"""An intake run for many requests, as Dagster's event log and run page show it."""

from measurement_pipeline_tests.defs.conftest import Stage


def test_the_results_of_many_requests_are_a_few_complete_events(stage: Stage):
    stage.bench.allow(stage.bench.account)
    requested = stage.bench.sql(
        "insert into measurement_jobs (account, source, scope)"
        " select %s, 'historical', jsonb_build_object('isrcs', jsonb_build_array('AA6Q72' || lpad(n::text, 6, '0')))"
        " from generate_series(1, 250) as n returning id",
        stage.bench.account,
    )
    result = stage.intake()
    assert result.success
    lines = [entry.user_message for entry in stage.instance.all_logs(result.run_id) if not entry.is_dagster_event]
    answers = [line for line in lines if line.startswith("request ")]
    assert len(answers) == 3
    assert all(f"request {row['id']} of account" in "\n".join(answers) for row in requested)
    assert stage.bench.statuses() == {"pending": 250}


def test_the_reclaim_run_reports_reconciled_hits(stage: Stage):
    result = stage.reclaim()
    assert result.success
    (output,) = [event for event in result.all_events if event.is_successful_output]
    metadata = output.step_output_data.metadata
    assert metadata["hits returned to the budget"].value == 0
    assert metadata["hits of unknown outcome"].value == "no hit of unknown outcome in this month or the last one"
