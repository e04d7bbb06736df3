-- Hits and their results: reservations, stored responses, and the deployment's breaker, pause and pace.

-- name: reserve_lock
-- A separate statement, before the one that counts. In one statement the snapshot would be older than the wait for the lock, and
-- two runs could both take the last hit.
select pg_advisory_xact_lock(hashtextextended('songstats_quota', 0));

-- name: set_reserve_lock_timeout
-- A session that holds the lock or the rows for longer fails the run: a run that waits forever looks like one that works.
set local lock_timeout = '30s';

-- name: set_lock_timeout
-- Applies to this transaction only.
select set_config('lock_timeout', %(milliseconds)s, true);

-- name: reserve
with asked as materialized (
    select *
    from unnest(%(songs)s::text[], %(leases)s::bigint[]) with ordinality as t (song, lease, place)
),

held as materialized (
    select
        asked.song,
        asked.lease,
        asked.place
    from asked
    inner join songstats_backfill_queue as queue on asked.song = queue.song and asked.lease = queue.lease
    where
        queue.status = 'in_progress'
        and queue.claimed_by = %(run)s
        -- If the call of an earlier owner was answered since the claim, its response is parsed and no hit is spent.
        and not exists (select from songstats_unread_responses as unread where unread.song = queue.song)
    order by queue.song
    for update of queue
),

payer as (
    select
        held.song,
        held.lease,
        held.place,
        pays.account,
        pays.job,
        -- A future date was written before the clock was set back: its age is unknown, so it is not fresh.
        pays.checked_at > clock_timestamp() - make_interval(secs => %(allowed_serves)s)
        and pays.checked_at <= clock_timestamp() + interval '1 minute' as fresh
    from held
    left join lateral (
        select
            candidate.account,
            candidate.job,
            candidate.checked_at
        from songstats_payers(%(operators_account)s) as candidate
        where candidate.song = held.song
        -- The operators' own account, which has no request, pays only where no request does.
        order by candidate.created_at asc nulls last, candidate.job asc
        limit 1
    ) as pays on true
),

budget as (
    select %(hits_allowed)s - count(*) as hits_left
    from songstats_quota_ledger
    where reserved_at > clock_timestamp() - interval '30 days' and billable is distinct from false
),

-- Each payer's own limit, where it has one. Counted under the lock, as the budget is.
capped as (
    select
        account.id as account,
        account.monthly_hit_cap - count(ledger.id) as hits_left
    from accounts as account
    left join songstats_quota_ledger as ledger
        on
            account.id = ledger.account
            and ledger.reserved_at > clock_timestamp() - interval '30 days'
            and ledger.billable is distinct from false
    where account.monthly_hit_cap is not null and account.id in (select payer.account from payer)
    group by account.id
),

allowed as (
    select
        payer.*,
        coalesce(row_number() over (partition by payer.account order by payer.place) <= capped.hits_left, true) as is_within_cap
    from payer
    left join capped on payer.account = capped.account
),

granted as (
    select
        allowed.song,
        allowed.lease,
        allowed.account,
        allowed.job
    from allowed
    cross join songstats_call_gate as gate
    where gate.is_open and allowed.account is not null and allowed.fresh and allowed.is_within_cap
    order by allowed.place
    limit (select greatest(hits_left, 0) from budget)
),

written as (
    insert into songstats_quota_ledger (song, account, job, run_id, lease)
    select
        song,
        account,
        job,
        %(run)s,
        lease
    from granted
    returning id, song
),

counted as (
    update songstats_backfill_queue as queue
    set
        attempts = queue.attempts + 1,
        attempt_run = %(run)s
    from written
    where queue.song = written.song and queue.attempt_run is distinct from %(run)s
    returning queue.song, queue.attempts
)

select
    asked.song,
    allowed.account,
    allowed.job,
    written.id as ledger,
    counted.attempts,
    case
        when allowed.song is null then 'lost'
        when not gate.is_open then 'closed'
        when
            allowed.account is null and exists (
                select from songstats_wanted as wanted
                inner join active_purchase_pauses as pause on wanted.account = pause.account
                where wanted.song = asked.song
            )
            then 'paused'
        when allowed.account is null then 'unpaid'
        when not allowed.fresh then 'stale'
        when not allowed.is_within_cap then 'capped'
        when written.id is null then 'budget'
        else 'reserved'
    end as verdict
from asked
cross join songstats_call_gate as gate
left join allowed on asked.song = allowed.song
left join written on asked.song = written.song
left join counted on asked.song = counted.song
order by asked.place;

-- name: keep
-- The response and its settled hit commit together, under any lease: a paid response is never discarded.
with answered as materialized (
    select *
    from unnest(
        %(ledgers)s::bigint[], %(status_codes)s::int[], %(billables)s::boolean[], %(reasons)s::text[],
        %(headers)s::jsonb[], %(digests)s::text[], %(bodies)b::bytea[]
    ) as t (ledger, status_code, billable, reason, headers, sha256, body)
),

uncounted_attempts as (
    -- Rows whose run was throttled, refused, or answered by something other than Songstats, and for which no other call of the run
    -- brought a result. That is not an attempt, even if the run dies before it settles the rows.
    select
        queue.song,
        queue.attempt_run
    from answered
    inner join songstats_quota_ledger as ledger on answered.ledger = ledger.id
    inner join songstats_backfill_queue as queue on ledger.song = queue.song and ledger.run_id = queue.attempt_run
    where
        (
            answered.reason in ('throttled', 'refused key')
            or (answered.reason = 'transient' and answered.billable is null and answered.status_code is not null)
        )
        and not exists (
            select from songstats_quota_ledger as other
            where
                other.song = queue.song
                and other.run_id = queue.attempt_run
                and other.id <> ledger.id
                and other.settled_at is not null
                and coalesce(other.reason not in ('throttled', 'refused key'), true)
                and not coalesce(
                    other.reason = 'transient'
                    and (other.billable is null or other.reconciled_at is not null)
                    and other.status_code is not null,
                    false
                )
        )
    order by queue.song
    for update of queue
),

returned_attempts as (
    update songstats_backfill_queue as queue
    set
        attempts = queue.attempts - 1,
        attempt_run = null
    from uncounted_attempts
    where queue.song = uncounted_attempts.song and queue.attempt_run = uncounted_attempts.attempt_run
),

settled as (
    update songstats_quota_ledger as ledger
    set
        settled_at = clock_timestamp(),
        status_code = answered.status_code,
        billable = answered.billable,
        reason = answered.reason,
        reconciled_at = null
    from answered
    where ledger.id = answered.ledger
    returning ledger.id, ledger.song
)

insert into songstats_responses (song, ledger, status_code, headers, sha256, body)
select
    settled.song,
    settled.id,
    answered.status_code,
    answered.headers,
    answered.sha256,
    answered.body
from answered
inner join settled on answered.ledger = settled.id
where answered.body is not null
-- A retry after a lost connection finds the row of the first try.
on conflict (ledger) do update set ledger = excluded.ledger
returning id, ledger;

-- name: response
select
    response.id,
    response.song,
    response.status_code,
    response.headers,
    response.body
from songstats_responses as response
where response.id = %(response)s;

-- name: vendor_state
select
    breaker,
    breaker_kind,
    reason,
    opened_at,
    throttled + stumbled as pauses_in_a_row,
    case when paused_until > clock_timestamp() then paused_until end as paused_until,
    pause_reason,
    coalesce(paused_until > clock_timestamp() and no_probe_before <= clock_timestamp(), false) as is_probe_allowed,
    greatest(extract(epoch from paused_until - clock_timestamp()), 0)::double precision as pause_seconds_left,
    clock_timestamp() as now
from vendor_state
where vendor = 'songstats';

-- name: budget
with counted as (
    select
        count(*) as hits,
        count(*) filter (where settled_at is null) as in_flight
    from songstats_quota_ledger
    where reserved_at > clock_timestamp() - interval '30 days' and billable is distinct from false
)

select
    counted.hits,
    counted.in_flight,
    (select coalesce(max(id), 0) from songstats_quota_ledger) as calls_ever,
    (
        -- The oldest hit whose expiry brings the budget back above 0.
        select ledger.reserved_at + interval '30 days'
        from songstats_quota_ledger as ledger
        where ledger.reserved_at > clock_timestamp() - interval '30 days' and ledger.billable is distinct from false
        order by ledger.reserved_at
        limit 1
        offset greatest(counted.hits - %(hits_allowed)s, 0)
    ) as next_hit_frees_at
from counted;

-- name: frees_in
-- Seconds until the given number of counted hits expire.
select extract(epoch from reserved_at + interval '30 days' - now())::double precision as seconds
from songstats_quota_ledger
where reserved_at > now() - interval '30 days' and billable is distinct from false
order by reserved_at
limit 1
offset %(before)s;

-- name: recent_causes
-- Two parts, each with its index. A foreign answer came from something other than Songstats: it has a status, and whether it was billed
-- is unknown, or was unknown until reconciliation.
with since as (
    select coalesce(streak_since, '-infinity') as moment
    from vendor_state
    where vendor = 'songstats'
),

conclusive as (
    select
        ledger.reason,
        ledger.song,
        ledger.settled_at,
        ledger.id
    from songstats_quota_ledger as ledger
    where
        ledger.reason in ('stored', 'no history', 'rejected', 'malformed')
        and ledger.settled_at > (select since.moment from since)
        -- A future date was written before the clock was set back, and is not the latest.
        and ledger.settled_at <= clock_timestamp()
    order by ledger.settled_at desc, ledger.id desc
    limit %(limit)s
),

foreign_answer as (
    select
        'foreign' as reason,
        ledger.song,
        ledger.settled_at,
        ledger.id
    from songstats_quota_ledger as ledger
    where
        ledger.reason = 'transient'
        and (ledger.billable is null or ledger.reconciled_at is not null)
        and ledger.status_code is not null
        and ledger.settled_at > (select since.moment from since)
        and ledger.settled_at <= clock_timestamp()
        -- Older ones do not count as evidence.
        and ledger.reserved_at > clock_timestamp() - interval '30 days'
    order by ledger.settled_at desc, ledger.id desc
    limit %(limit)s
)

select
    latest.reason,
    latest.song
from (
    select * from conclusive
    union all
    select * from foreign_answer
) as latest
order by latest.settled_at desc, latest.id desc
limit %(limit)s;

-- name: bodies_before_today
-- The latest stored answers, if none of today (UTC) is among them: then the next one is the first of the day.
select response.body
from (
    select
        ledger.id,
        ledger.settled_at
    from songstats_quota_ledger as ledger
    where ledger.reason = 'stored' and ledger.settled_at <= clock_timestamp()
    order by ledger.settled_at desc, ledger.id desc
    limit %(limit)s
) as latest
inner join songstats_responses as response on latest.id = response.ledger
where
    not exists (
        select from songstats_quota_ledger as today
        where
            today.reason = 'stored'
            and today.settled_at >= date_trunc('day', clock_timestamp() at time zone 'UTC') at time zone 'UTC'
            and today.settled_at <= clock_timestamp()
    )
order by latest.settled_at desc, latest.id desc;

-- name: record_drift
insert into vendor_drifts (vendor, new_fields, missing_fields, changed_types)
values ('songstats', %(new)s, %(missing)s, %(changed)s);

-- name: drifts
select
    found_at,
    new_fields,
    missing_fields,
    changed_types
from vendor_drifts
where vendor = 'songstats' and found_at > clock_timestamp() - interval '7 days'
order by found_at desc
limit 1;

-- name: open_breaker
update vendor_state
set
    breaker = 'open',
    breaker_kind = %(kind)s,
    reason = %(reason)s,
    opened_at = clock_timestamp()
where vendor = 'songstats' and breaker = 'closed'
returning opened_at;

-- name: mark_suspect
with doubtful as (
    select queue.song
    from songstats_backfill_queue as queue
    where queue.song = any(%(songs)s) and queue.status in ('done', 'failed')
    order by queue.song
    for update
)

update songstats_backfill_queue as queue
set suspect = true
from doubtful
where queue.song = doubtful.song;

-- name: close_breaker
update vendor_state
set
    breaker = 'closed',
    breaker_kind = null,
    reason = null,
    opened_at = null,
    streak_since = clock_timestamp()
where vendor = 'songstats' and breaker = 'open' and (%(kind)s::text is null or breaker_kind = %(kind)s)
returning vendor;

-- name: throttled_before
select
    case when %(is_unusable)s then stumbled else throttled end as pauses,
    coalesce(paused_until > clock_timestamp(), false) as is_paused
from vendor_state
where vendor = 'songstats'
for update;

-- name: pause
-- Calls that were in flight together make one pause: only the first of them lengthens the next.
update vendor_state
set
    throttled = throttled + (%(count_it)s and not %(is_unusable)s)::int,
    stumbled = stumbled + (%(count_it)s and %(is_unusable)s)::int,
    pause_reason = case
        when paused_until > clock_timestamp() + make_interval(secs => %(seconds)s) then pause_reason else %(why)s
    end,
    paused_until = greatest(paused_until, clock_timestamp() + make_interval(secs => %(seconds)s)),
    no_probe_before = greatest(no_probe_before, clock_timestamp() + make_interval(secs => %(no_probe_for)s))
where vendor = 'songstats'
returning extract(epoch from paused_until - clock_timestamp())::double precision as pause_left;

-- name: end_pause
update vendor_state
set
    paused_until = null,
    no_probe_before = null
where vendor = 'songstats' and paused_until > clock_timestamp()
returning vendor;

-- name: end_guessed_pause
-- Only pauses that may be probed. A pause that the vendor requested (Retry-After) lasts as requested, or a day.
update vendor_state
set paused_until = null
where vendor = 'songstats' and paused_until > clock_timestamp() and no_probe_before <= clock_timestamp()
returning vendor;

-- name: postpone_probe
update vendor_state
set no_probe_before = clock_timestamp() + interval '1 hour'
where vendor = 'songstats' and paused_until > clock_timestamp() + interval '1 hour' and no_probe_before <= clock_timestamp();

-- name: throttled
select throttled + stumbled as throttled
from vendor_state
where vendor = 'songstats';

-- name: unthrottle
update vendor_state
set
    throttled = 0,
    stumbled = 0
where vendor = 'songstats' and throttled + stumbled > 0;

-- name: take_call_slots
-- Seconds until the first of the calls may be sent; the others follow at the pace. No run waits longer than `longest`: slots further
-- ahead were booked before the clock was set back.
update vendor_state
set
    next_call_at = least(
        greatest(next_call_at, clock_timestamp()), clock_timestamp() + make_interval(secs => %(longest)s)
    ) + make_interval(secs => %(calls)s * %(interval)s)
where vendor = 'songstats'
returning
    greatest(
        extract(epoch from next_call_at - make_interval(secs => %(calls)s * %(interval)s) - clock_timestamp()), 0
    )::double precision as wait;

-- name: seconds_to_the_next_slot
-- 0 if the slot is further ahead than any run books: the clock was set back, and the next booking corrects it.
select
    case
        when next_call_at <= clock_timestamp() + make_interval(secs => %(furthest)s)
            then greatest(extract(epoch from next_call_at - clock_timestamp()), 0)
        else 0
    end::double precision as wait
from vendor_state
where vendor = 'songstats';

-- name: settle_open
-- Reservations without a response whose claim has ended. Whether the vendor was reached is unknown, so they count.
with orphan as (
    select ledger.id
    from songstats_quota_ledger as ledger
    inner join songstats_backfill_queue as queue on ledger.song = queue.song
    where
        ledger.settled_at is null
        and (
            queue.lease <> ledger.lease
            or queue.status <> 'in_progress'
            or queue.heartbeat_at < clock_timestamp() - make_interval(secs => %(claim_timeout)s)
        )
    order by ledger.id
    for update of ledger
)

update songstats_quota_ledger as ledger
set
    settled_at = clock_timestamp(),
    reason = 'crashed: unknown'
from orphan
where ledger.id = orphan.id
returning ledger.id;

-- name: read_ledger_state
-- The ledger's figures to compare with the vendor's counts of this month and the last. Months are in UTC; `near_…` counts hits so
-- close to the start of a month that another time zone may place them in the month before.
with clock as (
    select coalesce(%(now)s::timestamptz, clock_timestamp()) as now
),

edges as (
    select
        clock.now,
        date_trunc('month', clock.now at time zone 'UTC') at time zone 'UTC' as this_month,
        (date_trunc('month', clock.now at time zone 'UTC') - interval '1 month') at time zone 'UTC' as last_month,
        (date_trunc('month', clock.now at time zone 'UTC') + interval '1 month') at time zone 'UTC' as next_month
    from clock
)

select
    edges.now,
    edges.last_month as previous_month_begins,
    edges.this_month as month_begins,
    edges.next_month as next_month_begins,
    count(*) filter (where ledger.reserved_at >= edges.this_month and ledger.billable) as billed,
    count(*) filter (
        where ledger.reserved_at >= edges.this_month and ledger.billable is null and ledger.settled_at is not null
    ) as unknown,
    count(*) filter (where ledger.reserved_at >= edges.this_month and ledger.reconciled_at is not null) as returned,
    count(*) filter (
        where ledger.reserved_at >= edges.last_month and ledger.reserved_at < edges.this_month and ledger.billable
    ) as previous_billed,
    count(*) filter (
        where
        ledger.reserved_at >= edges.last_month
        and ledger.reserved_at < edges.this_month
        and ledger.billable is null
        and ledger.settled_at is not null
    ) as previous_unknown,
    count(*) filter (
        where
        ledger.reserved_at >= edges.last_month and ledger.reserved_at < edges.this_month and ledger.reconciled_at is not null
    ) as previous_returned,
    count(*) filter (
        where
        (ledger.billable is distinct from false or ledger.reconciled_at is not null)
        and ledger.reserved_at >= edges.this_month - make_interval(secs => %(east)s)
        and ledger.reserved_at < edges.this_month + make_interval(secs => %(west)s)
    ) as near_month,
    count(*) filter (
        where
        (ledger.billable is distinct from false or ledger.reconciled_at is not null)
        and ledger.reserved_at >= edges.last_month - make_interval(secs => %(east)s)
        and ledger.reserved_at < edges.last_month + make_interval(secs => %(west)s)
    ) as near_previous,
    (select count(*) from songstats_quota_ledger as open_call where open_call.settled_at is null) as open_calls,
    max(greatest(ledger.reserved_at, ledger.settled_at)) as last_call_at,
    (select coalesce(max(id), 0) from songstats_quota_ledger) as calls_ever
from edges
left join songstats_quota_ledger as ledger on ledger.reserved_at >= edges.last_month - make_interval(secs => %(east)s)
group by edges.now, edges.last_month, edges.this_month, edges.next_month;

-- name: settle_unbilled
-- Settle the oldest calls of unknown outcome in a window: the newer ones count for longer. Their reason stays.
with unbilled as (
    select id
    from songstats_quota_ledger
    where
        billable is null
        and settled_at is not null
        and reserved_at >= %(since)s
        and reserved_at < %(until)s
    order by reserved_at, id
    limit %(calls)s
    for update
)

update songstats_quota_ledger as ledger
set
    billable = false,
    reconciled_at = clock_timestamp()
from unbilled
where ledger.id = unbilled.id
returning ledger.id;

-- name: revert_unbilled
-- Make the newest calls that were settled as not billed unknown again: the vendor counts them after all.
with late as (
    select id
    from songstats_quota_ledger
    where
        reconciled_at is not null
        and reserved_at >= %(since)s
        and reserved_at < %(until)s
    order by reserved_at desc, id desc
    limit %(calls)s
    for update
)

update songstats_quota_ledger as ledger
set
    billable = null,
    reconciled_at = null
from late
where ledger.id = late.id
returning ledger.id;
