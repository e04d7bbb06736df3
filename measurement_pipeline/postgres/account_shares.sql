-- The queue by account: who pays for a row, how many rows each account waits for, and each account's share of the hits.

-- name: assign_changed
-- `account` of a queue row is the account that songstats_payers lists first. Who pays changes only with an accepted request, a payment
-- decision or a pause, so only the rows of requests that began or ceased to pay are read, and rows that an operator launched since.
with request_state as (
    select
        request.id,
        request.state = 'accepted'
        and coalesce(decision.verdict = 'allowed', false)
        and not exists (select from active_purchase_pauses as pause where pause.account = request.account) as is_paying
    from measurement_jobs as request
    left join payment_decisions as decision on request.account = decision.account
    where request.state = 'accepted' or request.is_paying
),

changed as (
    update measurement_jobs as request
    set is_paying = request_state.is_paying
    from request_state
    where request.id = request_state.id and request.is_paying <> request_state.is_paying
    returning request.id
),

touched as materialized (
    select queue.song
    from measurement_job_songs as asked
    inner join changed on asked.job = changed.id
    inner join songstats_backfill_queue as queue on asked.song = queue.song
    where queue.status <> 'done'
    union
    select queue.song
    from songstats_backfill_queue as queue
    where
        queue.account is null
        and queue.operator_launched
        and queue.status in ('pending', 'in_progress')
        and exists (
            select from payment_decisions as decision
            where decision.account = %(operators_account)s and decision.verdict = 'allowed'
        )
),

payer as (
    select distinct on (candidate.song)
        candidate.song,
        candidate.account
    from songstats_payers(%(operators_account)s) as candidate
    where candidate.song in (select touched.song from touched)
    order by candidate.song asc, candidate.created_at asc nulls last, candidate.job asc
),

held as materialized (
    select
        queue.song,
        payer.account
    from touched
    inner join songstats_backfill_queue as queue on touched.song = queue.song
    left join payer on touched.song = payer.song
    where queue.account is distinct from payer.account
    order by queue.song
    for update of queue
)

update songstats_backfill_queue as queue
set account = held.account
from held
where queue.song = held.song;

-- name: waiting
-- The accounts that can pay and have due rows outside unfinished runs, with at most `most` of these rows counted.
with paying as (
    select decision.account
    from payment_decisions as decision
    where
        decision.verdict = 'allowed'
        and (
            (
                decision.account = %(operators_account)s
                and not exists (select from active_purchase_pauses as pause where pause.account = decision.account)
            )
            or exists (select from measurement_jobs as request where request.account = decision.account and request.is_paying)
        )
)

select
    account.id as account,
    account.share_weight as weight,
    account.monthly_hit_cap - coalesce(spent.hits, 0) as cap_left,
    due.waiting
from paying
inner join accounts as account on paying.account = account.id
cross join lateral (
    select count(*) as waiting
    from (
        select 1
        from songstats_due_rows(%(claim_timeout)s, %(max_attempts)s) as ready
        where ready.account = account.id and ready.song <> all(%(covered)s::text[])
        limit %(most)s
    ) as counted
) as due
left join lateral (
    select count(*) as hits
    from songstats_quota_ledger as ledger
    where
        account.monthly_hit_cap is not null
        and ledger.account = account.id
        and ledger.billable is distinct from false
        and ledger.reserved_at > statement_timestamp() - interval '30 days'
) as spent on true
where due.waiting > 0
order by account.created_at, account.id;

-- name: next_rows
-- The best ranked and the oldest due rows of each account, as many as the plan needs. `place` of the account, from 1.
with entitled as (
    select *
    from unnest(%(accounts)s::uuid[], %(by_rank)s::int[], %(by_age)s::int[]) with ordinality as t (account, by_rank, by_age, place)
)

select
    due.song,
    entitled.place,
    due.rank_score,
    due.waiting_since
from entitled
cross join lateral (
    select
        ready.song,
        ready.rank_score,
        ready.waiting_since
    from songstats_due_rows(%(claim_timeout)s, %(max_attempts)s) as ready
    where ready.account = entitled.account and ready.song <> all(%(covered)s::text[])
    order by ready.rank_score desc, ready.waiting_since asc, ready.song asc
    limit entitled.by_rank
) as due
union
select
    due.song,
    entitled.place,
    due.rank_score,
    due.waiting_since
from entitled
cross join lateral (
    select
        ready.song,
        ready.rank_score,
        ready.waiting_since
    from songstats_due_rows(%(claim_timeout)s, %(max_attempts)s) as ready
    where ready.account = entitled.account and ready.song <> all(%(covered)s::text[])
    order by ready.waiting_since asc, ready.rank_score desc, ready.song asc
    limit entitled.by_age
) as due;

-- name: unparsed_rows
-- Rows without a paying account whose paid response was not parsed yet: parsing it needs no payer and no hit.
select
    ready.song,
    ready.account,
    ready.rank_score,
    ready.waiting_since
from songstats_unread_responses as unread
inner join songstats_due_rows(%(claim_timeout)s, %(max_attempts)s) as ready on unread.song = ready.song
where
    coalesce(ready.account <> all(%(accounts)s::uuid[]), true)
    and ready.song <> all(%(covered)s::text[])
order by ready.rank_score desc, ready.waiting_since asc, ready.song asc
limit %(most)s;

-- name: due
-- All due rows. `account` is up to date after `assign_changed`.
select
    ready.song,
    ready.account,
    ready.rank_score,
    ready.waiting_since
from songstats_due_rows(%(claim_timeout)s, %(max_attempts)s) as ready
where
    ready.account in (select decision.account from payment_decisions as decision where decision.verdict = 'allowed')
    or ready.song in (select unread.song from songstats_unread_responses as unread)
order by ready.rank_score desc, ready.waiting_since asc, ready.song asc;

-- name: count_due
select count(*) as due
from songstats_due_rows(%(claim_timeout)s, %(max_attempts)s) as ready
where
    ready.account in (select decision.account from payment_decisions as decision where decision.verdict = 'allowed')
    or ready.song in (select unread.song from songstats_unread_responses as unread);

-- name: due_among
select
    ready.song,
    ready.account,
    ready.rank_score,
    ready.waiting_since
from songstats_due_rows(%(claim_timeout)s, %(max_attempts)s) as ready
where ready.song = any(%(songs)s) and ready.song <> all(%(covered)s::text[]);

-- name: covered
-- The rows of unfinished runs that will still need a hit, by account.
select
    queue.account,
    count(*) as planned
from songstats_backfill_queue as queue
where
    queue.song = any(%(covered)s)
    and queue.status in ('pending', 'in_progress')
    and not exists (
        select from songstats_quota_ledger as ledger
        where ledger.song = queue.song and ledger.settled_at is null and ledger.lease = queue.lease
    )
group by queue.account;

-- name: lock
-- One planner at a time changes the shares.
lock table songstats_shares in share row exclusive mode;

-- name: shares
-- Accounts that waited at the last plan, or are ahead of their share.
select
    share.account,
    account.share_weight as weight,
    share.credit,
    share.is_waiting,
    share.hits
from songstats_shares as share
inner join accounts as account on share.account = account.id
order by account.created_at, account.id;

-- name: hits_since
-- Hits that are not shared out yet, in the order in which they were reserved.
select
    ledger.id,
    ledger.account,
    account.share_weight as weight,
    (ledger.settled_at is not null) as is_settled,
    coalesce(ledger.billable, true) as is_hit
from songstats_quota_ledger as ledger
inner join accounts as account on ledger.account = account.id
where ledger.id > (select vendor_state.shared_up_to from vendor_state where vendor_state.vendor = 'songstats')
order by ledger.id;

-- name: store_shares
insert into songstats_shares as share (account, credit, is_waiting, hits)
select
    account,
    credit,
    is_waiting,
    hits
from unnest(%(accounts)s::uuid[], %(credits)s::double precision[], %(waiting)s::boolean[], %(hits)s::bigint[])
    as changed (account, credit, is_waiting, hits)
order by account
on conflict (account) do update
set
    credit = excluded.credit,
    is_waiting = excluded.is_waiting,
    hits = excluded.hits,
    updated_at = now();

-- name: store_position
update vendor_state
set shared_up_to = %(shared_up_to)s
where vendor = 'songstats' and shared_up_to < %(shared_up_to)s;

-- name: open_accounts
-- All recordings that accounts have to buy, retries included; and the accounts `also`, which may have none.
select
    account.id as account,
    account.share_weight as weight,
    account.monthly_hit_cap as cap,
    coalesce(queued.waiting, 0) as waiting,
    (
        select count(*)
        from songstats_quota_ledger as ledger
        where
            account.monthly_hit_cap is not null
            and ledger.account = account.id
            and ledger.billable is distinct from false
            and ledger.reserved_at > statement_timestamp() - interval '30 days'
    ) as counted
from accounts as account
left join (
    select
        queue.account,
        count(*) as waiting
    from songstats_backfill_queue as queue
    where queue.status in ('pending', 'in_progress') and queue.account is not null
    group by queue.account
) as queued on account.id = queued.account
where queued.account is not null or account.id = any(%(also)s::uuid[])
order by account.created_at, account.id;

-- name: cap_frees_in
-- Seconds until the given number of an account's counted hits expire.
select extract(epoch from ledger.reserved_at + interval '30 days' - statement_timestamp())::double precision as seconds
from songstats_quota_ledger as ledger
where
    ledger.account = %(account)s
    and ledger.reserved_at > statement_timestamp() - interval '30 days'
    and ledger.billable is distinct from false
order by ledger.reserved_at
limit 1
offset %(before)s;

-- name: last_places
-- For each account that pays for recordings of a request: how many of the account's recordings are ranked at least as high, and wait at
-- least as long, as the last of the request. `account` is null for recordings that no account pays for.
with own as materialized (
    select
        asked.job,
        queue.account,
        count(*) as waiting,
        min(queue.rank_score) as last_rank,
        max(coalesce(queue.requeued_at, queue.created_at)) as last_since
    from measurement_job_songs as asked
    inner join measurement_jobs as request on asked.job = request.id
    inner join songstats_backfill_queue as queue on asked.song = queue.song
    where
        asked.job = any(%(jobs)s::uuid[])
        and request.state = 'accepted'
        and queue.status in ('pending', 'in_progress')
    group by asked.job, queue.account
)

select
    own.job,
    own.account,
    own.waiting,
    (
        select count(*)
        from songstats_backfill_queue as queue
        where queue.status in ('pending', 'in_progress') and queue.account = own.account and queue.rank_score >= own.last_rank
    ) as by_rank,
    (
        select count(*)
        from songstats_backfill_queue as queue
        where
            queue.status in ('pending', 'in_progress')
            and queue.account = own.account
            and coalesce(queue.requeued_at, queue.created_at) <= own.last_since
    ) as by_age
from own;

-- name: statuses
-- Accounts with recordings to buy, or with hits in the last 30 days: what is due to each, and what it had.
with queued as (
    select
        queue.account,
        count(*) as waiting
    from songstats_backfill_queue as queue
    where queue.status in ('pending', 'in_progress') and queue.account is not null
    group by queue.account
),

spent as (
    select
        ledger.account,
        count(*) as hits
    from songstats_quota_ledger as ledger
    where ledger.reserved_at > statement_timestamp() - interval '30 days' and ledger.billable is distinct from false
    group by ledger.account
)

select
    account.id as account,
    account.name,
    account.share_weight as weight,
    account.monthly_hit_cap as cap,
    coalesce(queued.waiting, 0) as waiting,
    coalesce(spent.hits, 0) as hits,
    coalesce(
        account.share_weight::double precision / sum(account.share_weight) filter (where queued.waiting > 0) over (), 0
    ) * (coalesce(queued.waiting, 0) > 0)::int as share,
    coalesce(share.credit, 0) as credit
from accounts as account
left join queued on account.id = queued.account
left join spent on account.id = spent.account
left join songstats_shares as share on account.id = share.account
where queued.waiting > 0 or spent.hits > 0
order by waiting desc, hits desc, account.id asc;
