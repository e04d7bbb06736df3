-- Recordings and catalogues.

-- name: ensure
insert into songs (isrc)
select isrc
from unnest(%(isrcs)s::text[]) as requested (isrc)
order by isrc
on conflict (isrc) do nothing;

-- name: stage
create temporary table imported (
    isrc text primary key,
    title text,
    artist text,
    album text,
    release_date date,
    play_count bigint
) on commit drop;

-- name: copy_in
copy imported (isrc, title, artist, album, release_date, play_count) from stdin;

-- name: merge_songs
-- Empty fields of the file keep the stored values.
insert into songs (isrc, name, artist, album, release_date)
select
    isrc,
    title,
    artist,
    album,
    release_date
from imported
order by isrc
on conflict (isrc) do update set
    name = coalesce(excluded.name, songs.name),
    artist = coalesce(excluded.artist, songs.artist),
    album = coalesce(excluded.album, songs.album),
    release_date = coalesce(excluded.release_date, songs.release_date),
    updated_at = now()
where
    (songs.name, songs.artist, songs.album, songs.release_date) is distinct from (
        coalesce(excluded.name, songs.name),
        coalesce(excluded.artist, songs.artist),
        coalesce(excluded.album, songs.album),
        coalesce(excluded.release_date, songs.release_date)
    );

-- name: catalog
insert into catalogs (account, name)
values (%(account)s, %(name)s)
on conflict (account, name) do update set name = excluded.name
returning id;

-- name: list_songs
insert into catalog_songs (catalog, song)
select
    %(catalog)s,
    isrc
from imported
order by isrc
on conflict (catalog, song) do nothing;

-- name: merge_counts
-- Inserts a count only if it differs from the newest known value of that day and source.
insert into song_measurements (song, platform, metric, captured_at, data_source, value, raw_ref, learnt_at)
select
    imported.isrc,
    'spotify',
    'platform_displayed_play_count',
    %(as_of)s::date::timestamp at time zone 'UTC',
    'import',
    imported.play_count,
    %(raw_ref)s,
    -- Later than the value that it restates, even if the clock was set back in between.
    greatest(now(), newest.learnt_at + interval '1 microsecond')
from imported
left join lateral (
    select
        measurement.value,
        measurement.learnt_at
    from song_measurements as measurement
    where
        measurement.song = imported.isrc
        and measurement.platform = 'spotify'
        and measurement.metric = 'platform_displayed_play_count'
        and measurement.captured_at = %(as_of)s::date::timestamp at time zone 'UTC'
        and measurement.data_source = 'import'
    order by measurement.learnt_at desc
    limit 1
) as newest on true
where imported.play_count is not null and newest.value is distinct from imported.play_count;

-- name: refresh_ranks
-- The rank is the latest count, in which an import never outranks a measurement. A row that another transaction holds keeps its rank:
-- that transaction may be a settlement, which waits for the latest count that this one has just changed.
with latest as (
    select
        queue.song,
        newest.play_count
    from unnest(%(songs)s::text[]) as counted (song)
    inner join songstats_backfill_queue as queue on counted.song = queue.song
    inner join latest_counts as newest on queue.song = newest.song
    where queue.status in ('pending', 'in_progress') and queue.rank_score <> newest.play_count
    order by queue.song
    for update of queue skip locked
)

update songstats_backfill_queue as queue
set rank_score = latest.play_count
from latest
where queue.song = latest.song;

-- name: identify
insert into song_identifiers (song, platform, identifier_type, value)
select
    song,
    %(platform)s,
    %(identifier_type)s,
    value
from unnest(%(songs)s::text[], %(values)s::text[]) as known (song, value)
on conflict do nothing;

-- name: most_played
select
    song.isrc,
    song.name,
    song.artist,
    latest.value as play_count,
    bounds.first_day,
    bounds.last_day,
    bounds.points
from songs as song
cross join lateral (
    select
        min(measurement.captured_at) as first_day,
        max(measurement.captured_at) as last_day,
        count(*) as points
    from song_measurements as measurement
    where
        measurement.song = song.isrc
        and measurement.platform = 'spotify'
        and measurement.metric = 'platform_displayed_play_count'
        and measurement.data_source = 'songstats'
) as bounds
cross join lateral (
    select measurement.value
    from song_measurements as measurement
    where
        measurement.song = song.isrc
        and measurement.platform = 'spotify'
        and measurement.metric = 'platform_displayed_play_count'
        and measurement.captured_at = bounds.last_day
        and measurement.data_source = 'songstats'
    order by measurement.learnt_at desc
    limit 1
) as latest
order by latest.value desc, song.isrc asc
limit %(limit)s;

-- name: point_count
select count(*) as points
from song_measurements
where data_source = 'songstats';

-- name: series
select distinct on (captured_at)
    captured_at,
    value
from song_measurements
where
    song = %(song)s
    and platform = 'spotify'
    and metric = 'platform_displayed_play_count'
    and data_source = 'songstats'
order by captured_at asc, learnt_at desc;
