-- Signs of life of runs, beside those of the rows they hold.

-- name: beat
insert into run_heartbeats (run_id)
values (%(run)s)
on conflict (run_id) do update set beat_at = clock_timestamp();

-- name: meet
-- A run that has not given a sign yet is judged from when it was first seen here: when Dagster says it started is the time of
-- the machine that ran it.
insert into run_heartbeats (run_id)
select run_id
from unnest(%(runs)s::text[]) as started (run_id)
on conflict (run_id) do nothing;

-- name: silent
select run_id
from run_heartbeats
where run_id = any(%(runs)s) and beat_at < clock_timestamp() - make_interval(secs => %(silence)s);

-- name: last_beats
select
    run_id,
    extract(epoch from clock_timestamp() - beat_at) as seconds
from run_heartbeats
where run_id = any(%(runs)s);

-- name: forget
delete from run_heartbeats
where beat_at < now() - interval '7 days';
