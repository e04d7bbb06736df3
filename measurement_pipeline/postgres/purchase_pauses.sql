-- Operators' pauses of purchases. `active_purchase_pauses` says which ones hold; reservations and starts read it under their lock.

-- name: lock
-- The locks of `reserve` and of the actor's start. A reservation that has begun ends before the pause begins; a later one sees it.
select
    pg_advisory_xact_lock(hashtextextended('songstats_quota', 0)),
    pg_advisory_xact_lock(hashtextextended('apify_starts', 0));

-- name: begin
insert into purchase_pauses (account, vendor, reason, paused_by, paused_until)
select
    %(account)s,
    %(vendor)s,
    %(reason)s,
    %(actor)s,
    %(until)s
where %(until)s::timestamptz is null or %(until)s::timestamptz > clock_timestamp()
returning account, vendor, reason, paused_by, paused_at, paused_until;

-- name: end
-- The pauses that still hold for exactly this scope.
update purchase_pauses
set
    resumed_at = clock_timestamp(),
    resumed_by = %(actor)s
where
    id in (select active.id from active_purchase_pauses as active)
    and account is not distinct from %(account)s
    and vendor is not distinct from %(vendor)s
returning account, vendor, reason, paused_by, paused_at, paused_until;

-- name: active
select
    account,
    vendor,
    reason,
    paused_by,
    paused_at,
    paused_until
from active_purchase_pauses
order by account nulls first, vendor nulls first, paused_at;

-- name: of_songstats
-- Of the pauses that stop every call to Songstats, the one that ends last.
select
    account,
    vendor,
    reason,
    paused_by,
    paused_at,
    paused_until
from active_purchase_pauses
where stops_songstats
order by paused_until desc nulls first, id desc
limit 1;

-- name: of_capture
-- What stops an actor run of this capture: a pause of everything first, then of Apify, then of its account.
select
    account,
    vendor,
    reason,
    paused_by,
    paused_at,
    paused_until
from active_purchase_pauses
where stops_apify or account = (select captured.account from playcount_snapshots as captured where captured.id = %(snapshot)s)
order by account nulls first, vendor nulls first, paused_at
limit 1;

-- name: of_job
select
    account,
    vendor,
    reason,
    paused_by,
    paused_at,
    paused_until
from active_purchase_pauses
where account = %(account)s or case when %(source)s = 'current' then stops_apify else stops_songstats end
order by paused_until desc nulls first, id desc
limit 1;

-- name: of_open_captures
select
    account,
    vendor,
    reason,
    paused_by,
    paused_at,
    paused_until
from active_purchase_pauses as pause
where
    exists (
        select from playcount_snapshots as captured
        where captured.state in ('queued', 'running') and (pause.stops_apify or pause.account = captured.account)
    )
order by account nulls first, vendor nulls first, paused_at;

-- name: songs
-- Of these recordings, those that a paused account wants or, launched by an operator, would pay for.
select distinct on (paused.song)
    paused.song,
    pause.account,
    pause.vendor,
    pause.reason,
    pause.paused_by,
    pause.paused_at,
    pause.paused_until
from (
    select
        wanted.song,
        wanted.account
    from songstats_wanted as wanted
    where wanted.song = any(%(songs)s)
    union all
    select
        queue.song,
        %(operators_account)s::uuid
    from songstats_backfill_queue as queue
    where queue.song = any(%(songs)s) and queue.operator_launched
) as paused
inner join active_purchase_pauses as pause on paused.account = pause.account
order by paused.song asc, pause.paused_until desc nulls first;

-- name: recent
select
    account,
    vendor,
    reason,
    paused_by,
    paused_at,
    paused_until,
    resumed_at,
    resumed_by,
    id in (select active.id from active_purchase_pauses as active) as is_active
from purchase_pauses
where (%(account)s::uuid is null or account = %(account)s)
order by id desc
limit %(limit)s;
