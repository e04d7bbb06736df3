-- Calls and hits: what they cost, for whom, and with which results. Read-only.

-- name: spent
-- Calls of the last days or of one request. A call in flight counts as a hit until it is settled as none.
with calls as (
    select
        ledger.id,
        ledger.song,
        ledger.account,
        case
            when ledger.reconciled_at is not null then 'not billed (reconciled)'
            when ledger.settled_at is null then 'in flight'
            -- A 200 whose run died before it parsed the response. Parsing it needs no other hit.
            when ledger.reason is null then 'response stored, not parsed yet'
            else ledger.reason
        end as cause,
        case
            when ledger.billable then 'yes'
            when ledger.billable is null then 'unknown'
            else 'no'
        end as counted
    from songstats_quota_ledger as ledger
    where
        (%(days)s::int is null or ledger.reserved_at > now() - make_interval(days => %(days)s))
        and (%(account)s::uuid is null or ledger.account = %(account)s)
        and (%(job)s::uuid is null or ledger.job = %(job)s)
),

judged as (
    select
        calls.account,
        calls.cause,
        calls.counted,
        -- First result of its kind for this recording, across accounts and time. A history after an empty answer is new; an empty
        -- answer after another one, or after a history, is not.
        calls.cause in ('stored', 'no history')
        and not exists (
            select from songstats_quota_ledger as earlier
            where
                earlier.song = calls.song
                and earlier.id < calls.id
                and (earlier.reason = 'stored' or (earlier.reason = 'no history' and calls.cause = 'no history'))
        ) as is_news,
        -- The call that settled the recording as done. A requeued recording counts again only if the call brought a history.
        calls.cause in ('stored', 'no history', 'rejected')
        and not exists (
            select from songstats_quota_ledger as earlier
            where
                earlier.song = calls.song
                and earlier.id < calls.id
                and (earlier.reason = 'stored' or (earlier.reason in ('no history', 'rejected') and calls.cause <> 'stored'))
        ) as is_settling
    from calls
)

select
    judged.account,
    account.name,
    judged.cause,
    judged.counted,
    count(*) as calls,
    count(*) filter (
        where judged.counted <> 'no' and not judged.is_news and judged.cause not in ('in flight', 'response stored, not parsed yet')
    ) as wasted,
    count(*) filter (where judged.cause = 'stored' and judged.is_news) as stored,
    count(*) filter (where judged.is_settling) as settled
from judged
inner join accounts as account on judged.account = account.id
group by judged.account, account.name, judged.cause, judged.counted
order by judged.account, judged.cause, judged.counted;

-- name: now
select clock_timestamp() as now;

-- name: queue
-- Wanted recordings that still need a hit. A row with a call in flight, or with an unparsed response, needs none.
with to_buy as (
    select exists(select from songstats_payers(%(operators_account)s) as payer where payer.song = queue.song) as is_payable
    from songstats_open_rows as queue
    where
        queue.is_wanted
        and not queue.has_unread_response
        and not exists (
            select from songstats_quota_ledger as ledger
            where ledger.song = queue.song and ledger.settled_at is null and ledger.lease = queue.lease
        )
),

-- The part of the last hour between the first and last hit; at least a minute. Outside it, nothing may have been due.
recent as (
    select
        count(*) as hits,
        greatest(extract(epoch from max(ledger.reserved_at) - min(ledger.reserved_at)), 60)::double precision as seconds
    from songstats_quota_ledger as ledger
    where ledger.reserved_at > clock_timestamp() - interval '1 hour' and ledger.billable is distinct from false
)

select
    count(to_buy.is_payable) as to_buy,
    count(*) filter (where not to_buy.is_payable) as unpaid,
    recent.hits as recent_hits,
    recent.seconds as recent_seconds
from recent
left join to_buy on true
group by recent.hits, recent.seconds;

-- name: frees
-- How many of the counted hits expire within a day and within a week.
select
    count(*) filter (where ledger.reserved_at <= now() - interval '29 days') as in_a_day,
    count(*) filter (where ledger.reserved_at <= now() - interval '23 days') as in_a_week
from songstats_quota_ledger as ledger
where ledger.reserved_at > now() - interval '30 days' and ledger.billable is distinct from false;

-- name: origin
-- Where a request's recordings came from, each counted once: its own hits, then purchases of others since its creation, then what was
-- stored before. Failed, open and withdrawn recordings are separate.
with requested as (
    select
        wanted.song,
        request.state,
        queue.status,
        queue.status is null or queue.status in ('pending', 'in_progress') as is_open,
        exists(
            select from songstats_quota_ledger as ledger
            where ledger.song = wanted.song and ledger.job = request.id and ledger.reason in ('stored', 'no history', 'rejected')
        ) as is_bought,
        exists(
            select from songstats_quota_ledger as ledger
            where
                ledger.song = wanted.song
                and ledger.job is distinct from request.id
                and ledger.reason in ('stored', 'no history', 'rejected')
                and ledger.settled_at > request.created_at
        ) as is_bought_for_others
    from measurement_jobs as request
    inner join measurement_job_songs as wanted on request.id = wanted.job
    left join songstats_backfill_queue as queue on wanted.song = queue.song
    where request.id = %(job)s
)

select
    count(*) as asked,
    count(*) filter (where status = 'done' and is_bought) as bought,
    count(*) filter (where status = 'done' and not is_bought and is_bought_for_others) as bought_for_others,
    count(*) filter (where status = 'done' and not is_bought and not is_bought_for_others) as owned,
    count(*) filter (where status = 'failed') as failed,
    count(*) filter (where is_open and state <> 'withdrawn') as still_open,
    count(*) filter (where is_open and state = 'withdrawn') as withdrawn
from requested;

-- name: month
-- Calls of this calendar month in UTC. `early` and `late`: hits so near its start that a vendor in another time zone may place them in
-- the other month; `late` ones belong to the month before.
with edges as (
    select date_trunc('month', now() at time zone 'UTC') at time zone 'UTC' as begins
)

select
    edges.begins,
    count(*) filter (where ledger.reserved_at >= edges.begins) as calls,
    count(*) filter (where ledger.reserved_at >= edges.begins and ledger.billable) as counted,
    count(*) filter (where ledger.reserved_at >= edges.begins and ledger.billable is null) as unknown,
    count(*) filter (where ledger.reserved_at >= edges.begins and ledger.billable is false) as cost_nothing,
    count(*) filter (
        where ledger.billable and ledger.reserved_at >= edges.begins and ledger.reserved_at < edges.begins + interval '12 hours'
    ) as early,
    count(*) filter (where ledger.billable is distinct from false and ledger.reserved_at < edges.begins) as late,
    count(distinct ledger.song) filter (where ledger.reserved_at >= edges.begins and ledger.status_code = 200) as answered,
    count(distinct ledger.song) filter (where ledger.billable is distinct from false) as asked
from edges
left join songstats_quota_ledger as ledger on ledger.reserved_at >= edges.begins - interval '14 hours'
group by edges.begins;
