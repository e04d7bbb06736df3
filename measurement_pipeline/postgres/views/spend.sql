-- Spend by day, account, vendor and cause. Songstats' plan counts hits; Apify is paid in dollars.
create or replace view analytics.spend as
select
    (ledger.reserved_at at time zone 'UTC')::date as day,
    ledger.account,
    'songstats' as vendor,
    case
        when ledger.reconciled_at is not null then 'not billed (reconciled)'
        when ledger.settled_at is null then 'in flight'
        when ledger.reason is null then 'response stored, not parsed yet'
        else ledger.reason
    end as cause,
    count(*)::int as calls,
    (count(*) filter (where ledger.billable is distinct from false))::int as hits,
    (count(*) filter (where ledger.billable is null))::int as hits_of_unknown_fate,
    0::numeric as cost_usd
from songstats_quota_ledger as ledger
group by 1, 2, 3, 4
union all
select
    (actor_run.intended_at at time zone 'UTC')::date as day,
    capture.account,
    'apify' as vendor,
    lower(coalesce(actor_run.status, 'in flight')) as cause,
    count(*)::int as calls,
    0 as hits,
    0 as hits_of_unknown_fate,
    coalesce(sum(actor_run.cost_usd) filter (where actor_run.status is distinct from 'NOT-STARTED'), 0) as cost_usd
from apify_runs as actor_run
inner join playcount_snapshots as capture on actor_run.snapshot = capture.id
group by 1, 2, 3, 4;
comment on view analytics.spend is 'One row for each day, account, vendor and cause: calls, and what they cost.';
comment on column analytics.spend.day is 'The day on which it was spent. | unit: UTC date | source: songstats_quota_ledger.reserved_at, apify_runs.intended_at';
comment on column analytics.spend.account is 'The account that pays. | unit: id | source: songstats_quota_ledger.account, playcount_snapshots.account';
comment on column analytics.spend.vendor is 'songstats or apify. | unit: name | source: this view';
comment on column analytics.spend.cause is 'Result: stored, no history, rejected, malformed, throttled, …; not billed (reconciled): the outcome was unknown until the vendor''s count showed that it was not billed. For Apify: the actor run''s status. | unit: name | source: songstats_quota_ledger.reason, songstats_quota_ledger.reconciled_at, apify_runs.status';
comment on column analytics.spend.calls is 'Calls to Songstats, or runs of the actor. | unit: calls | source: songstats_quota_ledger, apify_runs';
comment on column analytics.spend.hits is 'Hits of the plan at Songstats; those whose billing is unknown count as spent. The plan sets the price of a hit. | unit: hits | source: songstats_quota_ledger.billable';
comment on column analytics.spend.hits_of_unknown_fate is 'Hits whose billing is unknown. | unit: hits | source: songstats_quota_ledger.billable';
comment on column analytics.spend.cost_usd is 'Estimated cost of actor runs; 0 for runs that never started, and for Songstats, which is paid by the hit. | unit: US dollars | source: apify_runs.cost_usd';
