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
