-- The writes of a bare capture.

-- name: store
insert into song_measurements (song, platform, metric, captured_at, data_source, value)
select
    song,
    'spotify',
    'platform_displayed_play_count',
    clock_timestamp(),
    'apify_spotify_playcount',
    value
from unnest(%(songs)s::text[], %(counts)s::bigint[]) as counted (song, value);

-- name: songs
insert into songs (isrc)
select isrc
from unnest(%(songs)s::text[]) as counted (isrc);

-- name: identifiers
insert into song_identifiers (song, platform, identifier_type, value)
select
    song,
    'spotify',
    %(type)s,
    value
from unnest(%(songs)s::text[], %(values)s::text[]) as known (song, value);
