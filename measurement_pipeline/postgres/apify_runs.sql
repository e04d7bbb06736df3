-- Actor runs: a row before the start, the run's id once it is known, the result as received, and the counts of its mapping.

-- name: of_snapshot
-- The latest run of each chunk.
select distinct on (chunk)
    id,
    chunk,
    album_ids,
    -- Apify's list is searched from here. A future time was written before the clock was set back, so the whole last day is searched.
    case when intended_at > clock_timestamp() then clock_timestamp() - interval '1 day' else intended_at end as intended_at,
    extract(epoch from clock_timestamp() - intended_at)::float8 as age_seconds,
    extract(epoch from clock_timestamp() - coalesce(seen_at, intended_at))::float8 as seconds_since_seen,
    actor_run,
    status,
    message,
    kept_at is not null as has_result,
    mapped_at is not null as is_mapped,
    superseded_at is not null as is_superseded,
    coalesce(albums, 0) as albums,
    coalesce(tracks, 0) as tracks,
    coalesce(without_count, 0) as without_count,
    coalesce(jsonb_array_length(unmapped), 0) as unmapped
from apify_runs
where snapshot = %(snapshot)s and status is distinct from 'SURPLUS'
order by chunk asc, id desc;

-- name: lock_starts
-- Shared by all starts; an operator's pause takes it exclusively. A separate statement, so that the next one sees the pause.
select pg_advisory_xact_lock_shared(hashtextextended('apify_starts', 0));

-- name: intend
-- Inserted before the start, so that a start whose response is lost is searched for and not paid again. Only the owner of the capture
-- may insert; the index apify_runs_one_a_chunk rejects a second run beside one that may have a result.
insert into apify_runs (snapshot, chunk, album_ids, cost_usd, run_id)
select
    snapshot.id,
    %(chunk)s,
    %(album_ids)s::text[],
    %(cost)s,
    %(run)s
from playcount_snapshots as snapshot
where snapshot.id = %(snapshot)s and snapshot.claimed_by = %(run)s and snapshot.state = 'running'
returning id;

-- name: taken
-- Three hours of tolerance, because the clocks of Apify and of this server differ.
select actor_run
from apify_runs
where actor_run is not null and intended_at > %(since)s::timestamptz - interval '3 hours';

-- name: started
update apify_runs
set
    actor_run = %(actor_run)s,
    status = %(status)s
where id = %(id)s and actor_run is null
returning id;

-- name: surplus
-- The start was considered failed and another run was started, then the first response arrived. Both runs are billed.
update apify_runs
set
    actor_run = %(actor_run)s,
    status = 'SURPLUS',
    message = 'started late, beside another'
where id = %(id)s and actor_run is null;

-- name: not_started
update apify_runs
set
    status = 'NOT-STARTED',
    message = %(message)s
where id = %(id)s and actor_run is null;

-- name: seen
update apify_runs
set
    status = %(status)s,
    message = %(message)s,
    seen_at = clock_timestamp(),
    cost_usd = coalesce(%(cost)s, cost_usd),
    finished_at = coalesce(%(finished_at)s, finished_at)
where id = %(id)s and kept_at is null;

-- name: keep
-- No ownership check: what was paid for is never discarded. The first stored part sets the capture's time.
with kept as (
    update apify_runs
    set
        kept_at = clock_timestamp(),
        sha256 = %(sha256)s,
        body = %(body)s
    where id = %(id)s and kept_at is null
    returning snapshot, least(coalesce(finished_at, kept_at), kept_at) as captured_at
)

update playcount_snapshots as snapshot
set captured_at = coalesce(snapshot.captured_at, kept.captured_at)
from kept
where snapshot.id = kept.snapshot;

-- name: body
select body
from apify_runs
where id = %(id)s;

-- name: malformed
update apify_runs
set
    status = 'MALFORMED',
    message = %(message)s
where id = %(id)s;

-- name: map_again
-- Unreadable results are included, because the parser may be newer.
update apify_runs
set
    mapped_at = null,
    status = 'SUCCEEDED',
    message = null
where snapshot = %(snapshot)s and kept_at is not null;

-- name: supersede
update apify_runs
set superseded_at = clock_timestamp()
where snapshot = %(snapshot)s and status in ('FAILED', 'TIMED-OUT', 'ABORTED', 'GONE') and superseded_at is null;

-- name: songs_of_tracks
select
    value as track_id,
    song
from song_identifiers
where platform = 'spotify' and identifier_type = 'track_id' and value = any(%(track_ids)s)
order by track_id, song;

-- name: unmapped
select
    track ->> 'name' as name,
    track ->> 'track_id' as track_id,
    track ->> 'why' as why
from apify_runs as bought
cross join lateral jsonb_array_elements(bought.unmapped) as track
where bought.snapshot = %(snapshot)s and bought.mapped_at is not null
order by (track ->> 'count')::bigint desc, track_id asc
limit %(limit)s;

-- name: paid_by
select coalesce(sum(cost_usd), 0) as usd
from apify_runs
where snapshot = %(snapshot)s and run_id = %(run)s and status is distinct from 'NOT-STARTED';

-- name: hold
-- Returns no row if the run has lost the capture.
select id
from playcount_snapshots
where id = %(snapshot)s and claimed_by = %(run)s and state in ('running', 'done')
for update;

-- name: merge_songs
-- Fills empty columns only; values from a catalogue stay.
insert into songs (isrc, name, artist, album, release_date)
select
    isrc,
    name,
    artist,
    album,
    release_date
from unnest(
    %(isrcs)s::text[], %(names)s::text[], %(artists)s::text[], %(albums)s::text[], %(release_dates)s::date[]
) as met (isrc, name, artist, album, release_date)
order by isrc
on conflict (isrc) do update set
    name = coalesce(songs.name, excluded.name),
    artist = coalesce(songs.artist, excluded.artist),
    album = coalesce(songs.album, excluded.album),
    release_date = coalesce(songs.release_date, excluded.release_date),
    updated_at = now()
where
    (songs.name is null and excluded.name is not null)
    or (songs.artist is null and excluded.artist is not null)
    or (songs.album is null and excluded.album is not null)
    or (songs.release_date is null and excluded.release_date is not null);

-- name: measure
-- Inserts a count if the capture has none for the recording, or a lower one: a recording can be on albums of two parts.
with counted as (
    select
        counted.song,
        counted.value,
        bought.actor_run,
        bought.snapshot,
        -- All parts share one time, except parts bought over an hour later because they were postponed or bought again.
        case
            when captured.captured_at >= part.moment - interval '1 hour' then captured.captured_at
            else part.moment
        end as captured_at
    from unnest(%(songs)s::text[], %(values)s::bigint[]) as counted (song, value)
    inner join apify_runs as bought on bought.id = %(id)s
    inner join playcount_snapshots as captured on bought.snapshot = captured.id
    cross join lateral (select least(coalesce(bought.finished_at, bought.kept_at), bought.kept_at) as moment) as part
)

insert into song_measurements (song, platform, metric, captured_at, data_source, value, raw_ref, snapshot, learnt_at)
select
    counted.song,
    'spotify',
    'platform_displayed_play_count',
    counted.captured_at,
    'apify_spotify_playcount',
    counted.value,
    counted.actor_run,
    counted.snapshot,
    -- Later than the value that it restates, even if the clock was set back in between.
    greatest(now(), newest.learnt_at + interval '1 microsecond')
from counted
left join lateral (
    select
        measurement.value,
        measurement.learnt_at
    from song_measurements as measurement
    where
        measurement.song = counted.song
        and measurement.platform = 'spotify'
        and measurement.metric = 'platform_displayed_play_count'
        and measurement.captured_at = counted.captured_at
        and measurement.data_source = 'apify_spotify_playcount'
    order by measurement.learnt_at desc
    limit 1
) as newest on true
where newest.value is null or newest.value < counted.value
order by counted.song;

-- name: mapped
update apify_runs
set
    mapped_at = clock_timestamp(),
    status = 'SUCCEEDED',
    message = null,
    albums = %(albums)s,
    tracks = %(tracks)s,
    recordings = %(recordings)s,
    without_count = %(without_count)s,
    unmapped = %(unmapped)s
where id = %(id)s;
