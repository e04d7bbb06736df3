"""The analysts' assets as Dagster shows them: refreshed once per drain, with rows, columns, checks and charts."""

import re
from base64 import b64decode
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from xml.etree import ElementTree as ET

import dagster as dg
import pytest

from measurement_pipeline.defs.analytics.assets import analytics_assets
from measurement_pipeline.defs.asset_keys import CATALOG_CHARTS, SONGSTATS_HISTORY, view_key
from measurement_pipeline.defs.resources import resource_definitions
from measurement_pipeline.postgres import analytics, partition_keys, views
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.defs.conftest import Stage
from measurement_pipeline_tests.workbench import isrcs

SONGS = isrcs(3)


@pytest.fixture
def drained(stage: Stage) -> Stage:
    """Two of a catalogue's three recordings are bought, and no run is unfinished."""
    stage.bench.submit_request(SONGS[:2])
    stage.bench.run_backfill(SONGS[:2])
    stage.bench.sql("insert into songs (isrc) select unnest(%s::text[]) on conflict do nothing", SONGS)
    stage.bench.sql("insert into accounts (id) values (%s) on conflict do nothing", stage.bench.account)
    stage.bench.sql("insert into catalogs (account, name) values (%s, 'A & <B>')", stage.bench.account)
    stage.bench.sql("insert into catalog_songs select id, unnest(%s::text[]) from catalogs", SONGS)
    return stage


def catalog_of(stage: Stage) -> UUID:
    return UUID(str(stage.bench.sql("select id from catalogs")[0]["id"]))


def refresh(stage: Stage) -> dg.ExecuteInProcessResult:
    job = stage.definitions.resolve_job_def("analytics_refresh")
    return job.execute_in_process(instance=stage.instance, raise_on_error=False)


def materialization_of(result: dg.ExecuteInProcessResult, view: str) -> dg.AssetMaterialization:
    """The materialization of a view by a refresh."""
    materializations = result.asset_materializations_for_node(f"analytics__{view}")
    (materialization,) = [each for each in materializations if each.asset_key == view_key(view)]
    return materialization


def evaluations(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {each.check_name: each for each in result.get_asset_check_evaluations()}


def tick(stage: Stage, cursor: str | None = None) -> tuple[list[dg.RunRequest], str, str | None]:
    """The sensor's run requests, skip message and cursor."""
    sensor = stage.definitions.resolve_sensor_def("analytics_refresh_sensor")
    with dg.build_sensor_context(
        instance=stage.instance, cursor=cursor, resources=resource_definitions(lambda: stage.services)
    ) as context:
        result = sensor.evaluate_tick(context)
    return list(result.run_requests or []), result.skip_message or "", result.cursor


# --- materializations


def test_each_view_is_an_asset_with_row_count_and_columns(drained: Stage):
    result = refresh(drained)
    assert result.success
    for view in views.VIEWS:
        metadata = materialization_of(result, view)
        count = drained.bench.sql(f"select count(*) as n from analytics.{view}")[0]["n"]
        assert metadata.metadata["dagster/row_count"].value == count
        columns = metadata.metadata["dagster/column_schema"].value
        assert isinstance(columns, dg.TableSchema)
        assert all(column.description for column in columns.columns)
        assert len(columns.columns) > 4


def test_column_lineage_leads_from_a_total_to_bought_values(drained: Stage):
    result = refresh(drained)

    def comes_from(view: str, column: str) -> set[tuple[str, str]]:
        materialization = materialization_of(result, view)
        lineage = materialization.metadata["dagster/column_lineage"].value
        assert isinstance(lineage, dg.TableColumnLineage)
        actual = lineage.deps_by_column[column]
        return {(dep.asset_key.to_user_string(), dep.column_name) for dep in actual}

    assert comes_from("catalog_totals", "cohort_plays_28_days") == {("analytics/catalog_run_rates", "plays_28_days")}
    assert comes_from("catalog_totals", "play_count") == {("analytics/catalog_run_rates", "play_count")}
    assert comes_from("catalog_run_rates", "play_count") == {("analytics/catalog_play_counts", "play_count")}
    assert comes_from("catalog_play_counts", "play_count") == {("analytics/latest_play_counts", "play_count")}
    assert comes_from("latest_play_counts", "play_count") == {
        ("songstats_history", "value"),
        ("current_play_counts", "value"),
    }


def test_every_view_is_downstream_of_songstats_history(drained: Stage):
    graph = drained.definitions.get_repository_def().asset_graph
    below = graph.get_all_asset_keys() - {SONGSTATS_HISTORY, view_key("data_dictionary")}
    downstream, result = {SONGSTATS_HISTORY}, set[dg.AssetKey]()
    while downstream:
        downstream = {child for key in downstream for child in graph.get(key).child_keys} - result
        result |= downstream
    assert result == {key for key in below if key.path[0] == "analytics"}


def test_a_view_asset_has_the_version_of_its_sql():
    result = {
        key: version
        for asset in analytics_assets
        for key, version in asset.code_versions_by_key.items()
        if key != CATALOG_CHARTS
    }
    assert result == {view_key(view): views.version(view) for view in views.VIEWS}
    assert len(set(result.values())) == len(views.VIEWS)


def partition_of(stage: Stage, catalog: UUID) -> str:
    """The partition of a catalogue."""
    with connect(stage.bench.database_url) as connection:
        return partition_keys.ensure_for_catalogs(connection, [catalog])[catalog]


def charts(stage: Stage, catalog: UUID) -> dict[str, str]:
    """A catalogue's charts in the UI: SVG by title."""
    record = stage.instance.get_latest_materialization_event(CATALOG_CHARTS)
    assert record is not None
    materialization = record.asset_materialization
    assert materialization is not None
    assert materialization.partition == partition_of(stage, catalog)
    result: dict[str, Any] = {name: value.value for name, value in materialization.metadata.items()}
    return {
        name: b64decode(text.split("base64,")[1].rstrip(")")).decode()
        for name, text in result.items()
        if isinstance(text, str) and text.startswith("![")
    }


def test_a_catalogue_has_charts_of_its_total_coverage_and_top_recordings(drained: Stage):
    assert refresh(drained).success
    paths = charts(drained, catalog_of(drained))
    assert set(paths) == {"Plays since release", "Recordings by status", "Most played recordings"}
    for svg in paths.values():
        assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert len(svg) < 20_000
    assert "never asked for: 1 (33%)" in paths["Recordings by status"]
    (total,) = drained.bench.sql("select cohort_recordings from analytics.catalog_totals")
    assert re.search(
        rf"the same {total['cohort_recordings']} recordings? on every day \(cohort\)", paths["Plays since release"]
    )


def test_figures_side_by_side_are_of_one_named_cohort(drained: Stage):
    assert refresh(drained).success
    record = drained.instance.get_latest_materialization_event(CATALOG_CHARTS)
    assert record is not None
    assert record.asset_materialization is not None
    expected = {name: value.value for name, value in record.asset_materialization.metadata.items()}
    (total,) = drained.bench.sql("select * from analytics.catalog_totals")
    windows = sorted(total["cohort_windows"])
    assert str(expected["cohort"]).startswith(f"{total['cohort_recordings']} recording")
    assert str(expected["cohort"]).endswith(f"{windows[-1]} days")
    assert {name: value for name, value in expected.items() if name.startswith("cohort: ")} == {
        f"cohort: plays a year, by {days} days": total[f"cohort_plays_a_year_{days}_days"] for days in windows
    }


def test_launching_a_catalogues_partition_draws_its_charts(drained: Stage):
    catalog = catalog_of(drained)
    key = partition_of(drained, catalog)
    drained.instance.add_dynamic_partitions("catalog", [key])
    job = drained.definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=drained.instance, asset_selection=[CATALOG_CHARTS], partition_key=key)
    assert result.success
    assert len(charts(drained, catalog)) == 3


def test_catalogue_partitions_are_named_once_by_name_and_account(drained: Stage):
    catalog = catalog_of(drained)
    drained.bench.sql("update accounts set name = 'Studio \"A\"'")
    drained.bench.sql("update catalogs set name = 'Björk [best of, 2]'")
    assert refresh(drained).success
    names = [f"Björk best of 2 Studio A {str(catalog)[:8]}"]
    assert drained.instance.get_dynamic_partitions("catalog") == names
    drained.bench.sql("update catalogs set name = 'another'")
    assert refresh(drained).success
    assert drained.instance.get_dynamic_partitions("catalog") == names


# --- checks


def test_all_checks_pass_after_a_drain(drained: Stage):
    result = evaluations(refresh(drained))
    assert {name for name, each in result.items() if not each.passed} == set()
    assert len(result) == 6


def test_a_future_date_blocks_totals_and_charts(drained: Stage):
    drained.bench.sql(
        "update song_measurements set captured_at = captured_at + interval '9 years' where song = %s and captured_at ="
        " (select max(captured_at) from song_measurements where song = %s)",
        SONGS[0],
        SONGS[0],
    )
    result = refresh(drained)
    assert not result.success
    evaluation = evaluations(result)["no_future_dates"]
    assert not evaluation.passed
    assert f"{SONGS[0]} has a figure for 2" in (evaluation.description or "")
    assert drained.instance.get_latest_materialization_event(view_key("catalog_totals")) is None
    assert drained.instance.get_latest_materialization_event(CATALOG_CHARTS) is None
    (incident,) = drained.bench.sql(
        "select what from incidents where ended_at is null and key like 'check no_future_dates%%'"
    )
    assert "check no_future_dates" in incident["what"]


def fall(stage: Stage) -> None:
    stage.bench.sql(
        "update song_measurements set value = value / 2 where captured_at = (select max(captured_at) from song_measurements)"
        " and song = %s",
        SONGS[0],
    )


def gap(stage: Stage) -> None:
    stage.bench.sql(
        "delete from song_measurements where song = %s and extract(day from captured_at at time zone 'UTC') > 15",
        SONGS[0],
    )


def another_source(stage: Stage) -> None:
    (capture,) = stage.bench.sql(
        "insert into playcount_snapshots (account, album_ids, albums_digest, platforms, schedule, album_count,"
        " estimated_cost_usd, state) values (%s, '{a}', '\\x00', '{spotify}', 'once', 1, 0.003, 'done') returning id",
        stage.bench.account,
    )
    stage.bench.sql(
        "insert into song_measurements (song, platform, metric, captured_at, data_source, value, snapshot)"
        " select song, platform, metric, captured_at + interval '9 hours', 'apify_spotify_playcount', value * 3 + 5000, %s"
        " from song_measurements where song = %s and metric = 'platform_displayed_play_count'"
        " order by captured_at desc limit 1",
        capture["id"],
        SONGS[0],
    )


@pytest.mark.parametrize(
    ("check", "spoil", "words"),
    [
        ("counts_are_monotonic", fall, rf"{SONGS[0]} \(1 ×\)"),
        ("series_have_no_gaps", gap, rf"of 1 are missing: {SONGS[0]} \("),
        ("sources_agree", another_source, rf"{SONGS[0]} on .* displayed"),
    ],
)
def test_suspicious_counts_are_a_warning_with_the_recording(drained: Stage, check: str, spoil: Any, words: str):
    spoil(drained)
    result = refresh(drained)
    assert result.success
    evaluation = evaluations(result)[check]
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert re.search(words, evaluation.description or "")


def test_a_wrong_total_is_an_error(drained: Stage):
    # A view that was changed by hand.
    drained.bench.sql(
        views.text("catalog_totals").replace(
            "sum(counted.play_count) filter (where counted.is_measured)", "sum(counted.play_count + 1)"
        )
    )
    result = evaluations(refresh(drained))["totals_add_up"]
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "A & <B>" in (result.description or "")
    assert drained.instance.get_latest_materialization_event(CATALOG_CHARTS) is None


def test_views_of_another_version_are_an_error(drained: Stage):
    drained.services.database.verified_url()  # as in a process that started before the views changed
    drained.bench.sql("comment on view analytics.data_dictionary is 'Columns. Views of version 000000000000'")
    result = evaluations(refresh(drained))["views_are_current"]
    assert not result.passed
    assert "version 000000000000" in (result.description or "")


# --- refreshes


def test_the_sensor_requests_no_refresh_before_the_first_settled_row(stage: Stage):
    assert tick(stage)[:2] == ([], "nothing was ever settled or captured")


def test_one_refresh_follows_a_finished_drain(drained: Stage):
    (request,), _, cursor = tick(drained)
    again, expected, _ = tick(drained, cursor)
    assert again == []
    assert expected.startswith("nothing was settled or captured since the last refresh, 20")
    # A repeated tick without its cursor requests the same run.
    assert tick(drained)[0][0].run_key == request.run_key


def test_no_refresh_is_requested_between_two_runs_of_a_drain(drained: Stage):
    _, _, cursor = tick(drained)
    drained.bench.submit_request([SONGS[2]])
    drained.bench.sql("update songstats_quota_ledger set settled_at = now()")
    requested, expected, stored = tick(drained, cursor)
    assert requested == []
    assert expected.startswith("the backfill has not ended: 1 recording is due; last refresh: 20")
    assert stored == cursor
    drained.bench.run_backfill([SONGS[2]])
    assert len(tick(drained, cursor)[0]) == 1


def test_a_concurrent_run_does_not_change_the_state_that_a_tick_reads(drained: Stage):
    bench = drained.bench
    with connect(bench.config.database_url) as connection, analytics.single_snapshot(connection):
        before = analytics.read_refresh_state(connection, bench.config.rules, soon_seconds=60)
        bench.submit_request([SONGS[2]])
        bench.run_backfill([SONGS[2]])
        assert (
            replace(analytics.read_refresh_state(connection, bench.config.rules, soon_seconds=60), now=before.now)
            == before
        )
    with connect(bench.config.database_url) as connection:
        assert (
            analytics.read_refresh_state(connection, bench.config.rules, soon_seconds=60).last_change
            != before.last_change
        )


def test_an_interruption_during_a_statement_is_raised_unchanged(drained: Stage):
    def interrupted() -> None:
        with connect(drained.bench.config.database_url) as connection, analytics.single_snapshot(connection):
            connection.pgconn.send_query(b"select pg_sleep(600)")
            raise dg.DagsterExecutionInterruptedError

    with pytest.raises(dg.DagsterExecutionInterruptedError):
        interrupted()


def test_no_refresh_is_requested_while_a_recording_is_being_bought(drained: Stage):
    drained.bench.sql(
        "update songstats_backfill_queue set status = 'in_progress', outcome = null, claimed_by = 'run-9',"
        " heartbeat_at = now() where song = %s",
        SONGS[0],
    )
    assert "1 recording is being bought" in tick(drained)[1]


def spend_the_budget_and_request_more(stage: Stage) -> None:
    stage.bench.submit_request([SONGS[2]])
    stage.bench.sql(
        "insert into songstats_quota_ledger (song, account, run_id, lease, settled_at, billable, reason)"
        " select song, account, 'run-8', 1, now(), true, 'stored' from songstats_quota_ledger, generate_series(1, 900)"
    )


def test_a_spent_budget_ends_a_drain(drained: Stage):
    spend_the_budget_and_request_more(drained)
    assert len(tick(drained)[0]) == 1


@pytest.mark.parametrize(("pause", "runs"), [("1 minute", 0), ("2 hours", 1)])
def test_a_short_pause_is_part_of_a_drain_and_a_long_one_ends_it(drained: Stage, pause: str, runs: int):
    drained.bench.submit_request([SONGS[2]])
    drained.bench.sql("update vendor_state set paused_until = now() + %s::interval, pause_reason = '429'", pause)
    assert len(tick(drained)[0]) == runs


def test_a_response_parsed_later_starts_a_refresh(drained: Stage):
    _, _, cursor = tick(drained)
    drained.bench.sql(
        "update songstats_backfill_queue set status = 'failed', outcome = 'malformed', updated_at = now() where song = %s",
        SONGS[0],
    )
    assert len(tick(drained, cursor)[0]) == 1


def test_a_mapped_capture_starts_a_refresh(drained: Stage):
    _, _, cursor = tick(drained)
    drained.bench.sql(
        "insert into playcount_snapshots (account, album_ids, albums_digest, platforms, schedule, album_count,"
        " estimated_cost_usd, state) values (%s, '{a}', '\\x00', '{spotify}', 'once', 1, 0.003, 'done')",
        drained.bench.account,
    )
    drained.bench.sql(
        "insert into apify_runs (snapshot, chunk, album_ids, cost_usd, run_id, status, mapped_at, kept_at, sha256, body)"
        " select id, 0, '{a}', 0.003, 'run-1', 'SUCCEEDED', now(), now(), 'x', '' from playcount_snapshots"
    )
    assert len(tick(drained, cursor)[0]) == 1


def test_a_recording_claimed_by_a_dead_run_does_not_delay_a_refresh(drained: Stage):
    drained.bench.sql(
        "update songstats_backfill_queue set status = 'in_progress', outcome = null, claimed_by = 'run-9',"
        " heartbeat_at = now() - interval '3 days' where song = %s",
        SONGS[0],
    )
    drained.bench.sql(
        "update vendor_state set breaker = 'open', breaker_kind = 'streak', reason = 'x', opened_at = now()"
    )
    assert len(tick(drained)[0]) == 1


@pytest.mark.parametrize(("wait", "runs"), [("40 seconds", 0), ("3 hours", 1)])
def test_rows_that_are_retried_soon_are_part_of_the_drain(drained: Stage, wait: str, runs: int):
    drained.bench.submit_request([SONGS[2]])
    drained.bench.sql(
        "update songstats_backfill_queue set not_before = now() + %s::interval where song = %s", wait, SONGS[2]
    )
    assert len(tick(drained)[0]) == runs


def test_a_trickling_budget_starts_one_refresh_an_hour(drained: Stage):
    spend_the_budget_and_request_more(drained)
    (_,), _, cursor = tick(drained)
    assert cursor is not None
    drained.bench.sql("update songstats_quota_ledger set settled_at = clock_timestamp() where id = 1")
    requested, expected, _ = tick(drained, cursor)
    assert (requested, expected.startswith("at most one refresh an hour while 1 recording is due. Songstats quota used")) == (
        [], True
    )  # fmt: skip
    assert len(tick(drained, an_hour_earlier(cursor))[0]) == 1


def an_hour_earlier(cursor: str) -> str:
    change, requested = cursor.split(" ", 1)
    return f"{change} {(datetime.fromisoformat(requested) - timedelta(minutes=61)).isoformat()}"


@pytest.mark.parametrize(
    ("status", "runs"),
    [
        (dg.DagsterRunStatus.FAILURE, 1),
        (dg.DagsterRunStatus.CANCELED, 1),
        (dg.DagsterRunStatus.STARTED, 0),
        (dg.DagsterRunStatus.SUCCESS, 0),
        (None, 1),
    ],
)
def test_a_failed_refresh_is_requested_again_an_hour_later(
    drained: Stage, status: dg.DagsterRunStatus | None, runs: int
):
    (request,), _, cursor = tick(drained)
    assert cursor is not None
    if status is not None:
        job = drained.definitions.resolve_job_def("analytics_refresh")
        drained.instance.create_run_for_job(job, status=status, tags=dict(request.tags))
    assert tick(drained, cursor)[0] == []
    again = tick(drained, an_hour_earlier(cursor))[0]
    assert len(again) == runs
    assert all(one.run_key != request.run_key for one in again)


def test_a_due_capture_is_part_of_the_drain_unless_apify_is_paused_for_long(drained: Stage):
    drained.bench.sql(
        "insert into playcount_snapshots (account, album_ids, albums_digest, platforms, schedule, album_count,"
        " estimated_cost_usd) values (%s, '{a}', '\\x00', '{spotify}', 'once', 1, 0.003)",
        drained.bench.account,
    )
    assert "1 capture is due" in tick(drained)[1]
    drained.bench.sql(
        "insert into vendor_state (vendor, paused_until, pause_reason) values ('apify', now() + interval '2 days', 'x')"
    )
    assert len(tick(drained)[0]) == 1
    drained.bench.sql("insert into run_heartbeats (run_id, beat_at) values ('run-9', now())")
    drained.bench.sql("update playcount_snapshots set state = 'running', claimed_by = 'run-9'")
    assert "1 capture is in progress" in tick(drained)[1]
    drained.bench.sql("update run_heartbeats set beat_at = now() - interval '3 days'")
    assert len(tick(drained)[0]) == 1, "a dead run's capture cannot be claimed while Apify is paused"


def test_a_capture_that_waits_for_hours_is_not_part_of_the_drain(drained: Stage):
    drained.bench.sql(
        "insert into playcount_snapshots (account, album_ids, albums_digest, platforms, schedule, album_count,"
        " estimated_cost_usd, not_before) values (%s, '{a}', '\\x00', '{spotify}', 'once', 1, 0.003, now() + interval '3 hours')",
        drained.bench.account,
    )
    assert len(tick(drained)[0]) == 1


def test_an_open_breaker_ends_a_drain_even_with_rows_to_retry(drained: Stage):
    drained.bench.submit_request([SONGS[2]])
    drained.bench.sql(
        "update songstats_backfill_queue set not_before = now() + interval '40 seconds' where song = %s", SONGS[2]
    )
    drained.bench.sql(
        "update vendor_state set breaker = 'open', breaker_kind = 'streak', reason = 'x', opened_at = now()"
    )
    assert len(tick(drained)[0]) == 1
