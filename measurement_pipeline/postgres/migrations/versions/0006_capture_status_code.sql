-- A capture of albums that do not exist is the client's error (404), not a failure of the pipeline (500).

alter table playcount_snapshots add column status_code smallint not null default 500;

alter table apify_runs add column seen_at timestamptz;

-- For the time of the last settled row and the last mapped run, which a sensor reads every few seconds.
create index songstats_backfill_queue_settled on songstats_backfill_queue (updated_at) where status in ('done', 'failed');
create index apify_runs_mapped on apify_runs (mapped_at) where mapped_at is not null;

-- The reserved cost of an open capture, whenever it was requested: its expected cost minus the cost of its successful runs. The cost of
-- a failed part stays reserved while that part may be bought again.
create or replace view playcount_spent_this_month as
with month as (
    select date_trunc('month', clock_timestamp() at time zone 'UTC') at time zone 'UTC' as begins
),

bought as (
    select
        run.snapshot,
        coalesce(
            sum(run.cost_usd) filter (
                where run.status is null or run.status not in ('FAILED', 'TIMED-OUT', 'ABORTED', 'GONE', 'SURPLUS')
            ),
            0
        ) as usd_of_use,
        coalesce(sum(run.cost_usd) filter (where run.intended_at >= month.begins), 0) as usd_this_month
    from apify_runs as run
    cross join month
    where run.status is distinct from 'NOT-STARTED'
    group by run.snapshot
)

select
    made.account,
    sum(
        coalesce(bought.usd_this_month, 0)
        + case
            when made.state in ('queued', 'running')
                then greatest(made.estimated_cost_usd - coalesce(bought.usd_of_use, 0), 0)
            else 0
        end
    ) as usd
from playcount_snapshots as made
cross join month
left join bought on made.id = bought.snapshot
where
    made.created_at >= month.begins - interval '31 days'
    or made.state in ('queued', 'running')
    or coalesce(bought.usd_this_month, 0) > 0
group by made.account;
