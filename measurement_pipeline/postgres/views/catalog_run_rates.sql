-- A catalogue's recordings with their windows side by side, and its cohort: the recordings whose figures may be added up and compared
-- from window to window. A catalogue at a time, since one recording alone does not decide which cohort there is.
create or replace view analytics.catalog_run_rates as
select
    catalog.id as catalog,
    catalog.name as catalog_name,
    listed.song,
    listed.platform,
    listed.title,
    listed.artist,
    listed.play_count,
    listed.day,
    listed.is_measured,
    listed.is_current,
    listed.plays_28_days,
    listed.plays_90_days,
    listed.plays_365_days,
    listed.windows,
    listed.is_interpolated,
    listed.is_source_changed,
    listed.is_in_cohort,
    listed.why_not_in_cohort,
    listed.cohort_windows,
    catalog.account
from catalogs as catalog
cross join lateral (
    with rated as materialized (
        select
            counted.song,
            counted.platform,
            counted.title,
            counted.artist,
            counted.play_count,
            counted.day,
            counted.is_measured,
            rates.plays_28_days,
            rates.plays_90_days,
            rates.plays_365_days,
            coalesce(rates.windows, '{}') as windows,
            coalesce(rates.is_interpolated, false) as is_interpolated,
            coalesce(rates.is_source_changed, false) as is_source_changed
        from analytics.catalog_play_counts as counted
        left join lateral (
            select
                max(rate.plays) filter (where rate.window_days = 28) as plays_28_days,
                max(rate.plays) filter (where rate.window_days = 90) as plays_90_days,
                max(rate.plays) filter (where rate.window_days = 365) as plays_365_days,
                array_agg(rate.window_days order by rate.window_days desc) as windows,
                bool_or(rate.is_interpolated) as is_interpolated,
                bool_or(rate.is_source_changed) as is_source_changed
            from analytics.run_rates as rate
            where rate.song = counted.song and rate.plays is not null
        ) as rates on true
        where counted.catalog = catalog.id
    ),

    -- A figure of a day to come is an error of a clock or a vendor: it must not make all others look old.
    newest as (
        select
            max(rated.day) filter (where rated.day <= today.day) as day,
            today.day as today
        from (select (clock_timestamp() at time zone 'UTC')::date as day) as today
        left join rated on rated.is_measured
        group by today.day
    ),

    -- A figure that is much older than the others ends another period than theirs.
    aged as (
        select
            rated.*,
            coalesce(rated.day > newest.today, false) as is_to_come,
            coalesce(rated.is_measured and rated.day between newest.day - 35 and newest.today, false) as is_current
        from rated
        cross join newest
    ),

    -- All three windows where one current recording covers them; otherwise the most that one covers, the longer ones first.
    chosen as (
        select aged.windows
        from aged
        where aged.is_current and aged.windows <> '{}'
        order by cardinality(aged.windows) desc, aged.windows desc
        limit 1
    )

    select
        aged.*,
        chosen.windows as cohort_windows,
        judged.is_in_cohort,
        case
            when judged.is_in_cohort then null
            when not aged.is_measured then 'not measured'
            when aged.is_to_come then format('the last figure, of %s, is of a day to come', aged.day)
            when not aged.is_current then format('the last figure, of %s, is more than 35 days older than the newest', aged.day)
            else format('does not cover %s days', array_to_string(array(
                select missing.days
                from unnest(coalesce(chosen.windows, '{28, 90, 365}')) as missing (days)
                where missing.days <> all(aged.windows)
                order by missing.days
            ), ', '))
        end as why_not_in_cohort
    from aged
    left join chosen on true
    cross join lateral (
        select coalesce(aged.is_current and aged.windows @> chosen.windows, false) as is_in_cohort
    ) as judged
) as listed;
comment on view analytics.catalog_run_rates is 'One row for each catalogue, recording and platform: the plays of its windows side by side, and whether it is in the cohort, the fixed set of recordings whose sums may be compared from window to window.';
comment on column analytics.catalog_run_rates.catalog is 'The catalogue. | unit: id | source: catalogs.id';
comment on column analytics.catalog_run_rates.catalog_name is 'Its name, unique within its account. | unit: text | source: catalogs.name';
comment on column analytics.catalog_run_rates.song is 'The recording. | unit: ISRC | source: catalog_songs.song';
comment on column analytics.catalog_run_rates.platform is 'The platform that counted the plays. | unit: name | source: song_measurements.platform';
comment on column analytics.catalog_run_rates.title is 'Its title; null if only its ISRC is known. | unit: text | source: songs.name';
comment on column analytics.catalog_run_rates.artist is 'Its artist, as displayed. | unit: text | source: songs.artist';
comment on column analytics.catalog_run_rates.play_count is 'All plays since release; null where no figure is known. | unit: plays | source: catalog_play_counts.play_count';
comment on column analytics.catalog_run_rates.day is 'The day of its last figure: its windows end then. | unit: UTC date | source: catalog_play_counts.day';
comment on column analytics.catalog_run_rates.is_measured is 'It has a figure that was measured. | unit: yes or no | source: catalog_play_counts.is_measured';
comment on column analytics.catalog_run_rates.is_current is 'It was measured, and its last figure is at most 35 days older than the catalogue''s newest. | unit: yes or no | source: day';
comment on column analytics.catalog_run_rates.plays_28_days is 'Plays of its last 28 days; null where it does not cover them. | unit: plays | source: run_rates.plays';
comment on column analytics.catalog_run_rates.plays_90_days is 'Plays of its last 90 days; null where it does not cover them. | unit: plays | source: run_rates.plays';
comment on column analytics.catalog_run_rates.plays_365_days is 'Plays of its last 365 days; null where it does not cover them. | unit: plays | source: run_rates.plays';
comment on column analytics.catalog_run_rates.windows is 'The windows that it covers, the longest first; run_rates.why_none says why it lacks another. | unit: days | source: run_rates.window_days';
comment on column analytics.catalog_run_rates.is_interpolated is 'In one of its windows the count of the first day is interpolated. | unit: yes or no | source: run_rates.is_interpolated';
comment on column analytics.catalog_run_rates.is_source_changed is 'One of its windows compares figures of two sources. | unit: yes or no | source: run_rates.is_source_changed';
comment on column analytics.catalog_run_rates.is_in_cohort is 'It is current, and covers every window of cohort_windows. | unit: yes or no | source: windows, is_current';
comment on column analytics.catalog_run_rates.why_not_in_cohort is 'Why it is not in the cohort; null where it is. | unit: text | source: this view';
comment on column analytics.catalog_run_rates.cohort_windows is 'The windows that the catalogue''s cohort covers: 365, 90 and 28 where one current recording covers all three, otherwise the most that one covers, the longer ones first; null where none covers any. | unit: days | source: run_rates.window_days';
comment on column analytics.catalog_run_rates.account is 'The account that owns the catalogue. | unit: id | source: catalogs.account';
