-- A recording's series, day by day, with flags for unreliable values. Nothing is clamped or smoothed; imports are left out, being no series.
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
    series.captured_at,
    series.is_rebound
from songs as recording
cross join lateral (
    -- Of one day the displayed figure wins, whose source sorts before songstats; of several captures the last; of what was learnt
    -- of it the newest. One window for all of it: each further one would sort or store the points again.
    with points as (
        select
            counted.day,
            counted.captured_at,
            counted.data_source,
            counted.play_count as value,
            row_number() over of_day as place,
            -- The next one is the same point, as it was learnt before.
            coalesce(
                lead(counted.captured_at) over of_day = counted.captured_at
                and lead(counted.data_source) over of_day = counted.data_source,
                false
            ) as is_restated,
            last_value(counted.data_source) over of_day as last_source
        from analytics.measured_counts as counted
        where counted.song = recording.isrc
        window of_day as (
            partition by counted.day
            order by counted.data_source asc, counted.captured_at desc, counted.learnt_at desc
            rows between unbounded preceding and unbounded following
        )
    ),

    days as (
        select
            points.day,
            -- Windows over numbers cost a fraction of windows over dates and intervals.
            points.day - date '2000-01-01' as day_number,
            points.captured_at,
            points.data_source,
            points.value,
            points.is_restated,
            points.last_source
        from points
        where points.place = 1
    ),

    changes as (
        select
            days.*,
            coalesce(days.value <> lag(days.value) over by_day, true) as is_changed,
            greatest(lag(days.value) over by_day - days.value, 0) as fall,
            coalesce(lead(days.day_number) over by_day - days.day_number, 1) as days_to_next
        from days
        window by_day as (order by days.day_number)
    ),

    falls as (
        select
            changes.*,
            sum(changes.fall::float8) over (order by changes.day_number rows unbounded preceding) as falls
        from changes
    ),

    -- A row for each day: the last figure by then. So many rows before it are so many days before it.
    calendar as (
        select
            falls.*,
            generate_series(0, falls.days_to_next - 1) as days_since
        from falls
    ),

    -- Where the count stood 7, 14, 21 and 28 days before each figure: the last figure by then, or the first of all.
    spans as (
        select
            calendar.*,
            coalesce(lag(calendar.value, 7) over by_day, first_value(calendar.value) over by_day) as value_1,
            coalesce(lag(calendar.day_number, 7) over by_day, first_value(calendar.day_number) over by_day) as day_1,
            coalesce(lag(calendar.value, 14) over by_day, first_value(calendar.value) over by_day) as value_2,
            coalesce(lag(calendar.day_number, 14) over by_day, first_value(calendar.day_number) over by_day) as day_2,
            coalesce(lag(calendar.value, 21) over by_day, first_value(calendar.value) over by_day) as value_3,
            coalesce(lag(calendar.day_number, 21) over by_day, first_value(calendar.day_number) over by_day) as day_3,
            coalesce(lag(calendar.value, 28) over by_day, first_value(calendar.value) over by_day) as value_4,
            coalesce(lag(calendar.day_number, 28) over by_day, first_value(calendar.day_number) over by_day) as day_4,
            -- What the count lost in the 28 days before and has not regained: its falls, up to the distance from its highest.
            least(
                calendar.falls - coalesce(lag(calendar.falls, 28) over by_day, 0),
                max(calendar.value) over by_day - calendar.value
            ) as lost,
            max(calendar.day_number) filter (where calendar.is_changed) over by_day as unchanged_since,
            min(calendar.day_number) filter (where calendar.value > 0) over by_day as first_played
        from calendar
        window by_day as (order by calendar.day_number, calendar.days_since rows unbounded preceding)
    ),

    -- Plays a day in each of the four weeks that end with a figure; null where the series has no figure for a week.
    weeks as (
        select
            spans.*,
            (spans.value - spans.value_1)::float8 / nullif(spans.day_number - spans.day_1, 0) as rate_1,
            (spans.value_1 - spans.value_2)::float8 / nullif(spans.day_1 - spans.day_2, 0) as rate_2,
            (spans.value_2 - spans.value_3)::float8 / nullif(spans.day_2 - spans.day_3, 0) as rate_3,
            (spans.value_3 - spans.value_4)::float8 / nullif(spans.day_3 - spans.day_4, 0) as rate_4
        from spans
        where spans.days_since = 0
    ),

    -- The trend that a figure leaves behind, in plays a day: the median of the four weekly means, or the mean of the last week where
    -- that is higher, so that growth is no anomaly.
    trends as (
        select
            weeks.*,
            greatest(
                weeks.rate_1,
                case num_nonnulls(weeks.rate_1, weeks.rate_2, weeks.rate_3, weeks.rate_4)
                    when 4 then (total.rate - total.highest - total.lowest) / 2
                    when 3 then total.rate - total.highest - total.lowest
                    when 2 then total.rate / 2
                end,
                case when weeks.rate_1 is not null then 0 end
            ) as trend
        from weeks
        cross join lateral (
            select
                coalesce(weeks.rate_1, 0) + coalesce(weeks.rate_2, 0) + coalesce(weeks.rate_3, 0) + coalesce(weeks.rate_4, 0) as rate,
                greatest(weeks.rate_1, weeks.rate_2, weeks.rate_3, weeks.rate_4) as highest,
                least(weeks.rate_1, weeks.rate_2, weeks.rate_3, weeks.rate_4) as lowest
        ) as total
    ),

    -- Each figure with the one before it.
    steps as (
        select
            trends.day,
            trends.captured_at,
            trends.data_source,
            trends.last_source,
            trends.value,
            trends.is_restated or coalesce(lag(trends.is_restated) over by_day, false) as is_restated,
            trends.value - lag(trends.value) over by_day as step,
            trends.day_number - lag(trends.day_number) over by_day as step_days,
            trends.day_number - lag(trends.unchanged_since) over by_day as days_since_change,
            lag(trends.data_source) over by_day as source_before,
            lag(trends.trend) over by_day as trend,
            lag(trends.day_number) over by_day - lag(trends.first_played) over by_day >= 14 as is_after_release,
            -- How far the count is above the line that the trend draws from two weeks before.
            trends.value - lag(trends.value_2) over by_day
            - (trends.day_number - lag(trends.day_2) over by_day) * lag(trends.trend) over by_day as above_trend,
            lag(trends.lost) over by_day as lost
        from trends
        window by_day as (order by trends.day_number)
    ),

    judged as materialized (
        select
            steps.day,
            steps.captured_at,
            steps.data_source,
            steps.last_source,
            steps.value,
            steps.is_restated,
            steps.step,
            steps.step_days,
            coalesce(steps.step_days - 1, 0) as gap_days,
            coalesce(steps.step < 0, false) as is_negative,
            coalesce(
                steps.is_after_release
                and steps.step >= 1000
                -- Plays that were not counted while the count stood still are counted on the day it moves again.
                and steps.step > 5 * steps.trend * steps.days_since_change
                and steps.above_trend > 5 * steps.trend,
                false
            ) as is_jump,
            coalesce(
                steps.lost > steps.trend
                and steps.step - steps.trend * steps.days_since_change >= steps.lost / 2,
                false
            ) as is_rebound,
            coalesce(steps.data_source <> steps.source_before, false) as is_source_changed
        from steps
    )

    select
        judged.day,
        judged.value as play_count,
        case when judged.gap_days = 0 then judged.step end as plays,
        -- The last day of a gap has what the days before it leave of the step.
        case
            when judged.gap_days = 0 then judged.step
            else judged.step - trunc(judged.step::numeric * judged.gap_days / judged.step_days)::bigint
        end as plays_filled,
        false as is_gap_filled,
        judged.gap_days,
        judged.is_restated,
        judged.is_negative,
        judged.is_jump,
        judged.is_source_changed,
        judged.data_source,
        case when judged.last_source <> judged.data_source then judged.last_source end as also_from,
        judged.captured_at,
        judged.is_rebound
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
        judged.is_restated,
        judged.is_negative,
        judged.is_jump,
        judged.is_source_changed,
        null as data_source,
        null as also_from,
        null as captured_at,
        judged.is_rebound
    from judged
    cross join lateral generate_series(1, judged.gap_days) as missing (place)
    where judged.gap_days > 0
) as series;
comment on view analytics.daily_play_counts is 'One row for each recording, platform and day between its first and last figure: the cumulative count, the plays of that day, and flags for unreliable values. Falls and jumps are flagged, never clamped.';
comment on column analytics.daily_play_counts.song is 'The recording. | unit: ISRC | source: songs.isrc';
comment on column analytics.daily_play_counts.platform is 'The platform that counted the plays. | unit: name | source: song_measurements.platform';
comment on column analytics.daily_play_counts.day is 'The day. | unit: UTC date | source: song_measurements.captured_at';
comment on column analytics.daily_play_counts.play_count is 'All plays since release, as received; null on a day without a figure. | unit: plays | source: song_measurements.value';
comment on column analytics.daily_play_counts.plays is 'Plays since the day before; null on the first day, on a day without a figure, and on the day after one. | unit: plays | source: song_measurements.value';
comment on column analytics.daily_play_counts.plays_filled is 'As plays, but what was played over a gap is spread evenly over its days, in whole plays that add up. | unit: plays | source: song_measurements.value';
comment on column analytics.daily_play_counts.is_gap_filled is 'The day has no figure: its row is there for plays_filled alone. | unit: yes or no | source: song_measurements.captured_at';
comment on column analytics.daily_play_counts.gap_days is 'Days without a figure in the gap that this day lies in or ends; 0 where there is none. | unit: days | source: song_measurements.captured_at';
comment on column analytics.daily_play_counts.is_restated is 'The source reported another value before, for this day or for the day that plays are counted from. See play_count_points. | unit: yes or no | source: song_measurements.learnt_at';
comment on column analytics.daily_play_counts.is_negative is 'The count fell. Platforms merge recordings and restate counts. | unit: yes or no | source: song_measurements.value';
comment on column analytics.daily_play_counts.is_jump is 'A step of 1,000 plays or more that the recording''s own trend does not explain: over 5 times the trend a day, and over 5 days of plays above it. The trend is the median of the means of the four weeks before, or the mean of the last week where that is higher. The first 14 days with plays are not judged. | unit: yes or no | source: song_measurements.value';
comment on column analytics.daily_play_counts.is_source_changed is 'The figure before came from another source, so that the step may be the difference between two ways of counting. | unit: yes or no | source: song_measurements.data_source';
comment on column analytics.daily_play_counts.data_source is 'Where the figure came from; null on a day without one. The displayed one (apify_spotify_playcount) wins over songstats. | unit: name | source: song_measurements.data_source';
comment on column analytics.daily_play_counts.also_from is 'The other source with a figure for the day, which is not used. | unit: name | source: song_measurements.data_source';
comment on column analytics.daily_play_counts.captured_at is 'The moment that the figure is for. | unit: time | source: song_measurements.captured_at';
comment on column analytics.daily_play_counts.is_rebound is 'The count rises again after a fall in the 28 days before, in one step of at least half of the fall. These plays were counted before. | unit: yes or no | source: song_measurements.value';
