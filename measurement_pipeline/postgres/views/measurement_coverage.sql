-- What is known of each recording, and what it took.
create or replace view analytics.measurement_coverage as
select
    recording.isrc as song,
    'spotify'::text as platform,
    points.first_day,
    points.last_day,
    coalesce(points.last_day - points.first_day + 1, 0) as days_expected,
    points.days_present,
    coalesce(points.last_day - points.first_day + 1, 0) - points.days_present as days_missing,
    points.restatements,
    lookups.last_lookup_at,
    coalesce(queue.outcome, queue.status, 'never asked for') as outcome,
    queue.last_status_code,
    lookups.hits,
    points.captures
from songs as recording
left join songstats_backfill_queue as queue on recording.isrc = queue.song
cross join lateral (
    select
        min(known.day) as first_day,
        max(known.day) as last_day,
        count(distinct known.day)::int as days_present,
        coalesce(sum(known.times - 1), 0)::int as restatements,
        count(*) filter (where known.data_source = 'apify_spotify_playcount')::int as captures
    from (
        -- In the primary key's order: neither a sort nor the table is needed.
        select
            (measurement.captured_at at time zone 'UTC')::date as day,
            measurement.data_source,
            count(*) as times
        from song_measurements as measurement
        where
            measurement.song = recording.isrc
            and measurement.platform = 'spotify'
            and measurement.metric = 'platform_displayed_play_count'
            and measurement.data_source <> 'import'
        group by measurement.captured_at, measurement.data_source
    ) as known
) as points
cross join lateral (
    select
        max(ledger.settled_at) as last_lookup_at,
        (count(*) filter (where ledger.billable is distinct from false))::int as hits
    from songstats_quota_ledger as ledger
    where ledger.song = recording.isrc
) as lookups;
comment on view analytics.measurement_coverage is 'One row for each recording and platform, measured or not: its days, its last look-up at Songstats and its outcome, and what was spent on it.';
comment on column analytics.measurement_coverage.song is 'The recording. | unit: ISRC | source: songs.isrc';
comment on column analytics.measurement_coverage.platform is 'The platform that counted the plays. | unit: name | source: song_measurements.platform';
comment on column analytics.measurement_coverage.first_day is 'The first day with a figure; null: none was measured. | unit: UTC date | source: song_measurements.captured_at';
comment on column analytics.measurement_coverage.last_day is 'The last day with a figure. | unit: UTC date | source: song_measurements.captured_at';
comment on column analytics.measurement_coverage.days_expected is 'Days from the first to the last, both included. | unit: days | source: first_day, last_day';
comment on column analytics.measurement_coverage.days_present is 'Those with a figure. | unit: days | source: song_measurements.captured_at';
comment on column analytics.measurement_coverage.days_missing is 'Those without. | unit: days | source: days_expected, days_present';
comment on column analytics.measurement_coverage.restatements is 'How often another value was stored for a known point. | unit: figures | source: song_measurements.learnt_at';
comment on column analytics.measurement_coverage.last_lookup_at is 'When the last call to Songstats for it ended, with or without a response; null: no call was made. | unit: time | source: songstats_quota_ledger.settled_at';
comment on column analytics.measurement_coverage.outcome is 'The outcome of that call: stored, no_history, rejected, malformed, exhausted, transient; pending or in_progress before; never asked for. | unit: name | source: songstats_backfill_queue';
comment on column analytics.measurement_coverage.last_status_code is 'The vendor''s last HTTP status. | unit: HTTP status | source: songstats_backfill_queue.last_status_code';
comment on column analytics.measurement_coverage.hits is 'Hits of the plan at Songstats that were spent on it; those whose billing is unknown count as spent. | unit: hits | source: songstats_quota_ledger.billable';
comment on column analytics.measurement_coverage.captures is 'Captures that measured it. They are paid for by album: see spend. | unit: captures | source: song_measurements.data_source';
