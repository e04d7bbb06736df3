-- Statements of the analysts' benchmark, and the queue rows beside them.

-- name: recordings
insert into songs (isrc)
select 'AA6Q7' || lpad(place::text, 7, '0') as isrc
from generate_series(%(first)s::int, %(last)s::int) as place;

-- name: points
-- Rows arrive in the order in which recordings are bought.
insert into song_measurements (song, platform, metric, captured_at, data_source, value, raw_ref)
select
    'AA6Q7' || lpad(place::text, 7, '0') as song,
    'spotify' as platform,
    'platform_displayed_play_count' as metric,
    '2024-01-01 00:00:00+00'::timestamptz + make_interval(days => day_place) as captured_at,
    'songstats' as data_source,
    1000 + day_place * (10 + mod(place, 200)) + mod(day_place * day_place, 97) as value,
    'songstats_responses/' || place as raw_ref
from generate_series(%(first)s::int, %(last)s::int) as place
cross join generate_series(0, %(days)s::int - 1) as day_place;

-- name: catalogue
with labelled as (
    insert into accounts (name) values ('bench') returning id
)

insert into catalogs (account, name)
select
    labelled.id,
    'bench'
from labelled
returning id;

-- name: list_songs
insert into catalog_songs (catalog, song)
select
    catalog.id,
    recording.isrc
from catalogs as catalog
cross join (select songs.isrc from songs order by songs.isrc limit %(size)s) as recording
on conflict (catalog, song) do nothing;

-- name: tidy
vacuum (analyze) song_measurements, song_latest_counts, songs, catalog_songs, catalogs, accounts;

-- name: latest_ours
select
    song,
    play_count,
    day
from analytics.latest_play_counts;

-- name: latest_bare
select distinct on (song)
    song,
    value,
    captured_at
from song_measurements
where platform = 'spotify' and metric = 'platform_displayed_play_count'
order by song asc, captured_at desc, learnt_at desc;

-- name: series_ours
select
    day,
    play_count,
    plays
from analytics.daily_play_counts
where song = 'AA6Q70000005'
order by day;

-- name: series_bare
select
    believed.captured_at,
    believed.value,
    believed.value - lag(believed.value) over (order by believed.captured_at) as plays
from (
    select distinct on (captured_at)
        captured_at,
        value
    from song_measurements
    where song = 'AA6Q70000005' and platform = 'spotify' and metric = 'platform_displayed_play_count'
    order by captured_at asc, learnt_at desc
) as believed;

-- name: totals_ours
select
    play_count,
    recordings_measured,
    plays_365_days
from analytics.catalog_totals;

-- name: totals_bare
-- The total alone, without run rates and without the number of excluded recordings.
select sum(newest.value) as play_count
from (
    select distinct on (measurement.song)
        measurement.song,
        measurement.value
    from song_measurements as measurement
    inner join catalog_songs as listed on measurement.song = listed.song
    where measurement.platform = 'spotify' and measurement.metric = 'platform_displayed_play_count'
    order by measurement.song asc, measurement.captured_at desc, measurement.learnt_at desc
) as newest;

-- name: rates_ours
select
    song,
    window_days,
    plays,
    plays_a_year
from analytics.run_rates;

-- name: rates_bare
-- The usual query: each day joined with its recording's previous day, over all rows.
select
    dated.song,
    max(dated.value) - min(dated.value) filter (where dated.age = 28) as plays_28,
    max(dated.value) - min(dated.value) filter (where dated.age = 90) as plays_90,
    max(dated.value) - min(dated.value) filter (where dated.age = 365) as plays_365
from (
    select
        song,
        value,
        max(captured_at::date) over (partition by song) - captured_at::date as age
    from song_measurements
    where platform = 'spotify' and metric = 'platform_displayed_play_count'
) as dated
group by dated.song;

-- name: brin
create index bench_captured_at on song_measurements using brin (captured_at);

-- name: one_day
select sum(value) as plays from song_measurements where captured_at = '2026-01-01 00:00:00+00';

-- name: only_brin
set enable_seqscan = off;
set enable_indexscan = off;
set enable_indexonlyscan = off

-- name: any_plan
reset all;

-- name: without_brin
drop index bench_captured_at;

-- name: heavy_series
select
    count(*) as days,
    sum(plays_filled) as plays,
    count(*) filter (where is_negative) as falls
from analytics.daily_play_counts;

-- name: heavy_points
select
    count(*) as points,
    count(superseded_at) as restated
from analytics.play_counts_as_of(now());

-- name: heavy_rates
select sum(plays_a_year) as plays from analytics.run_rates;

-- name: queue_rows
select
    count(*) filter (where queue.status in ('pending', 'in_progress')) as live,
    (select tables.n_dead_tup from pg_stat_user_tables as tables where tables.relname = 'songstats_backfill_queue') as dead
from songstats_backfill_queue as queue;
