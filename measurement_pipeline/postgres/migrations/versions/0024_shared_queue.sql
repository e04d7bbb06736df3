-- The queue by account, so that the planner reads the next rows of each account and not all rows.

alter table songstats_backfill_queue add column account uuid;
create index songstats_backfill_queue_account_rank
on songstats_backfill_queue (account, rank_score desc, coalesce(requeued_at, created_at), song)
where status in ('pending', 'in_progress');
create index songstats_backfill_queue_account_age
on songstats_backfill_queue (account, coalesce(requeued_at, created_at), rank_score desc, song)
where status in ('pending', 'in_progress');
create index songstats_backfill_queue_without_account on songstats_backfill_queue (song)
where account is null and operator_launched and status in ('pending', 'in_progress');

alter table measurement_jobs add column is_paying boolean not null default false;
create index measurement_jobs_paying on measurement_jobs (id) where is_paying;

-- The rows of all open requests, here and not in the first plan, which has a minute.
update measurement_jobs as request
set is_paying = true
from payment_decisions as decision
where request.state = 'accepted' and request.account = decision.account and decision.verdict = 'allowed';

update songstats_backfill_queue as queue
set account = payer.account
from (
    select distinct on (candidate.song)
        candidate.song,
        candidate.account
    from songstats_payers(null) as candidate
    order by candidate.song asc, candidate.created_at asc nulls last, candidate.job asc
) as payer
where queue.song = payer.song and queue.status <> 'done';

create table songstats_shares (
    account uuid primary key references accounts (id),
    credit double precision not null default 0,
    is_waiting boolean not null default false,
    hits bigint not null default 0,
    updated_at timestamptz not null default now()
);

-- Hits before this migration are not shared out again.
alter table vendor_state add column shared_up_to bigint not null default 0;
update vendor_state set shared_up_to = (select coalesce(max(ledger.id), 0) from songstats_quota_ledger as ledger);

-- The condition of a due row without its payer. The parameters are qualified with the function's name, which the linter takes for a
-- table. -- noqa: disable=RF01
create function songstats_due_rows(claim_timeout double precision, max_attempts int)
returns table (song text, account uuid, rank_score bigint, waiting_since timestamptz)
language sql stable parallel safe
begin atomic
select
    queue.song,
    queue.account,
    queue.rank_score,
    coalesce(queue.requeued_at, queue.created_at) as waiting_since
from songstats_backfill_queue as queue
where
    queue.status in ('pending', 'in_progress')
    and (
        queue.status = 'pending'
        or queue.heartbeat_at < statement_timestamp() - make_interval(secs => songstats_due_rows.claim_timeout)
    )
    and (queue.not_before is null or queue.not_before <= statement_timestamp())
    and (
        queue.attempts < songstats_due_rows.max_attempts
        or exists (select from songstats_unread_responses as unread where unread.song = queue.song)
    );
end;
comment on function songstats_due_rows is 'The rows that a run may claim if an account pays for them: pending, or abandoned by their run; not waiting for a retry; with attempts left, or with a paid response that was not parsed.';
