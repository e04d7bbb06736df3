-- Pauses of purchases that an operator began. Those of a vendor's own accord (429, Retry-After) stay in vendor_state. -- noqa: disable=RF01
create table purchase_pauses (
    id bigint generated always as identity primary key,
    account uuid references accounts (id),
    vendor text check (vendor in ('songstats', 'apify')),
    reason text not null check (length(reason) between 1 and 500),
    paused_by text not null,
    paused_at timestamptz not null default clock_timestamp(),
    paused_until timestamptz check (paused_until > paused_at),
    resumed_at timestamptz,
    resumed_by text,
    check (account is null or vendor is null)
);

-- statement_timestamp() and not clock_timestamp(): one statement sees one set of pauses, however long it takes.
create view active_purchase_pauses as
select
    pause.id,
    pause.account,
    pause.vendor,
    pause.reason,
    pause.paused_by,
    pause.paused_at,
    pause.paused_until,
    pause.account is null and coalesce(pause.vendor, 'songstats') = 'songstats' as stops_songstats,
    pause.account is null and coalesce(pause.vendor, 'apify') = 'apify' as stops_apify
from purchase_pauses as pause
where pause.resumed_at is null and (pause.paused_until is null or pause.paused_until > statement_timestamp());

-- A paused account pays for nothing. Another account that wants the same recording still does.
create or replace function songstats_payers(operators_account uuid)
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
where
    decision.verdict = 'allowed'
    -- An array, so that the few pauses are read once and not for each recording.
    and wanted.account <> all(
        array(select pause.account from active_purchase_pauses as pause where pause.account is not null)
    )
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
    and decision.verdict = 'allowed'
    and decision.account <> all(
        array(select pause.account from active_purchase_pauses as pause where pause.account is not null)
    );
end;
comment on function songstats_payers is 'Who can pay for a recording now: each accepted request of an account with an allowed payment decision, and the operators'' account for what an operator launched (job and created_at are null). A paused account pays for nothing. The earliest request pays; the operators'' account pays only where no request does.';

-- An operator's pause begins under the lock that a reservation takes, so no reservation misses it.
create or replace view songstats_call_gate as
select
    breaker = 'closed' and coalesce(paused_until <= clock_timestamp(), true)
    and not exists (select from active_purchase_pauses where stops_songstats) as is_open
from vendor_state
where vendor = 'songstats';
