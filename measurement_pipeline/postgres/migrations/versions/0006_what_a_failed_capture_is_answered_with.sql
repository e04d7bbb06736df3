-- A capture of albums that there are none of is its client's mistake, and no fault of the pipeline's.

alter table playcount_snapshots add column status_code smallint not null default 500;
comment on column playcount_snapshots.status_code is
'What requests are told where it failed: 404 where no track was found and no recording is known of any of the albums, 500 otherwise.';

comment on column measurement_jobs.status_code is
'The answer as an HTTP status: 202 accepted, 400 rejected, 402 no card on file, 429 over the monthly cap of captures, 404 there are no such albums, 500 failed. Null while queued.';

-- A capture is made by album: recordings that are on none are left out of it, and the request says so.
comment on column measurement_jobs.error is
'Why it was refused, what it waits for, or what the answer leaves out, in words.';
comment on column measurement_jobs.asked is
'Recordings the scope resolved to. historical: = enqueued + skipped + those already queued for another request, written once. current: null where albums were named.';
comment on column measurement_jobs.skipped is
'historical: recordings owned or settled already, no hit is spent on them. current: recordings of which no album is known, so that no capture brings them.';

alter table apify_runs add column seen_at timestamptz;
comment on column apify_runs.seen_at is 'When Apify last showed the run: one that was not seen for an hour does not exist any more.';
comment on column playcount_snapshots.claimed_by is
'The Dagster run that works on it: while running, and while what was kept of it is mapped once more.';

-- When something was last settled or mapped is asked every few seconds.
create index songstats_backfill_queue_settled on songstats_backfill_queue (updated_at) where status in ('done', 'failed');
create index apify_runs_mapped on apify_runs (mapped_at) where mapped_at is not null;

-- Set aside for one that is open, whenever it was asked for: what it is to cost, less what was bought of it and came to something. A
-- part that failed is so set aside again for as long as it may be bought again.
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
