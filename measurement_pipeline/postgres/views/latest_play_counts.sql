-- A recording's latest count. latest_counts defines it, for analysts and for the HTTP API. It is a separate view so that replacing this
-- one never makes the API wait for an analyst's query.
create or replace view analytics.latest_play_counts as
select
    latest.song,
    'spotify'::text as platform,
    latest.name as title,
    latest.artist,
    latest.album,
    latest.play_count,
    (latest.captured_at at time zone 'UTC')::date as day,
    latest.captured_at,
    latest.data_source,
    latest.learnt_at
from latest_counts as latest;
comment on view analytics.latest_play_counts is 'One row for each recording and platform that has a figure: the newest one measured; an imported one only where none was measured.';
comment on column analytics.latest_play_counts.song is 'The recording. | unit: ISRC | source: songs.isrc';
comment on column analytics.latest_play_counts.platform is 'The platform that counted the plays. | unit: name | source: song_measurements.platform';
comment on column analytics.latest_play_counts.title is 'Its title; null if only its ISRC is known. | unit: text | source: songs.name';
comment on column analytics.latest_play_counts.artist is 'Its artist, as displayed. | unit: text | source: songs.artist';
comment on column analytics.latest_play_counts.album is 'Its album, as displayed. | unit: text | source: songs.album';
comment on column analytics.latest_play_counts.play_count is 'All plays since release. | unit: plays | source: song_measurements.value';
comment on column analytics.latest_play_counts.day is 'The day that the figure is for. | unit: UTC date | source: song_measurements.captured_at';
comment on column analytics.latest_play_counts.captured_at is 'The moment that the figure is for. | unit: time | source: song_measurements.captured_at';
comment on column analytics.latest_play_counts.data_source is 'Where it came from: apify_spotify_playcount, songstats, or import, which is not measured. | unit: name | source: song_measurements.data_source';
comment on column analytics.latest_play_counts.learnt_at is 'When it was stored here. | unit: time | source: song_measurements.learnt_at';
