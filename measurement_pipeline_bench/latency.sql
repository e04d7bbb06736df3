-- The times of one request for one recording, in seconds of Unix time.

-- name: stored
select
from song_measurements
where song = %(song)s
limit 1;

-- name: times
-- A run sends its first call once its hit is reserved.
select
    extract(epoch from request.created_at)::double precision as asked,
    extract(epoch from queue.created_at)::double precision as accepted,
    extract(epoch from ledger.reserved_at)::double precision as first_call,
    extract(epoch from stored.learnt_at)::double precision as stored,
    ledger.run_id as run
from measurement_jobs as request
inner join songstats_backfill_queue as queue on queue.song = %(song)s
inner join songstats_quota_ledger as ledger on queue.song = ledger.song
inner join lateral (
    select min(measurement.learnt_at) as learnt_at
    from song_measurements as measurement
    where measurement.song = queue.song
) as stored on true
where request.id = %(job)s;

-- name: run
-- In Dagster's database. Its creation times are in the session's time zone.
select
    extract(epoch from create_timestamp::timestamptz)::double precision as planned,
    start_time::double precision as started
from runs
where run_id = %(run)s;

-- name: all_ended
select
where not exists (
    select from runs
    where status not in ('SUCCESS', 'FAILURE', 'CANCELED')
);
