-- Captures: the albums that a request names, the monthly cap, reuse of a recent capture of the same albums, and the claim, release
-- and result of a capture. The parts of a capture, which are actor runs, are in apify_runs.sql; series in capture_series.sql.

-- name: albums_of_isrcs
select distinct value as album_id
from song_identifiers
where platform = 'spotify' and identifier_type = 'album_id' and song = any(%(isrcs)s)
order by album_id;

-- name: albums_of_catalog
select distinct identifier.value as album_id
from catalog_songs as listed
inner join song_identifiers as identifier on listed.song = identifier.song
where
    listed.catalog = %(catalog)s
    and identifier.platform = 'spotify'
    and identifier.identifier_type = 'album_id'
order by album_id;

-- name: count_without_album
select count(*) as without_album
from unnest(%(songs)s::text[]) as wanted (song)
where
    not exists (
        select from song_identifiers as identifier
        where
            identifier.song = wanted.song
            and identifier.platform = 'spotify'
            and identifier.identifier_type = 'album_id'
    );

-- name: known_albums
select distinct value as album_id
from song_identifiers
where platform = 'spotify' and identifier_type = 'album_id' and value = any(%(album_ids)s);

-- name: lock_account
-- Requests of one account take turns. This lock is a separate statement, so that the next statement's snapshot sees what the
-- previous holder committed.
select pg_advisory_xact_lock(hashtextextended('playcount_snapshots of ' || %(account)s, 0));

-- name: lock_deployment
-- For the deployment's cap, all accounts take turns.
select pg_advisory_xact_lock(hashtextextended('playcount_snapshots', 0));

-- name: ensure_account
insert into accounts (id)
values (%(account)s)
on conflict (id) do nothing;

-- name: reusable
-- An open or recent capture of the same albums for the same account. Failed captures are not reused.
select
    id,
    state
from playcount_snapshots
where
    account = %(account)s
    and albums_digest = sha256(convert_to(array_to_string(%(album_ids)s::text[], ','), 'UTF8'))
    and (
        state in ('queued', 'running')
        or (state = 'done' and created_at > clock_timestamp() - make_interval(secs => %(reuse_for)s))
    )
order by created_at desc
limit 1;

-- name: recently_captured
-- Of these albums, those with stored counts of the last hour that the account has paid for.
select distinct album.id as album_id
from apify_runs as bought
inner join playcount_snapshots as captured on bought.snapshot = captured.id
cross join lateral unnest(bought.album_ids) as album (id)
where
    captured.account = %(account)s
    and captured.state = 'done'
    and bought.mapped_at is not null
    and captured.created_at > clock_timestamp() - make_interval(secs => %(reuse_for)s)
    and album.id = any(%(album_ids)s::text[]);

-- name: open
-- Under the locks, after the caps were checked.
insert into playcount_snapshots (
    account, catalog, album_ids, albums_digest, isrcs, platforms, schedule, album_count, estimated_cost_usd, reused_album_ids, state
)
values (
    %(account)s,
    %(catalog)s,
    %(album_ids)s::text[],
    sha256(convert_to(array_to_string(%(album_ids)s::text[], ','), 'UTF8')),
    %(isrcs)s::text[],
    %(platforms)s::text[],
    %(schedule)s,
    cardinality(%(album_ids)s::text[]),
    %(cost)s,
    %(reused)s::text[],
    -- If nothing is left to capture, it is done.
    case when %(album_ids)s::text[] <@ %(reused)s::text[] then 'done' else 'queued' end
)
returning id;

-- name: spent_this_month
select
    coalesce(sum(usd) filter (where account = %(account)s), 0) as spent,
    coalesce(sum(usd), 0) as spent_by_all
from playcount_spent_this_month;

-- name: seconds_left_this_month
select
    extract(
        epoch from (date_trunc('month', clock_timestamp() at time zone 'UTC') + interval '1 month') at time zone 'UTC'
        - clock_timestamp()
    ) as seconds;

-- name: start_series
-- A repeated request finds the same series and restarts it if it was stopped.
insert into playcount_series (account, catalog, album_ids, albums_digest, isrcs, platforms)
values (
    %(account)s,
    %(catalog)s,
    %(album_ids)s::text[],
    sha256(convert_to(array_to_string(%(album_ids)s::text[], ','), 'UTF8')),
    %(isrcs)s::text[],
    %(platforms)s::text[]
)
on conflict (account, albums_digest) do update set stopped_at = null, started_at = now()
where playcount_series.stopped_at is not null;

-- name: due
-- Captures without an owner, or whose owner's last heartbeat is older than the claim timeout.
select snapshot.id
from playcount_snapshots as snapshot
left join run_heartbeats as owner on snapshot.claimed_by = owner.run_id
where
    snapshot.state in ('queued', 'running')
    and (snapshot.not_before is null or snapshot.not_before <= clock_timestamp())
    and (
        snapshot.claimed_by is null
        or coalesce(owner.beat_at < clock_timestamp() - make_interval(secs => %(claim_timeout)s), true)
    )
    -- A pause stops new actor runs. One that was started has been paid for, and its result is fetched.
    and (
        not exists (
            select from active_purchase_pauses as pause
            where pause.stops_apify or pause.account = snapshot.account
        )
        or exists (
            select from apify_runs as bought
            where
                bought.snapshot = snapshot.id
                and bought.mapped_at is null
                and bought.superseded_at is null
                and coalesce(bought.status not in ('NOT-STARTED', 'SURPLUS', 'FAILED', 'TIMED-OUT', 'ABORTED', 'GONE', 'MALFORMED'), true)
        )
    )
order by snapshot.created_at, snapshot.id
limit %(limit)s;

-- name: open_count
select
    count(*) as open,
    count(*) filter (where not_before > clock_timestamp()) as waiting,
    min(not_before) filter (where not_before > clock_timestamp()) as next_at
from playcount_snapshots
where state in ('queued', 'running');

-- name: claim
-- One owner a capture. An operator's launch also claims a capture that has ended or waits.
update playcount_snapshots as snapshot
set
    state = 'running',
    claimed_by = %(run)s,
    attempts = case
        when snapshot.state in ('done', 'failed') then 1
        when snapshot.claimed_by = %(run)s then snapshot.attempts
        else snapshot.attempts + 1
    end,
    error = case when snapshot.state in ('done', 'failed') then null else snapshot.error end,
    not_before = null,
    updated_at = case when snapshot.state = 'running' then snapshot.updated_at else clock_timestamp() end
where
    snapshot.id = %(snapshot)s
    and (snapshot.state in ('queued', 'running') or %(operator)s)
    and (%(operator)s or snapshot.not_before is null or snapshot.not_before <= clock_timestamp())
    and (
        snapshot.claimed_by is null
        or snapshot.claimed_by = %(run)s
        or not exists (
            select from run_heartbeats as owner
            where
                owner.run_id = snapshot.claimed_by
                and owner.beat_at >= clock_timestamp() - make_interval(secs => %(claim_timeout)s)
        )
    )
returning
    array(
        select album.id
        from unnest(snapshot.album_ids) with ordinality as album (id, place)
        where album.id <> all(snapshot.reused_album_ids)
        order by album.place
    ) as album_ids,
    cardinality(snapshot.reused_album_ids) as reused_albums,
    snapshot.attempts;

-- name: claim_done
-- Claims a done capture while its stored results are mapped again. Its state and its requests do not change.
update playcount_snapshots as snapshot
set claimed_by = %(run)s
where
    snapshot.id = %(snapshot)s
    and snapshot.state = 'done'
    and (
        snapshot.claimed_by is null
        or snapshot.claimed_by = %(run)s
        or not exists (
            select from run_heartbeats as owner
            where
                owner.run_id = snapshot.claimed_by
                and owner.beat_at >= clock_timestamp() - make_interval(secs => %(claim_timeout)s)
        )
    )
returning snapshot.error;

-- name: release_done
update playcount_snapshots
set claimed_by = null
where id = %(snapshot)s and claimed_by = %(run)s and state = 'done';

-- name: reset_captured_at
-- A failed capture that is bought again gets the time of the new purchase, unless measurements of it exist.
update playcount_snapshots
set captured_at = null
where
    id = %(snapshot)s
    and not exists (select from song_measurements as measured where measured.snapshot = %(snapshot)s);

-- name: reopen
-- An operator has relaunched the capture, so its requests wait for it again.
update measurement_jobs
set
    state = 'accepted',
    status_code = 202,
    error = null,
    updated_at = now()
where snapshot = %(snapshot)s and state in ('done', 'failed');

-- name: stop
-- The owner notices that it lost the capture, because claimed_by is null.
update playcount_snapshots
set
    state = 'failed',
    status_code = 500,
    error = %(error)s,
    claimed_by = null,
    not_before = null,
    updated_at = clock_timestamp()
where id = %(snapshot)s and state in ('queued', 'running')
returning id;

-- name: recently_done
-- Older captures are left out, because the hourly sweep has checked them many times.
select id
from playcount_snapshots
where state = 'done' and updated_at > clock_timestamp() - make_interval(days => %(days)s)
order by updated_at, id;

-- name: with_deferred_tracks
-- Captures with tracks whose lookup at Spotify was deferred.
select captured.id
from playcount_snapshots as captured
where
    captured.state = 'done'
    and captured.unmapped > 0
    and captured.updated_at > clock_timestamp() - make_interval(days => %(days)s)
    and exists (
        select
        from apify_runs as bought
        cross join lateral jsonb_array_elements(bought.unmapped) as track
        where bought.snapshot = captured.id and (track ->> 'deferred')::boolean
    )
order by captured.updated_at, captured.id
limit %(limit)s;

-- name: release
-- Ends the claim and stores the reason. The attempt is refunded if the capture did not cause the failure.
update playcount_snapshots
set
    claimed_by = null,
    -- Default: a quarter of its age, from a minute to an hour.
    not_before = clock_timestamp() + make_interval(
        secs => coalesce(
            %(wait)s::float8,
            least(3600, greatest(60, extract(epoch from clock_timestamp() - created_at)::float8 / 4))
        )
    ),
    error = %(error)s,
    attempts = greatest(attempts - %(attempts_back)s, 0)
where id = %(snapshot)s and claimed_by = %(run)s and state = 'running';

-- name: finish
-- The totals are the sums over its actor runs.
update playcount_snapshots as snapshot
set
    state = %(state)s,
    status_code = %(status_code)s,
    error = %(error)s,
    claimed_by = null,
    not_before = null,
    tracks = total.tracks,
    recordings = total.recordings,
    without_count = total.without_count,
    unmapped = total.unmapped,
    -- A capture that was done before keeps its end: only its figures changed.
    updated_at = case when snapshot.state = %(state)s then snapshot.updated_at else clock_timestamp() end
from (
    select
        coalesce(sum(tracks), 0) as tracks,
        (select count(distinct song) from song_measurements where snapshot = %(snapshot)s) as recordings,
        coalesce(sum(without_count), 0) as without_count,
        coalesce(sum(jsonb_array_length(unmapped)), 0) as unmapped
    from apify_runs
    where snapshot = %(snapshot)s and mapped_at is not null
) as total
where snapshot.id = %(snapshot)s and snapshot.claimed_by = %(run)s
returning snapshot.id;

-- name: get
select
    id,
    partition_key,
    account,
    catalog,
    schedule,
    state,
    status_code,
    album_count,
    estimated_cost_usd,
    error,
    attempts,
    claimed_by,
    not_before,
    tracks,
    recordings,
    without_count,
    unmapped,
    cardinality(isrcs) as isrcs,
    -- An id in Spotify's format may be a real album, even if the actor returned nothing for it.
    (select bool_or(album.id ~ '^[0-9A-Za-z]{22}$') from unnest(album_ids) as album (id)) as may_exist,
    array(
        select request.id from measurement_jobs as request
        where request.snapshot = playcount_snapshots.id
        order by request.created_at
    ) as jobs,
    created_at,
    updated_at
from playcount_snapshots
where id = %(snapshot)s;

-- name: recent_captures
select
    id,
    account,
    schedule,
    state,
    coalesce(state in ('queued', 'running') and not_before > clock_timestamp(), false) as waits,
    album_count,
    estimated_cost_usd,
    recordings,
    not_before,
    error,
    created_at,
    updated_at
from playcount_snapshots
where (%(account)s::uuid is null or account = %(account)s)
order by created_at desc, id desc
limit %(limit)s;
