-- The three commits of the bare script for each recording, one statement each, which is the minimum of round trips.

-- name: reserve
insert into songstats_quota_ledger (song, account, job, run_id, lease)
values (%(song)s, %(account)s, %(job)s, 'bare script', 1)
returning id;

-- name: keep
with settled as (
    update songstats_quota_ledger as ledger
    set
        settled_at = clock_timestamp(),
        status_code = %(status_code)s,
        billable = true,
        reason = 'stored'
    where ledger.id = %(ledger)s
    returning ledger.song
)

insert into songstats_responses (song, ledger, status_code, headers, sha256, body)
select
    settled.song,
    %(ledger)s,
    %(status_code)s,
    %(headers)s,
    %(sha256)s,
    %(body)s
from settled
returning id;

-- name: store
with settled as (
    update songstats_backfill_queue as queue
    set
        status = 'done',
        outcome = 'stored',
        attempts = queue.attempts + 1,
        attempt_run = 'bare script',
        lease = queue.lease + 1,
        last_status_code = 200,
        updated_at = clock_timestamp()
    where queue.song = %(song)s
    returning queue.song
),

marked as (
    update songstats_responses
    set parser_version = 1
    where id = %(response)s
),

stored as (
    insert into song_measurements (song, platform, metric, captured_at, data_source, value, raw_ref)
    select
        %(song)s,
        'spotify',
        figure.metric,
        point.day::timestamp at time zone 'UTC',
        'songstats',
        figure.value,
        %(raw_ref)s
    from unnest(%(days)s::date[], %(counts)s::bigint[], %(levels)s::bigint[]) as point (day, plays, level)
    cross join lateral (
        values
        ('platform_displayed_play_count', point.plays),
        ('popularity', point.level)
    ) as figure (metric, value)
    on conflict do nothing
)

select count(*)
from settled;
