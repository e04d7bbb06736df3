-- Queries on the analysts' views for assets, checks, reports and exports. Read-only.

-- name: refresh_state
-- Whether the backfill and captures have finished: when something was last settled, parsed or captured, and what is in progress.
-- Rows whose run has no recent heartbeat are not in progress; rows that are due soon are.
select
    greatest(
        (
            select ledger.settled_at
            from songstats_quota_ledger as ledger
            where ledger.reason in ('stored', 'no history', 'rejected', 'malformed')
            order by ledger.settled_at desc
            limit 1
        ),
        (select max(queue.updated_at) from songstats_backfill_queue as queue where queue.status in ('done', 'failed')),
        (select max(bought.mapped_at) from apify_runs as bought)
    ) as last_change,
    (
        select count(*) from songstats_backfill_queue as queue
        where queue.status = 'in_progress' and queue.heartbeat_at >= clock_timestamp() - make_interval(secs => %(claim_timeout)s)
    ) as being_bought,
    (
        select count(*) from songstats_backfill_queue as queue
        where
            queue.status = 'pending'
            and queue.attempts < %(max_attempts)s
            and queue.not_before > clock_timestamp()
            and queue.not_before <= clock_timestamp() + make_interval(secs => %(soon)s)
    ) as tried_again_soon,
    (
        select count(*) from playcount_snapshots as capture
        inner join run_heartbeats as owner on capture.claimed_by = owner.run_id
        where owner.beat_at >= clock_timestamp() - make_interval(secs => %(claim_timeout)s)
    ) as being_captured,
    (
        select count(*) from playcount_snapshots as capture
        where
            capture.state in ('queued', 'running')
            and coalesce(capture.not_before <= clock_timestamp() + make_interval(secs => %(soon)s), true)
    ) as captures_due,
    clock_timestamp() as now;

-- name: now
select clock_timestamp() as now;

-- Row count of each view: `rows_<view>`. Series and rates are counted without computing them.

-- name: rows_play_count_points
select count(*) as row_count
from song_measurements as measurement
where measurement.platform = 'spotify' and measurement.metric = %(play_count)s;

-- name: rows_latest_play_counts
select count(*) as row_count from analytics.latest_play_counts;

-- name: rows_daily_play_counts
select coalesce(sum(covered.days_expected), 0)::bigint as row_count from analytics.measurement_coverage as covered;

-- name: rows_run_rates
select count(*) * 3 as row_count
from songs as recording
where exists (select from analytics.measured_counts as counted where counted.song = recording.isrc);

-- name: rows_catalog_play_counts
select count(*) as row_count from catalog_songs;

-- name: rows_catalog_run_rates
select count(*) as row_count from catalog_songs;

-- name: rows_catalog_totals
select count(distinct listed.catalog) as row_count from catalog_songs as listed;

-- name: rows_measurement_coverage
select count(*) as row_count from songs;

-- name: rows_import_differences
select count(*) as row_count from analytics.import_differences;

-- name: rows_backfill_progress
select count(*) as row_count from analytics.backfill_progress;

-- name: rows_spend
select count(*) as row_count from analytics.spend;

-- name: rows_data_dictionary
select count(*) as row_count from analytics.data_dictionary;

-- name: columns
select
    entry.column_name,
    entry.type,
    entry.unit,
    entry.meaning,
    entry.source
from analytics.data_dictionary as entry
where entry.view_name = %(view)s
order by entry.position;

-- name: dictionary
select
    entry.view_name,
    entry.view_meaning,
    entry.column_name,
    entry.type,
    entry.unit,
    entry.meaning,
    entry.source
from analytics.data_dictionary as entry
order by entry.view_name, entry.position;

-- name: catalogs
select
    catalog.id,
    catalog.name
from catalogs as catalog
order by catalog.created_at desc, catalog.id asc
limit %(most)s;

-- name: totals
select * from analytics.catalog_totals where catalog = %(catalog)s; -- noqa: AM04

-- name: top
-- Most played recordings of a catalogue.
select
    counted.song,
    counted.title,
    counted.artist,
    counted.play_count,
    counted.day,
    counted.data_source,
    rate.plays_a_year,
    rate.why_none
from analytics.catalog_play_counts as counted
left join analytics.run_rates as rate on counted.song = rate.song and rate.window_days = 365
where counted.catalog = %(catalog)s and counted.is_measured
order by counted.play_count desc, counted.song asc
limit %(most)s;

-- name: not_measured
select
    counted.status,
    count(*) as recordings,
    coalesce(sum(counted.play_count), 0) as imported_play_count
from analytics.catalog_play_counts as counted
where counted.catalog = %(catalog)s and not counted.is_measured
group by counted.status
order by recordings desc, counted.status asc;

-- name: over_time
-- The catalogue's totals at days at a fixed distance, backwards from its last count. Each recording adds its latest count by that day;
-- `recordings` is how many have one. The cohort's total adds counts of exactly that day: a missing one lies on the straight line between
-- the counts before and after it. It is null before the first and after the last count of any member.
with members as materialized (
    select
        listed.song,
        listed.day as last_day,
        listed.is_measured,
        listed.is_in_cohort
    from analytics.catalog_run_rates as listed
    where listed.catalog = %(catalog)s
),

ends as (
    select max(members.last_day) as last_day
    from members
    where members.is_measured
)

select
    step.day,
    count(known.play_count) as recordings,
    coalesce(sum(known.play_count), 0) as play_count,
    case
        when count(on_day.play_count) filter (where members.is_in_cohort) = count(*) filter (where members.is_in_cohort)
            then sum(on_day.play_count) filter (where members.is_in_cohort)
    end as cohort_play_count
from ends
cross join generate_series(0, %(steps)s::int) as place (n)
cross join lateral (select ends.last_day - place.n * %(step_days)s::int as day) as step
cross join members
left join lateral analytics.latest_count_before(members.song, (step.day + 1)::timestamp at time zone 'UTC') as known on true
-- The next count. The moment is null, and nothing is read, unless a member of the cohort has no count of that day.
left join lateral analytics.first_count_since(
    members.song,
    case when members.is_in_cohort and known.day < step.day then (step.day + 1)::timestamp at time zone 'UTC' end
) as later on true
cross join lateral (
    select
        case
            when known.day = step.day then known.play_count
            else round(
                known.play_count
                + (later.play_count - known.play_count) * (step.day - known.day)::numeric / (later.day - known.day)
            )
        end as play_count
) as on_day
where ends.last_day is not null
group by step.day
having count(known.play_count) > 0
order by step.day;

-- name: coverage
-- Coverage of a catalogue's recordings, and what was spent on it.
select
    count(*) as recordings,
    count(covered.first_day) as measured,
    min(covered.first_day) as first_day,
    max(covered.last_day) as last_day,
    coalesce(sum(covered.days_expected), 0)::bigint as days_expected,
    coalesce(sum(covered.days_missing), 0)::bigint as days_missing,
    coalesce(sum(covered.restatements), 0)::bigint as restatements,
    coalesce(sum(covered.hits), 0)::bigint as hits,
    (
        select coalesce(sum(actor_run.cost_usd), 0)
        from playcount_snapshots as capture
        inner join apify_runs as actor_run on capture.id = actor_run.snapshot
        where capture.catalog = %(catalog)s and actor_run.status is distinct from 'NOT-STARTED'
    ) as captures_usd
from analytics.measurement_coverage as covered
inner join catalog_songs as listed on covered.song = listed.song
where listed.catalog = %(catalog)s;

-- name: warnings
-- How many of a catalogue's most played recordings have days with each warning flag.
select
    count(distinct daily.song) filter (where daily.is_negative) as with_falls,
    count(distinct daily.song) filter (where daily.is_rebound) as with_rebounds,
    count(distinct daily.song) filter (where daily.is_jump) as with_jumps,
    count(distinct daily.song) filter (where daily.is_gap_filled) as with_gaps,
    count(distinct daily.song) filter (where daily.is_restated) as with_restatements,
    count(distinct daily.song) filter (where daily.is_source_changed) as with_two_sources,
    count(distinct daily.song) as looked_at
from (
    select counted.song
    from analytics.catalog_play_counts as counted
    where counted.catalog = %(catalog)s and counted.is_measured
    order by counted.play_count desc
    limit %(most)s
) as chosen
inner join analytics.daily_play_counts as daily on chosen.song = daily.song;

-- name: import_differences
-- A catalogue's recordings whose imported count differs from the measured one, the largest differences first; `recordings` counts all.
select
    difference.song,
    difference.title,
    difference.artist,
    difference.imported_play_count,
    difference.imported_day,
    difference.imported_from,
    difference.measured_play_count,
    difference.measured_day,
    count(*) over () as recordings
from analytics.import_differences as difference
inner join catalog_songs as listed on difference.song = listed.song
where listed.catalog = %(catalog)s
order by abs(difference.difference) desc, difference.song asc
limit %(most)s;

-- name: future_dates
select
    latest.song,
    latest.day
from analytics.latest_play_counts as latest
where latest.day > (clock_timestamp() at time zone 'UTC')::date
order by latest.day desc, latest.song asc
limit %(most)s;

-- name: recent_series
-- Series of the recordings that were bought or captured last, not of all that are stored.
with recent as (
    select bought.song
    from (
        select
            ledger.song,
            max(ledger.settled_at) as at
        from songstats_quota_ledger as ledger
        where ledger.reason = 'stored' and ledger.settled_at > clock_timestamp() - interval '1 day'
        group by ledger.song
        union all
        select
            measurement.song,
            max(measurement.learnt_at) as at
        from song_measurements as measurement
        where
            measurement.snapshot in (
                select capture.id from playcount_snapshots as capture
                where capture.state = 'done' and capture.updated_at > clock_timestamp() - interval '1 day'
            )
        group by measurement.song
    ) as bought
    group by bought.song
    order by max(bought.at) desc
    limit %(most)s
)

select
    recent.song,
    count(*) filter (where daily.is_negative and not daily.is_gap_filled) as falls,
    -- Captures are weeks apart by design, so the days between them are not missing.
    coalesce(sum(daily.gap_days) filter (where daily.data_source = 'songstats'), 0)::int as days_missing,
    -- They do not count as days of the series either.
    count(*) filter (where not daily.is_gap_filled)
    + coalesce(sum(daily.gap_days) filter (where daily.data_source = 'songstats'), 0)::int as days,
    (array_agg(daily.play_count order by daily.day desc))[1] as last_count,
    latest.play_count as latest_count
from recent
inner join analytics.daily_play_counts as daily on recent.song = daily.song
inner join analytics.latest_play_counts as latest on recent.song = latest.song
group by recent.song, latest.play_count
order by recent.song;

-- name: source_differences
-- Days of the last week's captures with a count of both sources: how many, and those on which the counts differ widely.
with in_both as (
    select
        captured.song,
        (captured.captured_at at time zone 'UTC')::date as day,
        captured.value as displayed,
        bought.value as bought
    from playcount_snapshots as capture
    inner join song_measurements as captured on capture.id = captured.snapshot and captured.metric = %(play_count)s
    cross join lateral (
        select history.value
        from song_measurements as history
        where
            history.song = captured.song
            and history.platform = captured.platform
            and history.metric = captured.metric
            and history.data_source = 'songstats'
            and history.captured_at = date_trunc('day', captured.captured_at at time zone 'UTC') at time zone 'UTC'
        order by history.learnt_at desc
        limit 1
    ) as bought
    where capture.updated_at > clock_timestamp() - interval '7 days'
),

apart as (
    select *
    from in_both
    where abs(displayed - bought) > greatest(%(plays)s::numeric, %(share)s::numeric * bought)
    order by abs(displayed - bought)::numeric / greatest(bought, 1) desc, song asc
    limit %(most)s
)

select
    (select count(*) from in_both) as looked_at,
    (
        select coalesce(jsonb_agg(to_jsonb(apart)), '[]'::jsonb)
        from apart
    ) as apart;

-- name: total_mismatches
-- Catalogues whose total differs from the sum of their recordings. Computed from the tables alone, as a check of the views.
with recomputed as (
    select
        listed.catalog,
        count(*) as recordings,
        coalesce(sum(newest.value), 0) as play_count
    from catalog_songs as listed
    left join lateral (
        select measurement.value
        from song_measurements as measurement
        where
            measurement.song = listed.song
            and measurement.platform = 'spotify'
            and measurement.metric = %(play_count)s
            and measurement.data_source in ('songstats', 'apify_spotify_playcount')
        order by measurement.captured_at desc, measurement.data_source asc, measurement.learnt_at desc
        limit 1
    ) as newest on true
    group by listed.catalog
)

select
    coalesce(total.catalog, recomputed.catalog) as catalog,
    total.catalog_name,
    total.play_count,
    recomputed.play_count as adds_up_to,
    total.recordings,
    recomputed.recordings as holds
from recomputed
full join analytics.catalog_totals as total on recomputed.catalog = total.catalog
where
    total.play_count is distinct from recomputed.play_count
    or total.recordings is distinct from recomputed.recordings
    or total.recordings <> total.recordings_measured + total.recordings_not_measured
order by total.catalog_name
limit %(most)s;

-- name: series
-- All series of a catalogue, recording by recording. For a cursor: the result may not fit into memory.
select daily.* -- noqa: AM04
from analytics.daily_play_counts as daily
inner join catalog_songs as listed on daily.song = listed.song
where listed.catalog = %(catalog)s
order by daily.song, daily.day;

-- name: recordings
select counted.* -- noqa: AM04
from analytics.catalog_play_counts as counted
where counted.catalog = %(catalog)s
order by counted.song;
