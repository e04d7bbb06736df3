-- A recording's plays over its last 28, 90 and 365 days. run_rates_over has the rule; the HTTP API asks it for other windows.
create or replace view analytics.run_rates as
select
    recording.isrc as song,
    'spotify'::text as platform,
    rate.window_days,
    case when rate.why_none is null then (rate.last_captured_at at time zone 'UTC')::date - rate.window_days end as window_begins,
    (rate.last_captured_at at time zone 'UTC')::date as window_ends,
    rate.plays,
    rate.days_covered,
    case when rate.plays_a_year between -9223372036854775808 and 9223372036854775807 then rate.plays_a_year::bigint end as plays_a_year,
    coalesce(rate.plays < 0, false) as is_negative,
    rate.last_data_source as data_source,
    case when rate.why_none is null then rate.first_data_source end as begins_data_source,
    rate.why_none,
    rate.is_interpolated,
    case when rate.is_interpolated then (rate.first_captured_at at time zone 'UTC')::date end as interpolated_from,
    case when rate.is_interpolated then (rate.next_captured_at at time zone 'UTC')::date end as interpolated_to,
    rate.is_source_changed
from songs as recording
cross join lateral analytics.run_rates_over(recording.isrc, '{28, 90, 365}') as rate;
comment on view analytics.run_rates is 'Three rows for each measured recording and platform: the plays of the 28, 90 and 365 days up to its last figure, and the plays a year at that rate. If a window is not covered, they are null, and why_none has the reason.';
comment on column analytics.run_rates.song is 'The recording. | unit: ISRC | source: songs.isrc';
comment on column analytics.run_rates.platform is 'The platform that counted the plays. | unit: name | source: song_measurements.platform';
comment on column analytics.run_rates.window_days is 'The window: 28, 90 or 365. | unit: days | source: this view';
comment on column analytics.run_rates.window_begins is 'The window''s first day, window_days before window_ends; null where the window is not covered. | unit: UTC date | source: song_measurements.captured_at';
comment on column analytics.run_rates.window_ends is 'The day of the recording''s last figure, which may be long ago. | unit: UTC date | source: song_measurements.captured_at';
comment on column analytics.run_rates.plays is 'Plays between the two days; null where the window is not covered. | unit: plays | source: difference of song_measurements.value';
comment on column analytics.run_rates.days_covered is 'Days that plays are counted over: window_days where the window is covered; otherwise the days from the first figure inside it to the last. | unit: days | source: song_measurements.captured_at';
comment on column analytics.run_rates.plays_a_year is 'Plays × 365 ÷ window_days; null where the window is not covered, or a figure is wrong. | unit: plays a year | source: song_measurements.value, song_measurements.captured_at';
comment on column analytics.run_rates.is_negative is 'The count is lower at the end than at the beginning. | unit: yes or no | source: song_measurements.value';
comment on column analytics.run_rates.data_source is 'The source of the last figure. | unit: name | source: song_measurements.data_source';
comment on column analytics.run_rates.begins_data_source is 'The source of the figure on the window''s first day, or of the last one before it. | unit: name | source: song_measurements.data_source';
comment on column analytics.run_rates.why_none is 'Why there is no rate; null where there is one. | unit: text | source: this view';
comment on column analytics.run_rates.is_interpolated is 'The window''s first day has no figure: its count lies on a straight line between the figures of interpolated_from and interpolated_to, at most 35 days apart. | unit: yes or no | source: song_measurements.captured_at';
comment on column analytics.run_rates.interpolated_from is 'The day of the figure before the window''s first day; null where is_interpolated is no. | unit: UTC date | source: song_measurements.captured_at';
comment on column analytics.run_rates.interpolated_to is 'The day of the figure after it; null where is_interpolated is no. | unit: UTC date | source: song_measurements.captured_at';
comment on column analytics.run_rates.is_source_changed is 'The figures at the two ends of the window come from different sources: plays then includes the difference between two ways of counting. | unit: yes or no | source: song_measurements.data_source';
