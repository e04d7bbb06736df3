-- Data for the HTTP API benchmark.

-- name: recordings
insert into songs (isrc)
select 'AA6Q72' || lpad(place::text, 6, '0')
from generate_series(0, %(recordings)s - 1) as places (place)
on conflict (isrc) do nothing;

-- name: list_them
insert into catalog_songs (catalog, song)
select
    %(catalog)s,
    isrc
from songs;

-- name: catalog
insert into catalogs (account, name)
values (%(account)s, 'bench')
returning id;

-- name: on_albums
insert into song_identifiers (song, platform, identifier_type, value)
select
    isrc,
    'spotify',
    'album_id',
    'album' || (row_number() over (order by isrc) / 12)
from songs;

-- name: points
insert into song_measurements (song, platform, metric, captured_at, data_source, value)
select
    song.isrc,
    'spotify',
    'platform_displayed_play_count',
    timestamptz '2025-01-01 00:00:00+00' + make_interval(days => days.day),
    'songstats',
    1000 + 37 * days.day
from (select songs.isrc from songs order by songs.isrc limit %(taken)s offset %(skipped)s) as song
cross join generate_series(0, %(days)s - 1) as days (day);

-- name: vacuum
vacuum (analyze) song_measurements;

-- name: vacuum_songs
vacuum (analyze) songs, catalog_songs, song_identifiers;

-- name: vacuum_latest
vacuum (analyze) song_latest_counts;

-- name: burst
select
    count(*) as queue_rows,
    count(distinct song) as recordings
from songstats_backfill_queue
where song = any(%(songs)s);
