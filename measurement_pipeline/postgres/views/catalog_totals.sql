-- A catalogue in one row, which says what it leaves out. What adds up to more than a bigint holds is no total: null, so that one
-- absurd figure of one catalogue keeps nobody from the others.
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
    case when abs(added.a_year_28) <= added.most then added.a_year_28::bigint end as plays_a_year_28_days,
    added.recordings_28 as recordings_28_days,
    case when abs(added.plays_90) <= added.most then added.plays_90::bigint end as plays_90_days,
    case when abs(added.a_year_90) <= added.most then added.a_year_90::bigint end as plays_a_year_90_days,
    added.recordings_90 as recordings_90_days,
    case when abs(added.plays_365) <= added.most then added.plays_365::bigint end as plays_365_days,
    case when abs(added.a_year_365) <= added.most then added.a_year_365::bigint end as plays_a_year_365_days,
    added.recordings_365 as recordings_365_days,
    added.recordings_ended,
    added.account
from (
    select
        counted.catalog,
        counted.catalog_name,
        counted.platform,
        counted.account,
        9223372036854775807 as most,
        count(*)::int as recordings,
        count(*) filter (where counted.is_measured)::int as recordings_measured,
        coalesce(sum(counted.play_count) filter (where counted.is_measured), 0) as play_count,
        coalesce(sum(counted.play_count) filter (where not counted.is_measured), 0) as imported_play_count,
        min(counted.day) filter (where counted.is_measured) as oldest_day,
        max(counted.day) filter (where counted.is_measured) as newest_day,
        round(sum(rates.plays_28)) as plays_28,
        sum(rates.a_year_28) as a_year_28,
        count(rates.plays_28)::int as recordings_28,
        round(sum(rates.plays_90)) as plays_90,
        sum(rates.a_year_90) as a_year_90,
        count(rates.plays_90)::int as recordings_90,
        round(sum(rates.plays_365)) as plays_365,
        sum(rates.a_year_365) as a_year_365,
        count(rates.plays_365)::int as recordings_365,
        (count(*) filter (where counted.is_measured and counted.day < (clock_timestamp() at time zone 'UTC')::date - 35))::int
            as recordings_ended
    from analytics.catalog_play_counts as counted
    left join lateral (
        -- Two figures are up to a week further apart than the window: what was played between them is scaled to it.
        select
            max(rate.plays * 28.0 / rate.days_covered) filter (where rate.window_days = 28) as plays_28,
            max(rate.plays_a_year) filter (where rate.window_days = 28) as a_year_28,
            max(rate.plays * 90.0 / rate.days_covered) filter (where rate.window_days = 90) as plays_90,
            max(rate.plays_a_year) filter (where rate.window_days = 90) as a_year_90,
            max(rate.plays * 365.0 / rate.days_covered) filter (where rate.window_days = 365) as plays_365,
            max(rate.plays_a_year) filter (where rate.window_days = 365) as a_year_365
        from analytics.run_rates as rate
        where rate.song = counted.song and rate.plays is not null
    ) as rates on true
    group by counted.catalog, counted.catalog_name, counted.platform, counted.account
) as added;
comment on view analytics.catalog_totals is 'One row a catalogue and platform: what its measured recordings add up to, and how many it leaves out.';
comment on column analytics.catalog_totals.catalog is 'The catalogue. | unit: id | source: catalogs.id';
comment on column analytics.catalog_totals.catalog_name is 'Its name, unique within its account. | unit: text | source: catalogs.name';
comment on column analytics.catalog_totals.platform is 'Whose counts they are. | unit: name | source: song_measurements.platform';
comment on column analytics.catalog_totals.recordings is 'Recordings that it holds. | unit: recordings | source: catalog_songs';
comment on column analytics.catalog_totals.recordings_measured is 'Those with a figure that was measured. | unit: recordings | source: catalog_play_counts.is_measured';
comment on column analytics.catalog_totals.recordings_not_measured is 'Those without: the totals leave them out. | unit: recordings | source: catalog_play_counts.is_measured';
comment on column analytics.catalog_totals.play_count is 'All plays since release of those measured; null where they add up to more than 2^63 − 1, which is an absurd figure somewhere. | unit: plays | source: catalog_play_counts.play_count';
comment on column analytics.catalog_totals.imported_play_count is 'What a catalogue file said of those not measured; in no other figure. | unit: plays | source: catalog_play_counts.play_count';
comment on column analytics.catalog_totals.oldest_day is 'The oldest of the newest figures: how stale the total may be. | unit: UTC date | source: catalog_play_counts.day';
comment on column analytics.catalog_totals.newest_day is 'The newest of them. | unit: UTC date | source: catalog_play_counts.day';
comment on column analytics.catalog_totals.plays_28_days is 'Plays of each recording''s last 28 days, of those that cover them, scaled to 28 days; null where none does. | unit: plays | source: run_rates.plays, run_rates.days_covered';
comment on column analytics.catalog_totals.plays_a_year_28_days is 'Their rates a year, added up; null where none covers the window. | unit: plays a year | source: run_rates.plays_a_year';
comment on column analytics.catalog_totals.recordings_28_days is 'How many do. | unit: recordings | source: run_rates.plays';
comment on column analytics.catalog_totals.plays_90_days is 'Plays of each recording''s last 90 days, of those that cover them, scaled to 90 days; null where none does. | unit: plays | source: run_rates.plays, run_rates.days_covered';
comment on column analytics.catalog_totals.plays_a_year_90_days is 'Their rates a year, added up; null where none covers the window. | unit: plays a year | source: run_rates.plays_a_year';
comment on column analytics.catalog_totals.recordings_90_days is 'How many do. | unit: recordings | source: run_rates.plays';
comment on column analytics.catalog_totals.plays_365_days is 'Plays of each recording''s last 365 days, of those that cover them, scaled to 365 days; null where none does. | unit: plays | source: run_rates.plays, run_rates.days_covered';
comment on column analytics.catalog_totals.plays_a_year_365_days is 'Their rates a year, added up; null where none covers the window. | unit: plays a year | source: run_rates.plays_a_year';
comment on column analytics.catalog_totals.recordings_365_days is 'How many do. | unit: recordings | source: run_rates.plays';
comment on column analytics.catalog_totals.recordings_ended is 'Those measured whose last figure is more than 35 days old: their windows end then, and not now. | unit: recordings | source: catalog_play_counts.day';
comment on column analytics.catalog_totals.account is 'Whose catalogue it is. | unit: id | source: catalogs.account';
