-- The comparisons for enqueueing.

-- name: copy_asked
copy measurement_job_songs (job, song) from stdin;

-- name: copy_queue
copy songstats_backfill_queue (song, rank_score) from stdin;

-- name: ask
insert into measurement_job_songs (job, song)
values (%(job)s, %(song)s)
on conflict (song, job) do nothing;

-- name: upsert
insert into songstats_backfill_queue (song, rank_score)
select
    %(song)s,
    coalesce(
        (
            select latest_counts.play_count
            from latest_counts
            where latest_counts.song = %(song)s
        ), 0
    )
on conflict (song) do update set rank_score = excluded.rank_score;

-- name: song
insert into songs (isrc)
values (%(song)s)
on conflict (isrc) do nothing;

-- name: accept
update measurement_jobs
set
    state = 'accepted',
    status_code = 202,
    asked = 1,
    enqueued = 1,
    skipped = 0,
    updated_at = now()
where id = %(job)s;

-- name: jobs
select id
from measurement_jobs
order by created_at, id;
