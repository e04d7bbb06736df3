-- A recording's newest figure, by one descent of the primary key each.
create or replace view analytics.latest_play_counts as
select
    recording.isrc as song,
    'spotify'::text as platform,
    recording.name as title,
    recording.artist,
    recording.album,
    coalesce(measured.value, imported.value) as play_count,
    (coalesce(measured.captured_at, imported.captured_at) at time zone 'UTC')::date as day,
    coalesce(measured.captured_at, imported.captured_at) as captured_at,
    coalesce(measured.data_source, imported.data_source) as data_source,
    coalesce(measured.learnt_at, imported.learnt_at) as learnt_at
from songs as recording
left join lateral (
    select
        measurement.value,
        measurement.captured_at,
        measurement.data_source,
        measurement.learnt_at
    from song_measurements as measurement
    where
        measurement.song = recording.isrc
        and measurement.platform = 'spotify'
        and measurement.metric = 'platform_displayed_play_count'
        and measurement.data_source <> 'import'
    -- Of one moment the displayed figure wins: its name sorts before songstats.
    order by measurement.captured_at desc, measurement.data_source asc, measurement.learnt_at desc
    limit 1
) as measured on true
left join lateral (
    select
        measurement.value,
        measurement.captured_at,
        measurement.data_source,
        measurement.learnt_at
    from song_measurements as measurement
    where
        measured.captured_at is null
        and measurement.song = recording.isrc
        and measurement.platform = 'spotify'
        and measurement.metric = 'platform_displayed_play_count'
        and measurement.data_source = 'import'
    order by measurement.captured_at desc, measurement.learnt_at desc
    limit 1
) as imported on true
where measured.captured_at is not null or imported.captured_at is not null;
comment on view analytics.latest_play_counts is 'One row a recording and platform that has a figure: the newest one measured; an imported one only where none was measured.';
comment on column analytics.latest_play_counts.song is 'The recording. | unit: ISRC | source: songs.isrc';
comment on column analytics.latest_play_counts.platform is 'Whose count it is. | unit: name | source: song_measurements.platform';
comment on column analytics.latest_play_counts.title is 'Its title; null where it is known by its ISRC alone. | unit: text | source: songs.name';
comment on column analytics.latest_play_counts.artist is 'Its artist, as displayed. | unit: text | source: songs.artist';
comment on column analytics.latest_play_counts.album is 'Its album, as displayed. | unit: text | source: songs.album';
comment on column analytics.latest_play_counts.play_count is 'All plays since release. | unit: plays | source: song_measurements.value';
comment on column analytics.latest_play_counts.day is 'The day that the figure is for. | unit: UTC date | source: song_measurements.captured_at';
comment on column analytics.latest_play_counts.captured_at is 'The moment that the figure is for. | unit: time | source: song_measurements.captured_at';
comment on column analytics.latest_play_counts.data_source is 'Where it came from: apify_spotify_playcount, songstats, or import, which nobody measured. | unit: name | source: song_measurements.data_source';
comment on column analytics.latest_play_counts.learnt_at is 'When it was stored here. | unit: time | source: song_measurements.learnt_at';
