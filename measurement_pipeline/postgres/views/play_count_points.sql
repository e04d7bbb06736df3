-- Every figure as it was learnt, restatements included: what the other views show the newest of.
create or replace view analytics.play_count_points as
select
    recording.isrc as song,
    point.platform,
    point.day,
    point.captured_at,
    point.data_source,
    point.play_count,
    point.learnt_at,
    point.superseded_at,
    point.evidence,
    point.snapshot
from songs as recording
cross join lateral (
    -- One recording at a time, so that a filter or a join by song reads those recordings and no others. So in every view here.
    select
        measurement.platform,
        (measurement.captured_at at time zone 'UTC')::date as day,
        measurement.captured_at,
        measurement.data_source,
        measurement.value as play_count,
        measurement.learnt_at,
        lead(measurement.learnt_at) over (
            partition by measurement.captured_at, measurement.data_source
            order by measurement.learnt_at
        ) as superseded_at,
        measurement.raw_ref as evidence,
        measurement.snapshot
    from song_measurements as measurement
    where
        measurement.song = recording.isrc
        and measurement.platform = 'spotify'
        and measurement.metric = 'platform_displayed_play_count'
) as point;
comment on view analytics.play_count_points is 'One row for each play count that was stored. A restatement is another row of the same point. Imports are included.';
comment on column analytics.play_count_points.song is 'The recording. | unit: ISRC | source: songs.isrc';
comment on column analytics.play_count_points.platform is 'The platform that counted the plays. | unit: name | source: song_measurements.platform';
comment on column analytics.play_count_points.day is 'The day that the figure is for. | unit: UTC date | source: song_measurements.captured_at';
comment on column analytics.play_count_points.captured_at is 'The moment that the figure is for: 00:00 UTC of a bought or imported day, the moment itself of a capture. | unit: time | source: song_measurements.captured_at';
comment on column analytics.play_count_points.data_source is 'Where it came from: songstats (bought history), apify_spotify_playcount (captured as displayed), import (from a catalogue file). | unit: name | source: song_measurements.data_source';
comment on column analytics.play_count_points.play_count is 'All plays since release, as received: it can fall and jump. | unit: plays | source: song_measurements.value';
comment on column analytics.play_count_points.learnt_at is 'When it was stored here. | unit: time | source: song_measurements.learnt_at';
comment on column analytics.play_count_points.superseded_at is 'When another value of the same point was stored; null: this is the current value. | unit: time | source: song_measurements.learnt_at of the next one';
comment on column analytics.play_count_points.evidence is 'Its evidence: a stored response, a run of the actor, or a file''s name. | unit: reference | source: song_measurements.raw_ref';
comment on column analytics.play_count_points.snapshot is 'The capture that brought it; null for bought history and imports. | unit: id | source: song_measurements.snapshot';
