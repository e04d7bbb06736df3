-- Recordings whose catalogue file and measured history do not agree. The two counts are compared as near to the same day as the
-- history allows: a file of two years ago is no contradiction of today's count.
create or replace view analytics.import_differences as
select
    recording.isrc as song,
    'spotify'::text as platform,
    recording.name as title,
    recording.artist,
    imported.value as imported_play_count,
    imported.day as imported_day,
    imported.raw_ref as imported_from,
    measured.play_count as measured_play_count,
    measured.day as measured_day,
    measured.data_source,
    imported.value - measured.play_count as difference,
    case when measured.play_count > 0 then round(imported.value::numeric / measured.play_count, 2) end as ratio
from songs as recording
cross join lateral (
    select
        measurement.value,
        measurement.captured_at,
        measurement.raw_ref,
        (measurement.captured_at at time zone 'UTC')::date as day
    from song_measurements as measurement
    where
        measurement.song = recording.isrc
        and measurement.platform = 'spotify'
        and measurement.metric = 'platform_displayed_play_count'
        and measurement.data_source = 'import'
    order by measurement.captured_at desc, measurement.learnt_at desc
    limit 1
) as imported
cross join lateral (
    -- The last count by the end of the file's day; where there is none, the first one after it.
    select
        0 as place,
        before.play_count,
        before.day,
        before.data_source
    from analytics.latest_count_before(recording.isrc, imported.captured_at + interval '1 day') as before
    union all
    select
        1 as place,
        after.play_count,
        after.day,
        after.data_source
    from analytics.first_count_since(recording.isrc, imported.captured_at + interval '1 day') as after
    order by place
    limit 1
) as measured
where
    abs(imported.value - measured.play_count) > measured.play_count / 10.0
    -- Over more than 35 days a recording may have grown so much; a cumulative count that is lower later cannot be growth.
    and (
        abs(imported.day - measured.day) <= 35
        or (imported.day < measured.day) = (imported.value > measured.play_count)
    );
comment on view analytics.import_differences is 'One row for each recording with a newest imported count that differs by more than 10 % from the count measured within 35 days of it, or that contradicts an earlier or later count. One of the two may be the count of another recording, or of all its versions.';
comment on column analytics.import_differences.song is 'The recording. | unit: ISRC | source: songs.isrc';
comment on column analytics.import_differences.platform is 'The platform that counted the plays. | unit: name | source: song_measurements.platform';
comment on column analytics.import_differences.title is 'Its title; null if only its ISRC is known. | unit: text | source: songs.name';
comment on column analytics.import_differences.artist is 'Its artist, as displayed. | unit: text | source: songs.artist';
comment on column analytics.import_differences.imported_play_count is 'The count in the newest catalogue file that has one. | unit: plays | source: song_measurements.value';
comment on column analytics.import_differences.imported_day is 'The day of the file''s counts. | unit: UTC date | source: song_measurements.captured_at';
comment on column analytics.import_differences.imported_from is 'The file''s name. | unit: text | source: song_measurements.raw_ref';
comment on column analytics.import_differences.measured_play_count is 'The measured count of that day, or of the last day before it; of the first day after it where no earlier one is known. | unit: plays | source: song_measurements.value';
comment on column analytics.import_differences.measured_day is 'The day that the measured count is for. | unit: UTC date | source: song_measurements.captured_at';
comment on column analytics.import_differences.data_source is 'Where the measured count came from: songstats or apify_spotify_playcount. | unit: name | source: song_measurements.data_source';
comment on column analytics.import_differences.difference is 'Imported minus measured. | unit: plays | source: imported_play_count, measured_play_count';
comment on column analytics.import_differences.ratio is 'Imported ÷ measured; null where 0 was measured. | unit: times | source: imported_play_count, measured_play_count';
