-- What a recording was played over its trailing windows. Counts are cumulative, so the two ends are enough: days missing between
-- them take nothing away. Three descents of the primary key a window.
create or replace view analytics.run_rates as
select
    recording.isrc as song,
    'spotify'::text as platform,
    span.window_days,
    case when judged.is_covered then begins.day end as window_begins,
    ends.day as window_ends,
    case when judged.is_covered then ends.value - begins.value end as plays,
    case when judged.is_covered then ends.day - begins.day else ends.day - inside.day end as days_covered,
    case when judged.is_covered and rated.a_year between -9223372036854775808 and 9223372036854775807 then rated.a_year::bigint end
        as plays_a_year,
    coalesce(judged.is_covered and ends.value < begins.value, false) as is_negative,
    ends.data_source,
    case when judged.is_covered then begins.data_source end as begins_data_source,
    case
        when judged.is_covered then null
        when begins.day is null then format('the history begins on %s', inside.day)
        else format('no figure between %s and %s', begins.day, inside.day)
    end as why_none
from songs as recording
cross join lateral (
    select
        measurement.value,
        measurement.data_source,
        (measurement.captured_at at time zone 'UTC')::date as day
    from song_measurements as measurement
    where
        measurement.song = recording.isrc
        and measurement.platform = 'spotify'
        and measurement.metric = 'platform_displayed_play_count'
        and measurement.data_source <> 'import'
    order by measurement.captured_at desc, measurement.data_source asc, measurement.learnt_at desc
    limit 1
) as ends
cross join (values (28), (90), (365)) as span (window_days)
-- The last figure of the window's first day, or of the nearest day before it.
left join lateral (
    select
        measurement.value,
        measurement.data_source,
        (measurement.captured_at at time zone 'UTC')::date as day
    from song_measurements as measurement
    where
        measurement.song = recording.isrc
        and measurement.platform = 'spotify'
        and measurement.metric = 'platform_displayed_play_count'
        and measurement.data_source <> 'import'
        and measurement.captured_at < (ends.day - span.window_days + 1)::timestamp at time zone 'UTC'
    order by measurement.captured_at desc, measurement.data_source asc, measurement.learnt_at desc
    limit 1
) as begins on true
cross join lateral (
    select coalesce(begins.day >= ends.day - span.window_days - 7, false) as is_covered
) as judged
cross join lateral (
    select round((ends.value - begins.value) * 365.0 / (ends.day - begins.day)) as a_year
) as rated
left join lateral (
    select (measurement.captured_at at time zone 'UTC')::date as day
    from song_measurements as measurement
    where
        not judged.is_covered
        and measurement.song = recording.isrc
        and measurement.platform = 'spotify'
        and measurement.metric = 'platform_displayed_play_count'
        and measurement.data_source <> 'import'
        and measurement.captured_at >= (ends.day - span.window_days + 1)::timestamp at time zone 'UTC'
    order by measurement.captured_at
    limit 1
) as inside on true;
comment on view analytics.run_rates is 'Three rows a recording and platform that were measured: plays over the 28, 90 and 365 days up to its last figure, and at what rate a year. Null, with the reason, where the window is not covered.';
comment on column analytics.run_rates.song is 'The recording. | unit: ISRC | source: songs.isrc';
comment on column analytics.run_rates.platform is 'Whose count it is. | unit: name | source: song_measurements.platform';
comment on column analytics.run_rates.window_days is 'The window: 28, 90 or 365. | unit: days | source: this view';
comment on column analytics.run_rates.window_begins is 'The day of the figure that the window is counted from: its first day, or up to 7 days before where that has none. | unit: UTC date | source: song_measurements.captured_at';
comment on column analytics.run_rates.window_ends is 'The day of the recording''s last figure, which may be long ago. | unit: UTC date | source: song_measurements.captured_at';
comment on column analytics.run_rates.plays is 'Plays between the two days; null where the window is not covered. | unit: plays | source: difference of song_measurements.value';
comment on column analytics.run_rates.days_covered is 'Days between the two figures; where the window is not covered, how much of it is. | unit: days | source: song_measurements.captured_at';
comment on column analytics.run_rates.plays_a_year is 'Plays × 365 ÷ days_covered; null where the window is not covered, or a figure is absurd. | unit: plays a year | source: song_measurements.value, song_measurements.captured_at';
comment on column analytics.run_rates.is_negative is 'The count is lower at the end than at the beginning. | unit: yes or no | source: song_measurements.value';
comment on column analytics.run_rates.data_source is 'Where the last figure came from. | unit: name | source: song_measurements.data_source';
comment on column analytics.run_rates.begins_data_source is 'Where the first one came from: if not the same, the plays hold the difference between two ways of counting. | unit: name | source: song_measurements.data_source';
comment on column analytics.run_rates.why_none is 'Why there is no rate; null where there is one. | unit: text | source: this view';
