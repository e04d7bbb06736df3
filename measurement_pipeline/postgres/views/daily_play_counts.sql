-- A recording's series, day by day, with what to distrust. Nothing is clamped or smoothed; imports are left out, being no series.
create or replace view analytics.daily_play_counts as
select
    recording.isrc as song,
    'spotify'::text as platform,
    series.day,
    series.play_count,
    series.plays,
    series.plays_filled,
    series.is_gap_filled,
    series.gap_days,
    series.is_restated,
    series.is_negative,
    series.is_jump,
    series.is_source_changed,
    series.data_source,
    series.also_from,
    series.captured_at
from songs as recording
cross join lateral (
    with points as (
        select
            (measurement.captured_at at time zone 'UTC')::date as day,
            measurement.captured_at,
            measurement.data_source,
            measurement.learnt_at,
            measurement.value,
            count(*) over (partition by measurement.captured_at, measurement.data_source) > 1 as is_restated
        from song_measurements as measurement
        where
            measurement.song = recording.isrc
            and measurement.platform = 'spotify'
            and measurement.metric = 'platform_displayed_play_count'
            and measurement.data_source <> 'import'
    ),

    -- Of one day the displayed figure wins, whose source sorts before songstats; of several captures the last; of what was learnt
    -- of it the newest.
    days as (
        select distinct on (points.day)
            points.day,
            points.captured_at,
            points.data_source,
            points.value,
            points.is_restated,
            max(points.data_source) over (partition by points.day) as last_source
        from points
        order by points.day asc, points.data_source asc, points.captured_at desc, points.learnt_at desc
    ),

    steps as (
        select
            days.*,
            days.value - lag(days.value) over by_day as step,
            days.day - lag(days.day) over by_day as step_days,
            lag(days.data_source) over by_day as source_before,
            -- What the 28 steps before this one came to, or as many as there are.
            lag(days.value) over by_day - first_value(days.value) over month_before as month_before,
            nullif(lag(days.day) over by_day - first_value(days.day) over month_before, 0) as month_before_days
        from days
        window
            by_day as (order by days.day),
            month_before as (order by days.day rows between 29 preceding and 1 preceding)
    ),

    judged as materialized (
        select
            steps.*,
            coalesce(steps.step_days - 1, 0) as gap_days,
            coalesce(steps.step < 0, false) as is_negative,
            coalesce(
                steps.step >= 1000
                and steps.step::numeric / steps.step_days > 10 * greatest(steps.month_before, 0)::numeric / steps.month_before_days,
                false
            ) as is_jump,
            coalesce(steps.data_source <> steps.source_before, false) as is_source_changed
        from steps
    )

    select
        judged.day,
        judged.value as play_count,
        case when judged.gap_days = 0 then judged.step end as plays,
        -- The last day of a gap has what the days before it leave of the step.
        judged.step - trunc(judged.step::numeric * judged.gap_days / judged.step_days)::bigint as plays_filled,
        false as is_gap_filled,
        judged.gap_days,
        judged.is_restated,
        judged.is_negative,
        judged.is_jump,
        judged.is_source_changed,
        judged.data_source,
        case when judged.last_source <> judged.data_source then judged.last_source end as also_from,
        judged.captured_at
    from judged
    union all
    select
        judged.day - judged.gap_days + missing.place - 1 as day,
        null as play_count,
        null as plays,
        -- Whole plays that add up to the step.
        (
            trunc(judged.step::numeric * missing.place / judged.step_days)
            - trunc(judged.step::numeric * (missing.place - 1) / judged.step_days)
        )::bigint as plays_filled,
        true as is_gap_filled,
        judged.gap_days,
        false as is_restated,
        judged.is_negative,
        judged.is_jump,
        false as is_source_changed,
        null as data_source,
        null as also_from,
        null as captured_at
    from judged
    cross join lateral generate_series(1, judged.gap_days) as missing (place)
    where judged.gap_days > 0
) as series;
comment on view analytics.daily_play_counts is 'One row a recording, platform and day between its first and last figure: the cumulative count, the plays of that day, and what to distrust. Falls and jumps are flagged, never clamped.';
comment on column analytics.daily_play_counts.song is 'The recording. | unit: ISRC | source: songs.isrc';
comment on column analytics.daily_play_counts.platform is 'Whose count it is. | unit: name | source: song_measurements.platform';
comment on column analytics.daily_play_counts.day is 'The day. | unit: UTC date | source: song_measurements.captured_at';
comment on column analytics.daily_play_counts.play_count is 'All plays since release, as it came; null on a day without a figure. | unit: plays | source: song_measurements.value';
comment on column analytics.daily_play_counts.plays is 'Plays since the day before; null on the first day, on a day without a figure, and on the day after one. | unit: plays | source: song_measurements.value';
comment on column analytics.daily_play_counts.plays_filled is 'As plays, but what was played over a gap is spread evenly over its days, in whole plays that add up. | unit: plays | source: song_measurements.value';
comment on column analytics.daily_play_counts.is_gap_filled is 'The day has no figure: its row is there for plays_filled alone. | unit: yes or no | source: song_measurements.captured_at';
comment on column analytics.daily_play_counts.gap_days is 'Days without a figure in the gap that this day lies in or ends; 0 where there is none. | unit: days | source: song_measurements.captured_at';
comment on column analytics.daily_play_counts.is_restated is 'The source that the figure is from has said something else of this day before: see play_count_points. | unit: yes or no | source: song_measurements.learnt_at';
comment on column analytics.daily_play_counts.is_negative is 'The count fell: platforms merge and restate. | unit: yes or no | source: song_measurements.value';
comment on column analytics.daily_play_counts.is_jump is 'A step of 1,000 plays or more, and over ten times the daily average of the 28 steps before it, or of as many as there are; no where there is none. | unit: yes or no | source: song_measurements.value';
comment on column analytics.daily_play_counts.is_source_changed is 'The figure before came from another source, so that the step may be the difference between two ways of counting. | unit: yes or no | source: song_measurements.data_source';
comment on column analytics.daily_play_counts.data_source is 'Where the figure came from; null on a day without one. The displayed one (apify_spotify_playcount) wins over songstats. | unit: name | source: song_measurements.data_source';
comment on column analytics.daily_play_counts.also_from is 'The other source that has a figure for the day, and was passed over. | unit: name | source: song_measurements.data_source';
comment on column analytics.daily_play_counts.captured_at is 'The moment that the figure is for. | unit: time | source: song_measurements.captured_at';
