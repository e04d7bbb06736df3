-- One definition for each rule that several statements or views share.
--
-- The functions are plain SQL, so that PostgreSQL plans them as part of the query that calls them. Their parameters are qualified with
-- the function's name, which the linter takes for a table. -- noqa: disable=RF01

-- --- who wants a recording, and who pays for it

create view songstats_wanted as
select
    asked.song,
    request.id as job,
    request.account,
    request.created_at
from measurement_job_songs as asked
inner join measurement_jobs as request on asked.job = request.id
where request.state = 'accepted';

create function songstats_payers(operators_account uuid)
returns table (song text, job uuid, account uuid, created_at timestamptz, checked_at timestamptz)
language sql stable parallel safe
begin atomic
select
    wanted.song,
    wanted.job,
    wanted.account,
    wanted.created_at,
    decision.checked_at
from songstats_wanted as wanted
inner join payment_decisions as decision on wanted.account = decision.account
where decision.verdict = 'allowed'
union all
select
    queue.song,
    null as job,
    decision.account,
    null as created_at,
    decision.checked_at
from songstats_backfill_queue as queue
cross join payment_decisions as decision
where
    queue.operator_launched
    and decision.account = songstats_payers.operators_account
    and decision.verdict = 'allowed';
end;
comment on function songstats_payers is 'Who can pay for a recording now: each accepted request of an account with an allowed payment decision, and the operators'' account for what an operator launched (job and created_at are null). The earliest request pays; the operators'' account pays only where no request does.';
drop view songstats_payable;

create view songstats_open_rows as
select
    queue.song,
    queue.rank_score,
    queue.status,
    queue.attempts,
    queue.lease,
    queue.claimed_by,
    queue.not_before,
    queue.last_error,
    queue.operator_launched,
    queue.requeued_at,
    queue.created_at,
    queue.operator_launched or wanted.song is not null as is_wanted,
    unread.song is not null as has_unread_response
from songstats_backfill_queue as queue
-- Joined: PostgreSQL would look up an exists() row by row.
left join (select distinct request.song from songstats_wanted as request) as wanted on queue.song = wanted.song
left join (
    select distinct response.song from songstats_responses as response
    where response.parser_version is null
) as unread on queue.song = unread.song
where queue.status in ('pending', 'in_progress');

-- --- the latest count and the run rate
--
-- In the analysts' schema: a function reads its tables with the caller's rights, and analysts may read this schema only. Made here
-- and not with the views of views/: the HTTP API uses them, and must not wait for an upgrade that waits for an analyst's query.

create view analytics.measured_counts as
select
    measurement.song,
    measurement.captured_at,
    (measurement.captured_at at time zone 'UTC')::date as day,
    measurement.data_source,
    measurement.learnt_at,
    measurement.value as play_count
from song_measurements as measurement
where
    measurement.platform = 'spotify'
    and measurement.metric = 'platform_displayed_play_count'
    and measurement.data_source <> 'import';
comment on view analytics.measured_counts is 'Every measured play count, restatements included. Imported counts are not measured.';
comment on column analytics.measured_counts.song is 'The recording. | unit: ISRC | source: song_measurements.song';
comment on column analytics.measured_counts.captured_at is 'The moment that the count is for. | unit: time | source: song_measurements.captured_at';
comment on column analytics.measured_counts.day is 'The day that the count is for. | unit: UTC date | source: song_measurements.captured_at';
comment on column analytics.measured_counts.data_source is 'Where the count came from: songstats or apify_spotify_playcount. | unit: name | source: song_measurements.data_source';
comment on column analytics.measured_counts.learnt_at is 'When the count was stored here. | unit: time | source: song_measurements.learnt_at';
comment on column analytics.measured_counts.play_count is 'All plays since release. | unit: plays | source: song_measurements.value';

create function analytics.latest_count_before(recording text, moment timestamptz)
returns setof analytics.measured_counts
language sql stable parallel safe
begin atomic
select
    counted.song,
    counted.captured_at,
    counted.day,
    counted.data_source,
    counted.learnt_at,
    counted.play_count
from analytics.measured_counts as counted
where counted.song = latest_count_before.recording and counted.captured_at < latest_count_before.moment
-- At one moment the displayed count is preferred: its source sorts before songstats. Of restatements the newest counts.
order by counted.captured_at desc, counted.data_source asc, counted.learnt_at desc
limit 1;
end;
comment on function analytics.latest_count_before is 'The latest measured count of a recording before a moment. ''infinity'': its latest count.';

create function analytics.first_count_since(recording text, moment timestamptz)
returns setof analytics.measured_counts
language sql stable parallel safe
begin atomic
select
    counted.song,
    counted.captured_at,
    counted.day,
    counted.data_source,
    counted.learnt_at,
    counted.play_count
from analytics.measured_counts as counted
where counted.song = first_count_since.recording and counted.captured_at >= first_count_since.moment
order by counted.captured_at asc, counted.data_source asc, counted.learnt_at desc
limit 1;
end;
comment on function analytics.first_count_since is 'The first measured count of a recording at or after a moment.';

create or replace view latest_counts as
select
    recording.isrc as song,
    recording.name,
    recording.artist,
    recording.album,
    coalesce(measured.play_count, imported.value) as play_count,
    coalesce(measured.captured_at, imported.captured_at) as captured_at,
    coalesce(measured.data_source, imported.data_source) as data_source,
    coalesce(measured.learnt_at, imported.learnt_at) as learnt_at
from songs as recording
left join lateral analytics.latest_count_before(recording.isrc, 'infinity') as measured on true
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

-- Counts are cumulative, so the counts at both ends of a window are enough. The first day's count is its own, or lies on a straight
-- line between the nearest counts before and after it where these are at most 35 days apart: captures run every 30 days, some late.
create function analytics.run_rates_over(recording text, windows int[])
returns table (
    window_days int,
    days_covered int,
    plays bigint,
    plays_a_year numeric,
    why_none text,
    is_interpolated boolean,
    is_source_changed boolean,
    last_captured_at timestamptz,
    last_play_count bigint,
    last_data_source text,
    first_captured_at timestamptz,
    first_play_count bigint,
    first_data_source text,
    next_captured_at timestamptz,
    next_play_count bigint,
    next_data_source text
)
language sql stable parallel safe
begin atomic
select
    span.window_days,
    case when judged.is_covered then span.window_days else last.day - next.day end as days_covered,
    last.play_count - begins.play_count as plays,
    round((last.play_count - begins.play_count) * 365.0 / span.window_days) as plays_a_year,
    case
        when judged.is_covered then null
        when first.day is null then 'the history begins on ' || to_char(next.day, 'YYYY-MM-DD')
        else 'no figure between ' || to_char(first.day, 'YYYY-MM-DD') || ' and ' || to_char(next.day, 'YYYY-MM-DD')
    end as why_none,
    judged.is_covered and not judged.is_exact as is_interpolated,
    judged.is_covered
    and (
        first.data_source <> last.data_source
        or (not judged.is_exact and next.data_source <> last.data_source)
    ) as is_source_changed,
    last.captured_at as last_captured_at,
    last.play_count as last_play_count,
    last.data_source as last_data_source,
    first.captured_at as first_captured_at,
    first.play_count as first_play_count,
    first.data_source as first_data_source,
    next.captured_at as next_captured_at,
    next.play_count as next_play_count,
    next.data_source as next_data_source
from analytics.latest_count_before(run_rates_over.recording, 'infinity') as last
cross join lateral (
    select
        whole.days as window_days,
        last.day - whole.days as first_day
    from unnest(run_rates_over.windows) as whole (days)
) as span
-- The count of the window's first day, or the last one before it.
left join lateral analytics.latest_count_before(
    run_rates_over.recording, (span.first_day + 1)::timestamp at time zone 'UTC'
) as first on true
-- The next count. Where the first day has a count of its own the moment is null, and nothing is read.
left join lateral analytics.first_count_since(
    run_rates_over.recording,
    case when first.day is distinct from span.first_day then (span.first_day + 1)::timestamp at time zone 'UTC' end
) as next on true
cross join lateral (
    select
        coalesce(first.day = span.first_day, false) as is_exact,
        coalesce(first.day = span.first_day or next.day - first.day <= 35, false) as is_covered
) as judged
cross join lateral (
    select
        case
            when judged.is_exact then first.play_count
            when judged.is_covered then round(
                first.play_count
                + (next.play_count - first.play_count) * (span.first_day - first.day)::numeric / (next.day - first.day)
            )::bigint
        end as play_count
) as begins;
end;
comment on function analytics.run_rates_over is 'The plays of a recording over the windows of so many days up to its last measured count. No row: nothing was measured. Plays are null, with the reason, where the counts do not cover the window.';
