-- Requests: processed one at a time under a row lock, resolved into recordings, and settled when all of these are.

-- name: submit
insert into measurement_jobs (account, source, scope, schedule, recording_limit, coverage, callback_url)
values (%(account)s, %(source)s, %(scope)s, %(schedule)s, %(limit)s, %(coverage)s, %(callback_url)s)
returning id;

-- name: submit_once
-- Of two concurrent requests with the same key, the second waits here for the first and then inserts nothing.
insert into measurement_jobs (
    account, source, scope, schedule, recording_limit, coverage, callback_url, idempotency_key, idempotency_digest
)
values (
    %(account)s, %(source)s, %(scope)s, %(schedule)s, %(limit)s, %(coverage)s, %(callback_url)s, %(key)s, %(digest)s
)
on conflict (account, idempotency_key) where idempotency_key is not null do nothing
returning id;

-- name: release_key
-- A request that the monthly cap or a missing card rejected was not done. The same request may be accepted later.
update measurement_jobs
set
    idempotency_key = null,
    idempotency_digest = null
where
    account = %(account)s
    and idempotency_key = %(key)s
    and idempotency_digest = %(digest)s
    and state = 'rejected'
    and status_code in (402, 429);

-- name: of_key
select
    id,
    idempotency_digest
from measurement_jobs
where account = %(account)s and idempotency_key = %(key)s;

-- name: queued_one
select
    id,
    account,
    state,
    attempts,
    coalesce(source = 'historical', false) as is_historical
from measurement_jobs
where id = %(job)s and state = 'queued';

-- name: waiting
-- Due requests of one state, one of each account in turn, so that an account with many requests delays no other. Reads only narrow
-- columns, none that a client may write at length; the index has all that the selection needs.
with numbered as (
    select
        id,
        created_at,
        row_number() over (partition by account order by created_at, id) as turn
    from measurement_jobs
    where state = %(state)s and (not_before is null or not_before <= now())
),

chosen as materialized (
    select
        id,
        turn
    from numbered
    where turn <= %(limit)s
    order by turn, created_at, id
    limit %(limit)s
)

select
    request.id,
    request.account,
    request.state,
    request.attempts,
    request.is_historical
from chosen
-- The limit makes the planner look up each row by its key instead of reading the table.
cross join
    lateral (
        select
            job.id,
            job.account,
            job.state,
            job.attempts,
            job.created_at,
            coalesce(job.source = 'historical', false) as is_historical
        from measurement_jobs as job
        where job.id = chosen.id
        limit 1
    ) as request
order by chosen.turn, request.created_at, request.id;

-- name: documents
-- The clients' input. A request above the size limit, inserted before the limit existed, is not sent. The scope is sent as text and
-- parsed request by request: Python cannot parse every document that PostgreSQL accepts.
select
    request.id,
    sized.fits,
    case when sized.fits then request.source end as source,
    case when sized.fits then request.scope::text end as scope,
    case when sized.fits then request.platforms end as platforms,
    case when sized.fits then request.schedule end as schedule,
    request.recording_limit,
    request.coverage,
    request.callback_url,
    request.created_at < now() - make_interval(secs => %(patience)s) as is_expired
from measurement_jobs as request
-- The limit keeps the planner from computing the size for each use.
cross join
    lateral (
        select measurement_job_bytes(request.source, request.scope, request.platforms, request.schedule) <= %(max_bytes)s as fits
        limit 1
    ) as sized
where request.id = any(%(jobs)s);

-- name: waiting_count
select count(*) as waiting
from (
    select 1
    from measurement_jobs
    where state = 'queued' and (not_before is null or not_before <= now())
    limit %(limit)s
) as counted;

-- name: work_waiting
-- Each branch reads a partial index.
select
where
    exists (
        select from measurement_jobs
        where state = 'queued' and (not_before is null or not_before <= now())
    )
    or exists (
        select from measurement_jobs
        where state = 'accepted' and snapshot is null and partitions_at is null
    );

-- name: small
-- A request of another account's catalogue is rejected, so the size of that catalogue does not matter.
select request.id
from measurement_jobs as request
where
    request.id = any(%(jobs)s)
    and measurement_job_bytes(request.source, request.scope, request.platforms, request.schedule) <= %(max_bytes)s
    and not exists (
        select
        from catalogs as catalog
        inner join lateral (
            select count(*) as recordings
            from (
                select from catalog_songs as listed
                where listed.catalog = catalog.id
                limit %(max_recordings)s + 1
            ) as counted
        ) as sized on sized.recordings > %(max_recordings)s
        where catalog.account = request.account and catalog.id::text = lower(request.scope ->> 'catalog_id')
    );

-- name: begin_attempts
-- Counted and committed before the requests are read, so that a request that kills its process fails after a few attempts. Rows are
-- locked in `id` order, which prevents deadlocks.
with locked as materialized (
    select id
    from measurement_jobs
    where id = any(%(jobs)s) and state = %(state)s
    order by id
    for update
)

update measurement_jobs as request
set
    attempts = request.attempts + 1,
    run_id = coalesce(%(run)s, request.run_id)
from locked
where request.id = locked.id
returning request.id, request.attempts;

-- name: end_attempts
-- Reading these requests succeeded: later attempts are counted separately.
with locked as materialized (
    select id
    from measurement_jobs
    where id = any(%(jobs)s) and state = %(state)s and attempts > 0
    order by id
    for update
)

update measurement_jobs as request
set attempts = request.attempts - 1
from locked
where request.id = locked.id;

-- name: lock
-- No row if the state has changed since the selection. A concurrent process waits here and then finds no row.
select id
from measurement_jobs
where id = %(job)s and state = %(state)s
for update;

-- name: answer
-- An unpaid request gets the same answer every hour, which does not change its state.
update measurement_jobs
set
    state = %(state)s,
    status_code = %(status_code)s,
    error = %(error)s,
    checkout_url = %(checkout_url)s,
    estimated_cost_usd = coalesce(%(cost)s, estimated_cost_usd),
    not_before = null,
    attempts = 0,
    updated_at = case when state = %(state)s then updated_at else now() end
where id = %(job)s and state = %(was)s;

-- name: postpone
-- The request keeps its state. The attempt is returned if the request was not the cause.
update measurement_jobs
set
    -- Default: a quarter of its age, from a minute to an hour.
    not_before = now() + make_interval(
        secs => coalesce(%(wait)s::float8, least(3600, greatest(60, extract(epoch from now() - created_at)::float8 / 4)))
    ),
    error = %(error)s,
    attempts = greatest(attempts - %(attempts_back)s, 0)
where id = %(job)s and state = any(%(states)s);

-- name: ask_for_isrcs
with known as (
    insert into songs (isrc)
    select isrc
    from unnest(%(isrcs)s::text[]) as asked (isrc)
    order by isrc
    on conflict (isrc) do nothing
)

insert into measurement_job_songs (job, song)
select
    %(job)s,
    isrc
from unnest(%(isrcs)s::text[]) as asked (isrc)
order by isrc
on conflict (song, job) do nothing;

-- name: ask_for_albums
insert into measurement_job_songs (job, song)
select distinct
    %(job)s::uuid,
    song
from song_identifiers
where platform = 'spotify' and identifier_type = 'album_id' and value = any(%(album_ids)s)
order by song
on conflict (song, job) do nothing;

-- name: catalog_is_theirs
select
from catalogs
where id = %(catalog)s and account = %(account)s;

-- name: ask_for_catalog
insert into measurement_job_songs (job, song)
select
    %(job)s,
    song
from catalog_songs
where catalog = %(catalog)s
order by song
on conflict (song, job) do nothing;

-- name: rank
-- Known plays, most played first: those that the queue ranks by, or else the latest count.
select
    wanted.song,
    coalesce(queue.rank_score, latest.play_count, 0) as plays,
    coalesce(
        queue.status = 'done'
        or (queue.status = 'failed' and queue.outcome = 'malformed')
        or (
            queue.song is null
            and exists (
                select from song_measurements as measurement
                where
                    measurement.song = wanted.song
                    and measurement.platform = 'spotify'
                    and measurement.metric = 'platform_displayed_play_count'
                    and measurement.data_source = 'songstats'
            )
        ),
        false
    ) as is_owned
from unnest(%(songs)s::text[]) as wanted (song)
left join songstats_backfill_queue as queue on wanted.song = queue.song
-- `limit 1` makes the planner read one recording at a time, and none that is queued.
left join lateral (
    select latest_counts.play_count
    from latest_counts
    where queue.song is null and latest_counts.song = wanted.song
    limit 1
) as latest on true
order by plays desc, wanted.song asc;

-- name: recordings
select song
from measurement_job_songs
where job = %(job)s;

-- name: record_left_out
update measurement_jobs
set
    left_out = %(left_out)s,
    covered_share = %(covered)s
where id = %(job)s;

-- name: enqueue
-- Turns a request's recordings into queue rows in one statement: new ones ranked by their latest count, owned ones as done,
-- exhausted ones pending again. All other existing rows stay unchanged.
with wanted as materialized (
    select asked.song
    from measurement_job_songs as asked
    where asked.job = %(job)s
),

existing as materialized (
    select
        queue.song,
        queue.status,
        queue.outcome
    from wanted
    inner join songstats_backfill_queue as queue on wanted.song = queue.song
),

exhausted as materialized (
    select queue.song
    from existing
    inner join songstats_backfill_queue as queue on existing.song = queue.song
    where existing.outcome = 'exhausted' and queue.status = 'failed' and queue.outcome = 'exhausted'
    order by queue.song
    for update of queue
),

reopened as (
    update songstats_backfill_queue as queue
    set
        status = 'pending',
        outcome = null,
        attempts = 0,
        attempt_run = null,
        not_before = null,
        suspect = false,
        requeued_at = clock_timestamp(),
        updated_at = clock_timestamp()
    from exhausted
    where queue.song = exhausted.song
    returning queue.song
),

fresh as (
    select
        wanted.song,
        coalesce(latest.play_count, 0) as rank_score,
        exists(
            select from song_measurements as measurement
            where
                measurement.song = wanted.song
                and measurement.platform = 'spotify'
                and measurement.metric = 'platform_displayed_play_count'
                and measurement.data_source = 'songstats'
        ) as owned
    from wanted
    left join song_latest_counts as latest on wanted.song = latest.song
    where not exists (select from existing where existing.song = wanted.song)
),

added as (
    insert into songstats_backfill_queue (song, rank_score, status, outcome, account)
    select
        fresh.song,
        fresh.rank_score,
        case when fresh.owned then 'done' else 'pending' end as status,
        case when fresh.owned then 'stored' end as outcome,
        -- No other request wants it, so this one pays. The planner would set it too, with another write of each row.
        (select request.account from measurement_jobs as request where request.id = %(job)s) as account
    from fresh
    order by fresh.song
    -- If another request queued it since this statement's snapshot, the row belongs to that request.
    on conflict (song) do nothing
    returning songstats_backfill_queue.status
),

receipt as (
    select
        (select count(*) from wanted) as asked,
        (select count(*) from reopened) + (select count(*) from added where added.status = 'pending') as enqueued,
        (select count(*) from added where added.status = 'done')
        + (
            select count(*) from existing
            where existing.status = 'done' or (existing.status = 'failed' and existing.outcome = 'malformed')
        ) as skipped
)

update measurement_jobs as request
set
    state = 'accepted',
    status_code = 202,
    error = null,
    checkout_url = null,
    not_before = null,
    attempts = 0,
    asked = receipt.asked,
    enqueued = receipt.enqueued,
    skipped = receipt.skipped,
    updated_at = now()
from receipt
where request.id = %(job)s
returning request.asked, request.enqueued, request.skipped;

-- name: accept_capture
-- A capture answers a current request. `error` describes what the capture leaves out.
update measurement_jobs
set
    state = 'accepted',
    status_code = 202,
    error = %(error)s,
    checkout_url = null,
    not_before = null,
    attempts = 0,
    asked = %(asked)s,
    skipped = %(skipped)s,
    snapshot = %(snapshot)s,
    estimated_cost_usd = %(cost)s,
    reused = %(reused)s,
    updated_at = now()
where id = %(job)s and state = %(was)s;

-- name: settle_captures
-- Requests get the state of the capture that answers them. What it leaves out was recorded at acceptance.
update measurement_jobs as request
set
    state = captured.state,
    status_code = case when captured.state = 'failed' then captured.status_code else request.status_code end,
    error = nullif(concat_ws('; ', captured.error, request.error), ''),
    updated_at = now()
from playcount_snapshots as captured
where
    request.snapshot = captured.id
    and request.state = 'accepted'
    and captured.state in ('done', 'failed')
    and (%(jobs)s::uuid[] is null or request.id = any(%(jobs)s))
returning request.id;

-- name: correct_error
-- After a capture was mapped again, replaces its old error in the requests that it answered. The part after it, which `settle_captures`
-- appended, stays.
update measurement_jobs
set error = nullif(concat_ws('; ', %(error)s::text, nullif(substr(error, length(%(before)s::text) + 3), '')), '')
where
    snapshot = %(snapshot)s
    and state = 'done'
    and (error = %(before)s or starts_with(error, %(before)s::text || '; '));

-- name: settle
update measurement_jobs as request
set
    state = 'done',
    updated_at = now()
where
    request.state = 'accepted'
    and request.snapshot is null
    and (%(jobs)s::uuid[] is null or request.id = any(%(jobs)s))
    and not exists (
        select
        from measurement_job_songs as asked
        inner join songstats_backfill_queue as queue on asked.song = queue.song
        where
            asked.job = request.id
            and (queue.status in ('pending', 'in_progress') or (queue.status = 'failed' and queue.outcome = 'transient'))
    )
returning request.id;

-- name: reopen
-- An operator requeued recordings: the requests that want them are open again, and pay.
update measurement_jobs as request
set
    state = 'accepted',
    updated_at = now()
where
    request.state = 'done'
    and request.id in (select asked.job from measurement_job_songs as asked where asked.song = any(%(songs)s))
returning request.id;

-- name: unpaid_accounts
-- Accounts of accepted requests whose last payment decision is denied: a card may be on file by now.
select distinct request.account
from measurement_jobs as request
inner join payment_decisions as decision on request.account = decision.account
where request.state = 'accepted' and decision.verdict = 'denied';

-- name: list
select
    request.id,
    request.account,
    left(request.source, %(shown)s) as source,
    request.state,
    request.status_code,
    request.error,
    request.checkout_url,
    request.asked,
    request.enqueued,
    request.skipped,
    request.created_at,
    request.updated_at
from measurement_jobs as request
where (%(account)s::uuid is null or request.account = %(account)s)
order by request.created_at desc, request.id desc
limit %(limit)s;

-- name: page
select
    id,
    account,
    left(source, %(shown)s) as source,
    case when measurement_job_bytes(source, scope, platforms, schedule) <= %(max_bytes)s then scope::text end as scope,
    left(schedule, %(shown)s) as schedule,
    state,
    status_code,
    error,
    checkout_url,
    asked,
    enqueued,
    skipped,
    recording_limit,
    coverage,
    left_out,
    covered_share,
    callback_url,
    estimated_cost_usd,
    reused,
    created_at,
    updated_at
from measurement_jobs
where
    account = %(account)s
    and (%(at)s::timestamptz is null or (created_at, id) < (%(at)s::timestamptz, %(job)s::uuid))
order by created_at desc, id desc
limit %(limit)s;

-- name: answer_to
select
    request.id,
    request.source,
    request.state,
    request.status_code,
    request.error,
    request.checkout_url,
    request.enqueued,
    request.skipped,
    request.estimated_cost_usd,
    request.reused,
    captured.album_count
from measurement_jobs as request
left join playcount_snapshots as captured on request.snapshot = captured.id
where request.id = %(job)s and request.account = %(account)s;

-- name: withdraw
-- Its recordings are no longer due unless another request wants them: only accepted requests pay. Stored data stays.
-- A monthly request is open as long as its series continues.
update measurement_jobs as request
set
    state = 'withdrawn',
    not_before = null,
    updated_at = now()
where
    request.id = %(job)s
    and request.account = %(account)s
    and (
        request.state in ('queued', 'payment_required', 'accepted')
        or (
            request.state in ('done', 'failed')
            and request.schedule = 'monthly'
            and exists (
                select
                from playcount_snapshots as captured
                inner join playcount_series as series
                    on captured.account = series.account and captured.albums_digest = series.albums_digest
                where captured.id = request.snapshot and series.stopped_at is null
            )
        )
    )
returning request.id;

-- name: end_series
-- Stops the monthly series of a withdrawn request, unless another request of the account wants the same albums.
with unwanted as (
    select
        captured.account,
        captured.albums_digest
    from measurement_jobs as request
    inner join playcount_snapshots as captured on request.snapshot = captured.id
    where
        request.id = %(job)s
        and request.account = %(account)s
        and request.schedule = 'monthly'
        and not exists (
            select
            from measurement_jobs as another
            inner join playcount_snapshots as theirs on another.snapshot = theirs.id
            inner join playcount_series as series
                on theirs.account = series.account and theirs.albums_digest = series.albums_digest
            where
                another.account = request.account
                and another.id <> request.id
                and another.schedule = 'monthly'
                and another.state in ('accepted', 'done', 'failed')
                and theirs.albums_digest = captured.albums_digest
                -- A request that had ended when an operator stopped the series no longer counts.
                and another.updated_at >= series.started_at
        )
)

update playcount_series as series
set stopped_at = clock_timestamp()
from unwanted
where
    series.account = unwanted.account
    and series.albums_digest = unwanted.albums_digest
    and series.stopped_at is null;

-- name: drop_capture
-- Cancels a capture, of the request or later of its series, that no run has started and no other request or series wants. It has cost
-- nothing.
with unwanted as (
    select captured.id
    from measurement_jobs as request
    inner join playcount_snapshots as answered on request.snapshot = answered.id
    inner join playcount_snapshots as captured
        on answered.account = captured.account and answered.albums_digest = captured.albums_digest
    where
        request.id = %(job)s
        and request.account = %(account)s
        and not exists (
            select from measurement_jobs as another
            where another.snapshot = captured.id and another.id <> request.id and another.state = 'accepted'
        )
        and not exists (select from apify_runs as begun where begun.snapshot = captured.id)
        and not exists (
            select from playcount_series as series
            where
                series.account = captured.account
                and series.albums_digest = captured.albums_digest
                and series.stopped_at is null
        )
)

update playcount_snapshots as captured
set
    state = 'failed',
    error = 'withdrawn before it was begun',
    updated_at = clock_timestamp()
from unwanted
where captured.id = unwanted.id and captured.state = 'queued' and captured.attempts = 0;

-- name: state_of
select state
from measurement_jobs
where id = %(job)s and account = %(account)s;

-- name: show
select
    request.id,
    request.account,
    left(request.source, %(shown)s) as source,
    case when sized.fits then request.scope::text end as scope,
    case when sized.fits then request.platforms end as platforms,
    request.state,
    request.status_code,
    request.error,
    request.checkout_url,
    request.asked,
    request.enqueued,
    request.skipped,
    request.recording_limit,
    request.coverage,
    request.left_out,
    request.covered_share,
    request.callback_url,
    left(request.schedule, %(shown)s) as schedule,
    request.idempotency_key,
    request.snapshot,
    request.estimated_cost_usd,
    request.reused,
    request.attempts,
    request.not_before,
    request.run_id,
    request.created_at,
    request.updated_at,
    request.partitions_at,
    captured.state as snapshot_state,
    captured.error as snapshot_error,
    captured.album_count,
    captured.tracks,
    captured.recordings,
    captured.without_count,
    captured.unmapped,
    count(asked.song) filter (
        where queue.status = 'done' or (queue.status = 'failed' and queue.outcome in ('malformed', 'exhausted'))
    ) as settled,
    count(asked.song) filter (where queue.outcome = 'stored') as stored,
    count(asked.song) filter (where queue.outcome = 'no_history') as no_history,
    count(asked.song) filter (where queue.outcome = 'rejected') as rejected,
    count(asked.song) filter (where queue.outcome in ('malformed', 'exhausted')) as failed,
    (
        select count(*)
        from songstats_quota_ledger as ledger
        where ledger.job = request.id and ledger.billable is distinct from false
    ) as hits
from measurement_jobs as request
cross join
    lateral (
        select measurement_job_bytes(request.source, request.scope, request.platforms, request.schedule) <= %(max_bytes)s as fits
        limit 1
    ) as sized
left join measurement_job_songs as asked on request.id = asked.job
left join songstats_backfill_queue as queue on asked.song = queue.song
left join playcount_snapshots as captured on request.snapshot = captured.id
where request.id = %(job)s and request.account = coalesce(%(account)s, request.account)
group by request.id, captured.id, sized.fits;

-- name: estimate
-- What a set of recordings would cost. Read-only.
select
    count(*) as asked,
    count(*) filter (
        where queue.status = 'done'
        or (queue.status = 'failed' and queue.outcome = 'malformed')
        or (
            queue.song is null
            and exists (
                select from song_measurements as measurement
                where
                    measurement.song = wanted.song
                    and measurement.platform = 'spotify'
                    and measurement.metric = 'platform_displayed_play_count'
                    and measurement.data_source = 'songstats'
            )
        )
    ) as owned,
    count(*) filter (
        where queue.status in ('pending', 'in_progress') or (queue.status = 'failed' and queue.outcome = 'transient')
    ) as queued
from unnest(%(songs)s::text[]) as wanted (song)
left join songstats_backfill_queue as queue on wanted.song = queue.song;

-- name: songs_of_albums
select distinct song
from song_identifiers
where platform = 'spotify' and identifier_type = 'album_id' and value = any(%(album_ids)s);

-- name: songs_of_catalog
select song
from catalog_songs
where catalog = %(catalog)s;

-- name: without_partitions
-- The oldest requests that together have the given number of recordings; at least one.
with counted as (
    select
        id,
        sum(coalesce(asked, 0)) over (order by created_at, id) - coalesce(asked, 0) as recordings_before
    from measurement_jobs
    where state = 'accepted' and snapshot is null and partitions_at is null
)

select id
from counted
where recordings_before < %(recordings)s
order by recordings_before
limit %(requests)s;

-- name: songs_by_rank
select queue.song
from songstats_backfill_queue as queue
where queue.song in (select wanted.song from measurement_job_songs as wanted where wanted.job = any(%(jobs)s::uuid[]))
order by queue.rank_score desc, queue.created_at asc, queue.song asc;

-- name: with_partitions
update measurement_jobs
set partitions_at = clock_timestamp()
where id = any(%(jobs)s::uuid[]);
