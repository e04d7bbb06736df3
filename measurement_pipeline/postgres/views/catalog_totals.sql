-- A catalogue in one row, which says what it leaves out.
create or replace view analytics.catalog_totals as
select
    counted.catalog,
    counted.catalog_name,
    counted.platform,
    count(*)::int as recordings,
    count(*) filter (where counted.is_measured)::int as recordings_measured,
    count(*) filter (where not counted.is_measured)::int as recordings_not_measured,
    coalesce(sum(counted.play_count) filter (where counted.is_measured), 0)::bigint as play_count,
    coalesce(sum(counted.play_count) filter (where not counted.is_measured), 0)::bigint as imported_play_count,
    min(counted.day) filter (where counted.is_measured) as oldest_day,
    max(counted.day) filter (where counted.is_measured) as newest_day,
    coalesce(sum(rates.plays_28), 0)::bigint as plays_28_days,
    coalesce(sum(rates.a_year_28), 0)::bigint as plays_a_year_28_days,
    count(rates.plays_28)::int as recordings_28_days,
    coalesce(sum(rates.plays_90), 0)::bigint as plays_90_days,
    coalesce(sum(rates.a_year_90), 0)::bigint as plays_a_year_90_days,
    count(rates.plays_90)::int as recordings_90_days,
    coalesce(sum(rates.plays_365), 0)::bigint as plays_365_days,
    coalesce(sum(rates.a_year_365), 0)::bigint as plays_a_year_365_days,
    count(rates.plays_365)::int as recordings_365_days
from analytics.catalog_play_counts as counted
left join lateral (
    select
        max(rate.plays) filter (where rate.window_days = 28) as plays_28,
        max(rate.plays_a_year) filter (where rate.window_days = 28) as a_year_28,
        max(rate.plays) filter (where rate.window_days = 90) as plays_90,
        max(rate.plays_a_year) filter (where rate.window_days = 90) as a_year_90,
        max(rate.plays) filter (where rate.window_days = 365) as plays_365,
        max(rate.plays_a_year) filter (where rate.window_days = 365) as a_year_365
    from analytics.run_rates as rate
    where rate.song = counted.song
) as rates on true
group by counted.catalog, counted.catalog_name, counted.platform;
comment on view analytics.catalog_totals is 'One row a catalogue and platform: what its measured recordings add up to, and how many it leaves out.';
comment on column analytics.catalog_totals.catalog is 'The catalogue. | unit: id | source: catalogs.id';
comment on column analytics.catalog_totals.catalog_name is 'Its name, unique within its account. | unit: text | source: catalogs.name';
comment on column analytics.catalog_totals.platform is 'Whose counts they are. | unit: name | source: song_measurements.platform';
comment on column analytics.catalog_totals.recordings is 'Recordings that it holds. | unit: recordings | source: catalog_songs';
comment on column analytics.catalog_totals.recordings_measured is 'Those with a figure that was measured. | unit: recordings | source: catalog_play_counts.is_measured';
comment on column analytics.catalog_totals.recordings_not_measured is 'Those without: the totals leave them out. | unit: recordings | source: catalog_play_counts.is_measured';
comment on column analytics.catalog_totals.play_count is 'All plays since release of those measured. | unit: plays | source: catalog_play_counts.play_count';
comment on column analytics.catalog_totals.imported_play_count is 'What a catalogue file said of those not measured; in no other figure. | unit: plays | source: catalog_play_counts.play_count';
comment on column analytics.catalog_totals.oldest_day is 'The oldest of the newest figures: how stale the total may be. | unit: UTC date | source: catalog_play_counts.day';
comment on column analytics.catalog_totals.newest_day is 'The newest of them. | unit: UTC date | source: catalog_play_counts.day';
comment on column analytics.catalog_totals.plays_28_days is 'Plays of each recording''s last 28 days, of those that cover them. | unit: plays | source: run_rates.plays';
comment on column analytics.catalog_totals.plays_a_year_28_days is 'Their rates a year, added up. | unit: plays a year | source: run_rates.plays_a_year';
comment on column analytics.catalog_totals.recordings_28_days is 'How many do. | unit: recordings | source: run_rates.plays';
comment on column analytics.catalog_totals.plays_90_days is 'Plays of each recording''s last 90 days, of those that cover them. | unit: plays | source: run_rates.plays';
comment on column analytics.catalog_totals.plays_a_year_90_days is 'Their rates a year, added up. | unit: plays a year | source: run_rates.plays_a_year';
comment on column analytics.catalog_totals.recordings_90_days is 'How many do. | unit: recordings | source: run_rates.plays';
comment on column analytics.catalog_totals.plays_365_days is 'Plays of each recording''s last 365 days, of those that cover them. | unit: plays | source: run_rates.plays';
comment on column analytics.catalog_totals.plays_a_year_365_days is 'Their rates a year, added up. | unit: plays a year | source: run_rates.plays_a_year';
comment on column analytics.catalog_totals.recordings_365_days is 'How many do. | unit: recordings | source: run_rates.plays';
