-- The three commits of the bare script, one statement each, for all recordings of a batch.

-- name: reserve
insert into songstats_quota_ledger (song, account, job, run_id, lease)
select
    song,
    %(account)s,
    %(job)s,
    'bare script',
    1
from unnest(%(songs)s::text[]) as asked (song)
returning song, id;

-- name: keep
with answer as materialized (
    select *
    from unnest(%(ledgers)s::bigint[], %(headers)s::jsonb[], %(digests)s::text[], %(bodies)b::bytea[])
        as t (ledger, headers, sha256, body)
),

settled as (
    update songstats_quota_ledger as ledger
    set
        settled_at = clock_timestamp(),
        status_code = 200,
        billable = true,
        reason = 'stored'
    from answer
    where ledger.id = answer.ledger
    returning ledger.id, ledger.song
)

insert into songstats_responses (song, ledger, status_code, headers, sha256, body)
select
    settled.song,
    settled.id,
    200,
    answer.headers,
    answer.sha256,
    answer.body
from settled
inner join answer on settled.id = answer.ledger
on conflict (ledger) do update set ledger = excluded.ledger
returning ledger, id;

-- name: store
-- A repeated statement finds its rows done and adds no measurements.
with answer as materialized (
    select *
    from unnest(%(songs)s::text[], %(responses)s::bigint[], %(days)b::text[], %(counts)b::text[], %(levels)b::text[])
        as t (song, response, days, counts, levels)
),

settled as (
    update songstats_backfill_queue as queue
    set
        status = 'done',
        outcome = 'stored',
        attempts = queue.attempts + 1,
        attempt_run = 'bare script',
        lease = queue.lease + 1,
        last_status_code = 200,
        updated_at = clock_timestamp()
    from answer
    where queue.song = answer.song and queue.status <> 'done'
    returning queue.song
),

marked as (
    update songstats_responses as response
    set parser_version = 1
    from answer
    where response.id = answer.response
),

stored as (
    insert into song_measurements (song, platform, metric, captured_at, data_source, value, raw_ref)
    select
        answer.song,
        'spotify',
        series.metric,
        point.day::timestamp at time zone 'UTC',
        'songstats',
        point.value,
        'songstats_responses/' || answer.response
    from answer
    inner join settled on answer.song = settled.song
    cross join lateral (
        values
        ('platform_displayed_play_count', answer.counts),
        ('popularity', answer.levels)
    ) as series (metric, "values")
    cross join lateral unnest(answer.days::date[], series."values"::bigint[]) as point (day, value)
)

select settled.song
from settled;
