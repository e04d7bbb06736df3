-- Heartbeats of runs. Claimed rows have heartbeats of their own.

-- name: renew
insert into run_heartbeats (run_id)
values (%(run)s)
on conflict (run_id) do update set beat_at = clock_timestamp();

-- name: register
-- A run without a heartbeat counts from when it is first seen here. Its start time in Dagster comes from the clock of the machine
-- that ran it.
insert into run_heartbeats (run_id)
select run_id
from unnest(%(runs)s::text[]) as started (run_id)
on conflict (run_id) do nothing;

-- name: silent
select run_id
from run_heartbeats
where run_id = any(%(runs)s) and beat_at < clock_timestamp() - make_interval(secs => %(silence)s);

-- name: last
select
    run_id,
    extract(epoch from clock_timestamp() - beat_at) as seconds
from run_heartbeats
where run_id = any(%(runs)s);

-- name: delete_old
delete from run_heartbeats
where beat_at < now() - interval '7 days';
