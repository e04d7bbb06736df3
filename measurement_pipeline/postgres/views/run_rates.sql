-- What a recording was played over its trailing windows. Counts are cumulative, so the counts at both ends of a window are enough.
-- A window's first day is read from its own figure, or from a straight line between the nearest figures before and after it where
-- these are at most 35 days apart: captures run every 30 days. Two descents of the primary key a window at most.
create or replace view analytics.run_rates as
select
    recording.isrc as song,
    'spotify'::text as platform,
    span.window_days,
    case when judged.is_covered then span.first_day end as window_begins,
    ends.day as window_ends,
    rated.plays,
    case when judged.is_covered then span.window_days else ends.day - later.day end as days_covered,
    case when rated.a_year between -9223372036854775808 and 9223372036854775807 then rated.a_year::bigint end as plays_a_year,
    coalesce(rated.plays < 0, false) as is_negative,
    ends.data_source,
    case when judged.is_covered then earlier.data_source end as begins_data_source,
    case
        when judged.is_covered then null
        when earlier.day is null then format('the history begins on %s', later.day)
        else format('no figure between %s and %s', earlier.day, later.day)
    end as why_none,
    judged.is_covered and not judged.is_exact as is_interpolated,
    case when judged.is_covered and not judged.is_exact then earlier.day end as interpolated_from,
    case when judged.is_covered and not judged.is_exact then later.day end as interpolated_to,
    judged.is_covered
    and (
        earlier.data_source <> ends.data_source
        or (not judged.is_exact and later.data_source <> ends.data_source)
    ) as is_source_changed
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
cross join lateral (
    select
        whole.window_days,
        ends.day - whole.window_days as first_day
    from (values (28), (90), (365)) as whole (window_days)
) as span
-- The figure of the window's first day, or the last one before it.
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
        and measurement.captured_at < (span.first_day + 1)::timestamp at time zone 'UTC'
    order by measurement.captured_at desc, measurement.data_source asc, measurement.learnt_at desc
    limit 1
) as earlier on true
-- The next figure after the window's first day, read only where that day has none of its own.
left join lateral (
    select
        measurement.value,
        measurement.data_source,
        (measurement.captured_at at time zone 'UTC')::date as day
    from song_measurements as measurement
    where
        earlier.day is distinct from span.first_day
        and measurement.song = recording.isrc
        and measurement.platform = 'spotify'
        and measurement.metric = 'platform_displayed_play_count'
        and measurement.data_source <> 'import'
        and measurement.captured_at >= (span.first_day + 1)::timestamp at time zone 'UTC'
    order by measurement.captured_at asc, measurement.data_source asc, measurement.learnt_at desc
    limit 1
) as later on true
cross join lateral (
    select
        coalesce(earlier.day = span.first_day, false) as is_exact,
        coalesce(earlier.day = span.first_day or later.day - earlier.day <= 35, false) as is_covered
) as judged
cross join lateral (
    select
        case
            when judged.is_exact then earlier.value
            when judged.is_covered then round(
                earlier.value
                + (later.value - earlier.value) * (span.first_day - earlier.day)::numeric / (later.day - earlier.day)
            )::bigint
        end as value
) as begins
cross join lateral (
    select
        ends.value - begins.value as plays,
        round((ends.value - begins.value) * 365.0 / span.window_days) as a_year
) as rated;
comment on view analytics.run_rates is 'Three rows a recording and platform that were measured: plays over the 28, 90 and 365 days up to its last figure, and the rate a year. Null, with the reason, where the window is not covered.';
comment on column analytics.run_rates.song is 'The recording. | unit: ISRC | source: songs.isrc';
comment on column analytics.run_rates.platform is 'Whose count it is. | unit: name | source: song_measurements.platform';
comment on column analytics.run_rates.window_days is 'The window: 28, 90 or 365. | unit: days | source: this view';
comment on column analytics.run_rates.window_begins is 'The window''s first day, window_days before window_ends; null where the window is not covered. | unit: UTC date | source: song_measurements.captured_at';
comment on column analytics.run_rates.window_ends is 'The day of the recording''s last figure, which may be long ago. | unit: UTC date | source: song_measurements.captured_at';
comment on column analytics.run_rates.plays is 'Plays between the two days; null where the window is not covered. | unit: plays | source: difference of song_measurements.value';
comment on column analytics.run_rates.days_covered is 'Days that plays are counted over: window_days where the window is covered; otherwise the days from the first figure inside it to the last. | unit: days | source: song_measurements.captured_at';
comment on column analytics.run_rates.plays_a_year is 'Plays × 365 ÷ window_days; null where the window is not covered, or a figure is absurd. | unit: plays a year | source: song_measurements.value, song_measurements.captured_at';
comment on column analytics.run_rates.is_negative is 'The count is lower at the end than at the beginning. | unit: yes or no | source: song_measurements.value';
comment on column analytics.run_rates.data_source is 'The source of the last figure. | unit: name | source: song_measurements.data_source';
comment on column analytics.run_rates.begins_data_source is 'The source of the figure on the window''s first day, or of the last one before it. | unit: name | source: song_measurements.data_source';
comment on column analytics.run_rates.why_none is 'Why there is no rate; null where there is one. | unit: text | source: this view';
comment on column analytics.run_rates.is_interpolated is 'The window''s first day has no figure: its count lies on a straight line between the figures of interpolated_from and interpolated_to, at most 35 days apart. | unit: yes or no | source: song_measurements.captured_at';
comment on column analytics.run_rates.interpolated_from is 'The day of the figure before the window''s first day; null where is_interpolated is no. | unit: UTC date | source: song_measurements.captured_at';
comment on column analytics.run_rates.interpolated_to is 'The day of the figure after it; null where is_interpolated is no. | unit: UTC date | source: song_measurements.captured_at';
comment on column analytics.run_rates.is_source_changed is 'The figures that plays rests on come from two sources: plays then includes the difference between two ways of counting. | unit: yes or no | source: song_measurements.data_source';
