-- A catalogue in one row, which says what it leaves out. What adds up to more than a bigint holds is no total: null, so that one
-- wrong figure of one catalogue does not break the others.
create or replace view analytics.catalog_totals as
select
    added.catalog,
    added.catalog_name,
    added.platform,
    added.recordings,
    added.recordings_measured,
    added.recordings - added.recordings_measured as recordings_not_measured,
    case when added.play_count <= added.most then added.play_count::bigint end as play_count,
    case when added.imported_play_count <= added.most then added.imported_play_count::bigint end as imported_play_count,
    added.oldest_day,
    added.newest_day,
    case when abs(added.plays_28) <= added.most then added.plays_28::bigint end as plays_28_days,
    case when abs(added.plays_28 * 365.0 / 28) <= added.most then round(added.plays_28 * 365.0 / 28)::bigint end as plays_a_year_28_days,
    added.recordings_28 as recordings_28_days,
    case when abs(added.plays_90) <= added.most then added.plays_90::bigint end as plays_90_days,
    case when abs(added.plays_90 * 365.0 / 90) <= added.most then round(added.plays_90 * 365.0 / 90)::bigint end as plays_a_year_90_days,
    added.recordings_90 as recordings_90_days,
    case when abs(added.plays_365) <= added.most then added.plays_365::bigint end as plays_365_days,
    case when abs(added.plays_365) <= added.most then added.plays_365::bigint end as plays_a_year_365_days,
    added.recordings_365 as recordings_365_days,
    added.recordings_ended,
    added.account,
    added.cohort_windows,
    added.cohort_recordings,
    case when added.cohort_play_count <= added.most then added.cohort_play_count::bigint end as cohort_play_count,
    added.cohort_oldest_day,
    case when abs(added.cohort_28) <= added.most then added.cohort_28::bigint end as cohort_plays_28_days,
    case when abs(added.cohort_28 * 365.0 / 28) <= added.most then round(added.cohort_28 * 365.0 / 28)::bigint end
        as cohort_plays_a_year_28_days,
    case when abs(added.cohort_90) <= added.most then added.cohort_90::bigint end as cohort_plays_90_days,
    case when abs(added.cohort_90 * 365.0 / 90) <= added.most then round(added.cohort_90 * 365.0 / 90)::bigint end
        as cohort_plays_a_year_90_days,
    case when abs(added.cohort_365) <= added.most then added.cohort_365::bigint end as cohort_plays_365_days,
    case when abs(added.cohort_365) <= added.most then added.cohort_365::bigint end as cohort_plays_a_year_365_days,
    added.cohort_interpolated,
    added.cohort_source_changed,
    added.recordings_not_current
from (
    select
        counted.catalog,
        counted.catalog_name,
        counted.platform,
        counted.account,
        counted.cohort_windows,
        9223372036854775807 as most,
        count(*)::int as recordings,
        count(*) filter (where counted.is_measured)::int as recordings_measured,
        coalesce(sum(counted.play_count) filter (where counted.is_measured), 0) as play_count,
        coalesce(sum(counted.play_count) filter (where not counted.is_measured), 0) as imported_play_count,
        min(counted.day) filter (where counted.is_measured) as oldest_day,
        max(counted.day) filter (where counted.is_measured) as newest_day,
        sum(counted.plays_28_days) as plays_28,
        count(counted.plays_28_days)::int as recordings_28,
        sum(counted.plays_90_days) as plays_90,
        count(counted.plays_90_days)::int as recordings_90,
        sum(counted.plays_365_days) as plays_365,
        count(counted.plays_365_days)::int as recordings_365,
        (count(*) filter (where counted.is_measured and counted.day < (clock_timestamp() at time zone 'UTC')::date - 35))::int
            as recordings_ended,
        count(*) filter (where counted.is_in_cohort)::int as cohort_recordings,
        sum(counted.play_count) filter (where counted.is_in_cohort) as cohort_play_count,
        min(counted.day) filter (where counted.is_in_cohort) as cohort_oldest_day,
        sum(counted.plays_28_days) filter (where counted.is_in_cohort and 28 = any(counted.cohort_windows)) as cohort_28,
        sum(counted.plays_90_days) filter (where counted.is_in_cohort and 90 = any(counted.cohort_windows)) as cohort_90,
        sum(counted.plays_365_days) filter (where counted.is_in_cohort and 365 = any(counted.cohort_windows)) as cohort_365,
        count(*) filter (where counted.is_in_cohort and counted.is_interpolated)::int as cohort_interpolated,
        count(*) filter (where counted.is_in_cohort and counted.is_source_changed)::int as cohort_source_changed,
        count(*) filter (where counted.is_measured and not counted.is_current)::int as recordings_not_current
    from analytics.catalog_run_rates as counted
    group by counted.catalog, counted.catalog_name, counted.platform, counted.account, counted.cohort_windows
) as added;
comment on view analytics.catalog_totals is 'One row for each catalogue and platform: the totals of its measured recordings, how many are not measured, and its cohort, the fixed set of recordings whose windows may be compared.';
comment on column analytics.catalog_totals.catalog is 'The catalogue. | unit: id | source: catalogs.id';
comment on column analytics.catalog_totals.catalog_name is 'Its name, unique within its account. | unit: text | source: catalogs.name';
comment on column analytics.catalog_totals.platform is 'The platform that counted the plays. | unit: name | source: song_measurements.platform';
comment on column analytics.catalog_totals.recordings is 'Recordings in the catalogue. | unit: recordings | source: catalog_songs';
comment on column analytics.catalog_totals.recordings_measured is 'Recordings with a measured figure. | unit: recordings | source: catalog_run_rates.is_measured';
comment on column analytics.catalog_totals.recordings_not_measured is 'Recordings without a measured figure. The totals do not include them. | unit: recordings | source: catalog_run_rates.is_measured';
comment on column analytics.catalog_totals.play_count is 'All plays since release of those measured; null where they add up to more than 2^63 − 1, which means that at least one count is wrong. | unit: plays | source: catalog_run_rates.play_count';
comment on column analytics.catalog_totals.imported_play_count is 'Imported counts of the recordings that are not measured. No other column includes them. | unit: plays | source: catalog_run_rates.play_count';
comment on column analytics.catalog_totals.oldest_day is 'The oldest day among the last figures of its recordings: how stale the total may be. | unit: UTC date | source: catalog_run_rates.day';
comment on column analytics.catalog_totals.newest_day is 'The newest day among them. | unit: UTC date | source: catalog_run_rates.day';
comment on column analytics.catalog_totals.plays_28_days is 'Plays of the last 28 days, of the recordings_28_days recordings that cover them: other recordings than those of another window, so do not compare the two. Null where none covers them. | unit: plays | source: catalog_run_rates.plays_28_days';
comment on column analytics.catalog_totals.plays_a_year_28_days is 'plays_28_days × 365 ÷ 28, of recordings_28_days recordings: not comparable with another window. | unit: plays a year | source: catalog_run_rates.plays_28_days';
comment on column analytics.catalog_totals.recordings_28_days is 'Recordings that cover the last 28 days. | unit: recordings | source: catalog_run_rates.plays_28_days';
comment on column analytics.catalog_totals.plays_90_days is 'Plays of the last 90 days, of the recordings_90_days recordings that cover them: other recordings than those of another window, so do not compare the two. Null where none covers them. | unit: plays | source: catalog_run_rates.plays_90_days';
comment on column analytics.catalog_totals.plays_a_year_90_days is 'plays_90_days × 365 ÷ 90, of recordings_90_days recordings: not comparable with another window. | unit: plays a year | source: catalog_run_rates.plays_90_days';
comment on column analytics.catalog_totals.recordings_90_days is 'Recordings that cover the last 90 days. | unit: recordings | source: catalog_run_rates.plays_90_days';
comment on column analytics.catalog_totals.plays_365_days is 'Plays of the last 365 days, of the recordings_365_days recordings that cover them: other recordings than those of another window, so do not compare the two. Null where none covers them. | unit: plays | source: catalog_run_rates.plays_365_days';
comment on column analytics.catalog_totals.plays_a_year_365_days is 'Equals plays_365_days, of recordings_365_days recordings: not comparable with another window. | unit: plays a year | source: catalog_run_rates.plays_365_days';
comment on column analytics.catalog_totals.recordings_365_days is 'Recordings that cover the last 365 days. | unit: recordings | source: catalog_run_rates.plays_365_days';
comment on column analytics.catalog_totals.recordings_ended is 'Measured recordings with a last figure more than 35 days old. Their windows end on that day. | unit: recordings | source: catalog_run_rates.day';
comment on column analytics.catalog_totals.account is 'The account that owns the catalogue. | unit: id | source: catalogs.account';
comment on column analytics.catalog_totals.cohort_windows is 'The windows that each recording of the cohort covers: 365, 90 and 28 where one current recording covers all three, otherwise the most that one covers, the longer ones first. Null: no cohort, since none covers any. | unit: days | source: catalog_run_rates.cohort_windows';
comment on column analytics.catalog_totals.cohort_recordings is 'Recordings of the cohort: those that cover each of cohort_windows, and whose last figure is at most 35 days older than newest_day. The same ones in every cohort_ column. | unit: recordings | source: catalog_run_rates.is_in_cohort';
comment on column analytics.catalog_totals.cohort_play_count is 'All plays since release of the cohort. | unit: plays | source: catalog_run_rates.play_count';
comment on column analytics.catalog_totals.cohort_oldest_day is 'The oldest last figure of the cohort: its windows end between this day and newest_day. | unit: UTC date | source: catalog_run_rates.day';
comment on column analytics.catalog_totals.cohort_plays_28_days is 'Plays of the cohort''s last 28 days; comparable with its other windows. Null where the cohort does not cover them. | unit: plays | source: catalog_run_rates.plays_28_days';
comment on column analytics.catalog_totals.cohort_plays_a_year_28_days is 'cohort_plays_28_days × 365 ÷ 28. | unit: plays a year | source: catalog_run_rates.plays_28_days';
comment on column analytics.catalog_totals.cohort_plays_90_days is 'Plays of the cohort''s last 90 days; comparable with its other windows. Null where the cohort does not cover them. | unit: plays | source: catalog_run_rates.plays_90_days';
comment on column analytics.catalog_totals.cohort_plays_a_year_90_days is 'cohort_plays_90_days × 365 ÷ 90. | unit: plays a year | source: catalog_run_rates.plays_90_days';
comment on column analytics.catalog_totals.cohort_plays_365_days is 'Plays of the cohort''s last 365 days; comparable with its other windows. Null where the cohort does not cover them. | unit: plays | source: catalog_run_rates.plays_365_days';
comment on column analytics.catalog_totals.cohort_plays_a_year_365_days is 'Equals cohort_plays_365_days. | unit: plays a year | source: catalog_run_rates.plays_365_days';
comment on column analytics.catalog_totals.cohort_interpolated is 'Recordings of the cohort of which the first day of a window is interpolated: see run_rates. | unit: recordings | source: catalog_run_rates.is_interpolated';
comment on column analytics.catalog_totals.cohort_source_changed is 'Recordings of the cohort of which a window compares figures of two sources, which may count differently. | unit: recordings | source: catalog_run_rates.is_source_changed';
comment on column analytics.catalog_totals.recordings_not_current is 'Measured recordings whose last figure is more than 35 days older than newest_day: not in the cohort, but in every other sum. | unit: recordings | source: catalog_run_rates.is_current';
