-- Signs of life of runs, beside those of the rows they hold.

-- name: beat
insert into run_heartbeats (run_id)
values (%(run)s)
on conflict (run_id) do update set beat_at = clock_timestamp();

-- name: silent
-- Of these runs, the ones that gave no sign for so long. One that never gave any is judged by when Dagster says it started.
select candidate.run_id
from unnest(%(runs)s::text[], %(started)s::timestamptz[]) as candidate (run_id, started_at)
left join run_heartbeats as heart on candidate.run_id = heart.run_id
where greatest(candidate.started_at, heart.beat_at) < clock_timestamp() - make_interval(secs => %(silence)s);

-- name: forget
delete from run_heartbeats
where beat_at < now() - interval '7 days';
