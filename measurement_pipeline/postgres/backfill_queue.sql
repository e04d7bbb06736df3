-- The backfill queue: which rows are due, and every change that a run makes to a row.
--
-- A row is due when all hold:
--   * it is pending, or in_progress with a heartbeat older than the claim timeout (abandoned: the claim takes it over);
--   * its not_before has passed;
--   * an account can pay for it (songstats_payers), and it has attempts left;
--   * or a paid response is stored that was not parsed yet (songstats_unread_responses): parsing needs no payer and no attempt;
-- and the deployment may call at all (songstats_call_gate). The budget is checked separately, since it is a number.
-- The planner reads due rows by account (`account_shares.sql`). For a run that has not called yet, `claim` states the same condition. A
-- test holds their results equal.
--
-- Multi-row locks always follow `song` order, which prevents deadlocks.

-- name: claim
with candidate as materialized (
    -- Materialized: an inlined plan may take more rows than the limit. Skip locked: two runs never wait for or share a row.
    select queue.song
    from songstats_backfill_queue as queue
    where
        queue.song = any(%(songs)s)
        and (
            queue.status = 'pending'
            or (
                queue.status = 'in_progress'
                and queue.heartbeat_at < clock_timestamp() - make_interval(secs => %(claim_timeout)s)
            )
        )
        and (%(ignore_not_before)s or queue.not_before is null or queue.not_before <= clock_timestamp())
        and (
            (
                -- A run counts one attempt however often it calls, and this run still retries.
                (queue.attempts < %(max_attempts)s or queue.attempt_run = %(run)s)
                -- Not `exists`: PostgreSQL may answer that by reading everything payable, to look up a few hundred rows.
                and coalesce(
                    (select true from songstats_payers(%(operators_account)s) as payer where payer.song = queue.song limit 1), false
                )
            )
            or exists (select from songstats_unread_responses as unread where unread.song = queue.song)
        )
        and exists (select from songstats_call_gate as gate where gate.is_open)
    order by queue.rank_score desc, coalesce(queue.requeued_at, queue.created_at) asc, queue.song asc
    limit %(limit)s
    for update of queue skip locked
),

claimed as (
    update songstats_backfill_queue as queue
    set
        status = 'in_progress',
        lease = queue.lease + 1,
        claimed_by = %(run)s,
        last_run = %(run)s,
        claimed_at = clock_timestamp(),
        heartbeat_at = clock_timestamp(),
        not_before = null,
        updated_at = clock_timestamp()
    from candidate
    where queue.song = candidate.song
    returning queue.song, queue.lease, queue.attempts, queue.rank_score, coalesce(queue.requeued_at, queue.created_at) as waiting_since
)

select
    claimed.song,
    claimed.lease,
    claimed.attempts,
    -- Paid but not parsed: the run crashed between storing the response and storing its measurements.
    unread.id as unread_response,
    exists(
        select from song_measurements as measurement
        where measurement.song = claimed.song and measurement.platform = 'spotify' and measurement.data_source = 'songstats'
    ) as has_history
from claimed
left join lateral (
    select response.id
    from songstats_unread_responses as response
    where response.song = claimed.song
    order by response.id desc
    limit 1
) as unread on true
order by claimed.rank_score desc, claimed.waiting_since asc, claimed.song asc;

-- name: rows
select
    queue.song,
    queue.status,
    queue.outcome,
    queue.claimed_by,
    queue.not_before,
    queue.last_error,
    (
        queue.status = 'in_progress'
        and queue.heartbeat_at >= clock_timestamp() - make_interval(secs => %(claim_timeout)s)
    ) as is_alive
from songstats_backfill_queue as queue
where queue.song = any(%(songs)s);

-- name: heartbeat
-- Returns the rows that this run still owns under these leases. The run must stop work on all others.
with held as (
    select queue.song
    from songstats_backfill_queue as queue
    inner join unnest(%(songs)s::text[], %(leases)s::bigint[]) as claim (song, lease)
        on queue.song = claim.song and queue.lease = claim.lease
    where queue.status = 'in_progress' and queue.claimed_by = %(run)s
    order by queue.song
    for update of queue
)

update songstats_backfill_queue as queue
set heartbeat_at = clock_timestamp()
from held
where queue.song = held.song
returning queue.song;

-- name: settle
-- One statement, so one transaction. Rows change only under their lease; measurements and parsed responses are recorded only for
-- rows that changed. A stale owner changes nothing.
with settlement as materialized (
    select *
    from unnest(
        %(songs)s::text[], %(leases)s::bigint[], %(statuses)s::text[], %(outcomes)s::text[], %(waits)s::double precision[],
        %(attempts_back)s::boolean[], %(status_codes)s::int[], %(errors)s::text[], %(responses)s::bigint[], %(causes)s::text[]
    ) as t (song, lease, status, outcome, wait, attempt_back, status_code, error, response, cause)
),

held as materialized (
    select
        settlement.song,
        settlement.response,
        -- Not if another call of this run for the row brought a result: that call was an attempt.
        settlement.attempt_back
        and queue.attempt_run = %(run)s
        and not exists (
            select from songstats_quota_ledger as ledger
            where
                ledger.song = queue.song
                and ledger.run_id = %(run)s
                and ledger.settled_at is not null
                and coalesce(ledger.reason not in ('throttled', 'refused key'), true)
                -- With a status, but whether it was billed is unknown: something other than Songstats answered.
                and not coalesce(
                    ledger.reason = 'transient'
                    and (ledger.billable is null or ledger.reconciled_at is not null)
                    and ledger.status_code is not null,
                    false
                )
        ) as gives_attempt_back
    from settlement
    inner join songstats_backfill_queue as queue on settlement.song = queue.song and settlement.lease = queue.lease
    where queue.status = 'in_progress' and queue.claimed_by = %(run)s
    order by queue.song
    for update of queue
),

settled as (
    update songstats_backfill_queue as queue
    set
        status = settlement.status,
        outcome = settlement.outcome,
        claimed_by = null,
        claimed_at = case when settlement.status = 'pending' then null else queue.claimed_at end,
        heartbeat_at = null,
        not_before = clock_timestamp() + make_interval(secs => settlement.wait),
        attempts = queue.attempts - coalesce(held.gives_attempt_back, false)::int,
        attempt_run = case when held.gives_attempt_back then null else queue.attempt_run end,
        last_status_code = coalesce(settlement.status_code, queue.last_status_code),
        last_error = settlement.error,
        updated_at = clock_timestamp()
    from settlement
    inner join held on settlement.song = held.song
    where queue.song = held.song
    returning queue.song, queue.status
),

marked as (
    update songstats_responses as response
    set parser_version = %(parser_version)s
    from held
    where response.id = held.response
),

explained as (
    -- The cause of a 200 is known only once it is parsed. It is recorded under any lease: every hit needs its cause.
    update songstats_quota_ledger as ledger
    set reason = settlement.cause
    from settlement
    inner join songstats_responses as response on settlement.response = response.id
    where ledger.id = response.ledger
),

point as (
    select
        series.song,
        series.metric,
        series.raw_ref,
        points.day::timestamp at time zone 'UTC' as captured_at,
        points.value
    from unnest(%(series_songs)s::text[], %(metrics)s::text[], %(raw_refs)s::text[], %(days)b::text[], %(values)b::text[])
        as series (song, metric, raw_ref, days, "values")
    inner join held on series.song = held.song
    cross join lateral unnest(series.days::date[], series."values"::bigint[]) as points (day, value)
),

newest as materialized (
    select distinct on (measurement.song, measurement.metric, measurement.captured_at)
        measurement.song,
        measurement.metric,
        measurement.captured_at,
        measurement.value,
        measurement.learnt_at
    from song_measurements as measurement
    where
        measurement.song in (select held.song from held)
        and measurement.platform = 'spotify'
        and measurement.data_source = 'songstats'
    order by measurement.song asc, measurement.metric asc, measurement.captured_at asc, measurement.learnt_at desc
),

stored as (
    insert into song_measurements (song, platform, metric, captured_at, data_source, value, raw_ref, learnt_at)
    select
        point.song,
        'spotify',
        point.metric,
        point.captured_at,
        'songstats',
        point.value,
        point.raw_ref,
        -- Later than what it restates, also where the clock was set back in between.
        greatest(now(), newest.learnt_at + interval '1 microsecond')
    from point
    left join newest
        on point.song = newest.song and point.metric = newest.metric and point.captured_at = newest.captured_at
    where newest.value is distinct from point.value
)

select settled.song
from settled;

-- name: release
-- Rows that this run claimed and did not settle. A counted attempt stays counted: the run may have called.
with held as (
    select queue.song
    from songstats_backfill_queue as queue
    where queue.status = 'in_progress' and queue.claimed_by = %(run)s
    order by queue.song
    for update
)

update songstats_backfill_queue as queue
set
    status = 'pending',
    claimed_by = null,
    claimed_at = null,
    heartbeat_at = null,
    updated_at = clock_timestamp()
from held
where queue.song = held.song
returning queue.song;

-- name: launch
-- Mark rows that an operator launched, so that the operators' account pays. Absent rows are inserted.
insert into songstats_backfill_queue (song, operator_launched)
select
    song,
    true
from unnest(%(songs)s::text[]) as launched (song)
order by song
on conflict (song) do update set operator_launched = true
where not songstats_backfill_queue.operator_launched;

-- name: payers
-- Accounts whose payment decision a run has to refresh: those that want these recordings, allowed or not.
select distinct wanted.account
from songstats_wanted as wanted
inner join songstats_backfill_queue as queue on wanted.song = queue.song
where
    wanted.song = any(%(songs)s)
    and queue.status in ('pending', 'in_progress', 'failed');

-- name: requests
-- The open requests that want any of these recordings.
select distinct wanted.job as id
from songstats_wanted as wanted
where wanted.song = any(%(songs)s);

-- name: counts
select
    count(*) filter (where status = 'pending') as pending,
    count(*) filter (where status = 'in_progress') as in_progress,
    count(*) filter (where status = 'done') as done,
    count(*) filter (where status = 'failed') as failed,
    count(*) filter (where outcome = 'stored') as stored,
    count(*) filter (where outcome = 'no_history') as no_history,
    count(*) filter (where outcome = 'rejected') as rejected,
    count(*) filter (where outcome = 'malformed') as malformed,
    count(*) filter (where outcome = 'exhausted') as exhausted,
    count(*) filter (where outcome = 'transient') as transient,
    count(*) filter (where suspect) as suspect,
    min(coalesce(requeued_at, created_at)) filter (where status = 'pending') as oldest_pending,
    min(not_before) filter (where status = 'pending' and not_before > clock_timestamp()) as next_retry_at,
    count(*) filter (where status = 'pending' and not_before > clock_timestamp()) as waiting
from songstats_backfill_queue;

-- name: upcoming
-- Titles are joined after the limit: joining them to all open rows costs more than selecting the rows.
select
    upcoming.song,
    song.name,
    song.artist,
    upcoming.rank_score,
    upcoming.status,
    upcoming.attempts,
    upcoming.not_before,
    upcoming.claimed_by,
    upcoming.last_error
from (
    select
        queue.*,
        coalesce(queue.requeued_at, queue.created_at) as waiting_since
    from songstats_open_rows as queue
    where queue.is_wanted or queue.has_unread_response
    order by queue.rank_score desc, waiting_since asc, queue.song asc
    limit %(limit)s
) as upcoming
inner join songs as song on upcoming.song = song.isrc
order by upcoming.rank_score desc, upcoming.waiting_since asc, upcoming.song asc;

-- name: unwanted
-- Open rows that `upcoming` leaves out: their requests were withdrawn, and they have no unparsed response.
select count(*) as unwanted
from songstats_open_rows as queue
where not queue.is_wanted and not queue.has_unread_response;

-- name: exhaust
-- Fail rows that have used all attempts, crashes included: no run claims them, so no other statement would. Rows with a future
-- not_before are skipped: the run that counted their last attempt will call once more.
with used_up as (
    select queue.song
    from songstats_backfill_queue as queue
    where
        queue.attempts >= %(max_attempts)s
        and (%(spared_run)s::text is null or queue.attempt_run is distinct from %(spared_run)s)
        and (
            (queue.status = 'pending' and coalesce(queue.not_before <= clock_timestamp(), true))
            or (queue.status = 'failed' and queue.outcome = 'transient')
            or (
                queue.status = 'in_progress'
                and queue.heartbeat_at < clock_timestamp() - make_interval(secs => %(claim_timeout)s)
            )
        )
        and not exists (select from songstats_unread_responses as unread where unread.song = queue.song)
    order by queue.song
    for update skip locked
)

update songstats_backfill_queue as queue
set
    status = 'failed',
    outcome = 'exhausted',
    claimed_by = null,
    heartbeat_at = null,
    last_error = coalesce(queue.last_error, 'its runs ended before a response was settled'),
    updated_at = clock_timestamp()
from used_up
where queue.song = used_up.song
returning queue.song;

-- name: failed_by
-- Rows that a run left failed, in any of its retries.
select
    queue.song,
    queue.outcome
from songstats_backfill_queue as queue
where queue.song = any(%(songs)s) and queue.last_run = %(run)s and queue.status = 'failed';

-- name: reclaim_transient
-- Transient failures with attempts left, and settled rows with a paid response that was not parsed, unless a history is stored.
-- The latter were settled while the call of an earlier owner was in flight.
with chosen as (
    select queue.song
    from songstats_backfill_queue as queue
    where
        (queue.status = 'failed' and queue.outcome = 'transient' and queue.attempts < %(max_attempts)s)
        or (
            queue.status in ('done', 'failed')
            and queue.outcome <> 'stored'
            and exists (select from songstats_unread_responses as unread where unread.song = queue.song)
        )
    order by queue.song
    for update
)

update songstats_backfill_queue as queue
set
    status = 'pending',
    outcome = null,
    not_before = null,
    requeued_at = clock_timestamp(),
    updated_at = clock_timestamp()
from chosen
where queue.song = chosen.song
returning queue.song;

-- name: reclaim_malformed
-- A newer parser reads the stored responses again. No hit is spent.
with chosen as materialized (
    select
        queue.song,
        (
            select max(response.id) from songstats_responses as response
            where response.song = queue.song
        ) as response
    from songstats_backfill_queue as queue
    where queue.status = 'failed' and queue.outcome = 'malformed'
    order by queue.song
    for update
),

unread as (
    update songstats_responses as response
    set parser_version = null
    from chosen
    where response.id = chosen.response and response.parser_version < %(parser_version)s
    returning response.song
)

update songstats_backfill_queue as queue
set
    status = 'pending',
    outcome = null,
    not_before = null,
    requeued_at = clock_timestamp(),
    updated_at = clock_timestamp()
from unread
where queue.song = unread.song
returning queue.song;

-- name: done
select
    queue.song,
    queue.outcome
from songstats_backfill_queue as queue
where queue.status = 'done';

-- name: choose
-- The rows that an operator's requeue selects. Nothing is changed.
select
    queue.song,
    queue.outcome,
    queue.status
from songstats_backfill_queue as queue
where
    queue.status in ('done', 'failed')
    and queue.outcome is distinct from 'stored'
    and (%(outcome)s::text is null or queue.outcome = %(outcome)s)
    and (not %(suspect)s or queue.suspect)
    and (
        %(catalog)s::uuid is null
        or queue.song in (select listed.song from catalog_songs as listed where listed.catalog = %(catalog)s)
    )
    and (%(isrcs)s::text[] is null or queue.song = any(%(isrcs)s))
    and (%(older_than_seconds)s::double precision is null or queue.updated_at < now() - make_interval(secs => %(older_than_seconds)s))
order by queue.song;

-- name: requeue
with chosen as materialized (
    select
        queue.song,
        queue.outcome
    from songstats_backfill_queue as queue
    where
        queue.song = any(%(songs)s)
        and queue.status in ('done', 'failed')
        and queue.outcome is distinct from 'stored'
    order by queue.song
    for update
),

unread as (
    update songstats_responses as response
    set parser_version = null
    where
        not %(rebuy)s
        and response.id in (
            select max(kept.id)
            from songstats_responses as kept
            inner join chosen on kept.song = chosen.song
            where chosen.outcome = 'malformed'
            group by kept.song
        )
)

update songstats_backfill_queue as queue
set
    status = 'pending',
    outcome = null,
    attempts = 0,
    attempt_run = null,
    not_before = null,
    suspect = false,
    operator_launched = true,
    requeued_at = clock_timestamp(),
    updated_at = clock_timestamp()
from chosen
where queue.song = chosen.song
returning queue.song;
