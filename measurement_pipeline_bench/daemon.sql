-- Times of the daemon's work, in seconds of Unix time.

-- name: times
select
    extract(epoch from min(request.created_at))::double precision as asked,
    (select extract(epoch from min(queue.created_at)) from songstats_backfill_queue as queue)::double precision as accepted,
    (select extract(epoch from min(queue.updated_at)) from songstats_backfill_queue as queue)::double precision as first_settled,
    (select extract(epoch from max(queue.updated_at)) from songstats_backfill_queue as queue)::double precision as last_settled
from measurement_jobs as request;

-- name: work
-- A run sends its first call once its hit is reserved.
select
    ledger.run_id as run,
    count(*) as recordings,
    extract(epoch from min(ledger.reserved_at))::double precision as first_call,
    extract(epoch from max(queue.updated_at))::double precision as last_settled
from songstats_quota_ledger as ledger
inner join songstats_backfill_queue as queue on ledger.song = queue.song
group by ledger.run_id
order by first_call;

-- name: runs
-- In Dagster's database. Its creation times are in the session's time zone.
select
    run_id as run,
    extract(epoch from create_timestamp::timestamptz)::double precision as created,
    coalesce(start_time, 0)::double precision as started,
    coalesce(end_time, 0)::double precision as ended
from runs
where pipeline_name = 'songstats_backfill';

-- name: unfinished
select
from runs
where status not in ('SUCCESS', 'FAILURE', 'CANCELED')
limit 1;

-- name: reported
-- In Dagster's database, whose times are in UTC.
select
    count(distinct partition) as recordings,
    extract(epoch from max(timestamp))::double precision as last_reported
from event_logs
where dagster_event_type = 'ASSET_MATERIALIZATION';
