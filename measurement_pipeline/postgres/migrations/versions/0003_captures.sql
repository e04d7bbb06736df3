-- Captures: the play counts that Spotify displays today, of whole albums, through an actor at Apify.

alter table measurement_jobs add column schedule text default 'once';
alter table measurement_jobs add column estimated_cost_usd numeric(10, 4);
alter table measurement_jobs add column reused boolean;
comment on column measurement_jobs.schedule is 'once, or monthly: a current request that is to be captured anew every 30 days. Unconstrained on purpose, like source.';
comment on column measurement_jobs.estimated_cost_usd is 'What a current request costs, in US dollars: albums × 0.003; 0 where an earlier capture answers it. Null for historical ones.';
comment on column measurement_jobs.reused is 'Whether a capture of the same albums, made within the hour, answers it. Null for historical ones.';
comment on column measurement_jobs.status_code is 'The answer as an HTTP status: 202 accepted, 400 rejected, 402 no card on file, 429 over the monthly cap of captures, 500 failed. Null while queued.';
comment on column measurement_jobs.state is 'queued → accepted → done; rejected (400, 429, or 402 when unpaid for 7 days); payment_required (402) → accepted once a card is on file; failed (intake gave up, or the capture failed: see error); withdrawn.';
create index measurement_jobs_snapshot on measurement_jobs (snapshot) where snapshot is not null;

create table playcount_series (
    id uuid primary key default gen_random_uuid(),
    account uuid not null references accounts (id),
    catalog uuid references catalogs (id),
    album_ids text[] not null,
    albums_digest bytea not null,
    isrcs text[],
    platforms text[] not null,
    created_at timestamptz not null default clock_timestamp(),
    stopped_at timestamptz,
    unique (account, albums_digest)
);
comment on table playcount_series is 'What is captured anew every 30 days: one row an account and set of albums.';
comment on column playcount_series.id is 'The series.';
comment on column playcount_series.account is 'Who asked for it.';
comment on column playcount_series.catalog is 'The catalogue it was asked for by; null where albums or recordings were named.';
comment on column playcount_series.album_ids is 'The Spotify albums, sorted, as they were when it was asked for.';
comment on column playcount_series.albums_digest is 'SHA-256 of the album ids: what makes two sets the same.';
comment on column playcount_series.isrcs is 'The recordings it was asked for by; null otherwise.';
comment on column playcount_series.platforms is 'Whose counts are asked for.';
comment on column playcount_series.created_at is 'When it was first asked for.';
comment on column playcount_series.stopped_at is 'Stopped by a person: nothing is captured for it any more. Asking for it again starts it again.';

create table playcount_snapshots (
    id uuid primary key default gen_random_uuid(),
    account uuid not null references accounts (id),
    catalog uuid references catalogs (id),
    album_ids text[] not null,
    albums_digest bytea not null,
    isrcs text[],
    platforms text[] not null,
    schedule text not null check (schedule in ('once', 'monthly')),
    state text not null default 'queued' check (state in ('queued', 'running', 'done', 'failed')),
    album_count int not null check (album_count > 0),
    estimated_cost_usd numeric(10, 4) not null,
    error text,
    attempts int not null default 0,
    claimed_by text,
    not_before timestamptz,
    captured_at timestamptz,
    tracks int,
    recordings int,
    without_count int,
    unmapped int,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp()
);
comment on table playcount_snapshots is 'One row a capture: what Spotify displays for a set of albums, taken once.';
comment on column playcount_snapshots.id is 'The capture: measurement_jobs.snapshot and song_measurements.snapshot.';
comment on column playcount_snapshots.account is 'Whose monthly cap it counts against.';
comment on column playcount_snapshots.catalog is 'The catalogue it was asked for by; null where albums or recordings were named.';
comment on column playcount_snapshots.album_ids is 'The Spotify albums, sorted.';
comment on column playcount_snapshots.albums_digest is 'SHA-256 of the album ids: what makes two sets the same.';
comment on column playcount_snapshots.isrcs is 'The recordings it was asked for by; null otherwise.';
comment on column playcount_snapshots.platforms is 'Whose counts are captured.';
comment on column playcount_snapshots.schedule is 'once, or monthly: part of a series.';
comment on column playcount_snapshots.state is 'queued → running → done; failed: nothing could be captured, see error. done with an error: part of the albums is missing.';
comment on column playcount_snapshots.album_count is 'How many albums.';
comment on column playcount_snapshots.estimated_cost_usd is 'What it is to cost, in US dollars: albums × 0.003. Counts against the month (UTC) in which it was made.';
comment on column playcount_snapshots.error is 'Why it failed, what is missing, or what it waits for, in words; the actor''s own where it has any.';
comment on column playcount_snapshots.attempts is 'Runs that took it up. Capped; given back where the vendor was away.';
comment on column playcount_snapshots.claimed_by is 'The Dagster run that works on it, while running.';
comment on column playcount_snapshots.not_before is 'Left alone until then.';
comment on column playcount_snapshots.captured_at is 'The moment that its counts are for: when the actor was done with the first part that was kept, by Apify''s clock, and never ahead of the database''s.';
comment on column playcount_snapshots.tracks is 'Tracks that were captured; a recording on two albums is two.';
comment on column playcount_snapshots.recordings is 'Recordings that were measured.';
comment on column playcount_snapshots.without_count is 'Tracks without a usable count: not captured by the actor, and no measurement.';
comment on column playcount_snapshots.unmapped is 'Tracks of which no ISRC is known yet: apify_runs.unmapped names them.';
comment on column playcount_snapshots.created_at is 'When it was asked for.';
comment on column playcount_snapshots.updated_at is 'When its state last changed.';
create index playcount_snapshots_open on playcount_snapshots (created_at) where state in ('queued', 'running');
create index playcount_snapshots_account on playcount_snapshots (account, created_at);

create table apify_runs (
    id bigint generated always as identity primary key,
    snapshot uuid not null references playcount_snapshots (id),
    chunk int not null,
    album_ids text[] not null,
    cost_usd numeric(10, 4) not null,
    run_id text not null,
    intended_at timestamptz not null default clock_timestamp(),
    actor_run text unique,
    status text,
    message text,
    finished_at timestamptz,
    superseded_at timestamptz,
    kept_at timestamptz,
    sha256 text,
    body bytea,
    mapped_at timestamptz,
    albums int,
    tracks int,
    recordings int,
    without_count int,
    unmapped jsonb,
    constraint apify_runs_kept_whole check ((kept_at is null) = (body is null) and (kept_at is null) = (sha256 is null)),
    constraint apify_runs_mapped_once_kept check (mapped_at is null or kept_at is not null)
);
comment on table apify_runs is 'One row a run of the actor: written before it is started, for up to 100 albums of one capture; with its result as received.';
comment on column apify_runs.id is 'The row.';
comment on column apify_runs.snapshot is 'The capture it is part of.';
comment on column apify_runs.chunk is 'Which part of the capture''s albums, from 0.';
comment on column apify_runs.album_ids is 'The Spotify albums it was started for.';
comment on column apify_runs.cost_usd is 'What it is to cost, in US dollars.';
comment on column apify_runs.run_id is 'The Dagster run that meant to start it.';
comment on column apify_runs.intended_at is 'Before it was started.';
comment on column apify_runs.actor_run is 'Apify''s id of the run; song_measurements.raw_ref. Null: its start was not heard of yet, and is looked for before another is started.';
comment on column apify_runs.status is 'Apify''s word for how it stands (READY, RUNNING, SUCCEEDED, FAILED, TIMED-OUT, ABORTED, …), or ours: NOT-STARTED; MALFORMED: kept, and cannot be read; GONE: Apify knows it no more; SURPLUS: started late, beside another that is used.';
comment on column apify_runs.message is 'The actor''s own words on it.';
comment on column apify_runs.finished_at is 'When the actor was done, by Apify''s clock.';
comment on column apify_runs.superseded_at is 'When a person took the capture up again after this run had brought nothing: it no longer counts as a failure.';
comment on column apify_runs.kept_at is 'When its result was kept.';
comment on column apify_runs.sha256 is 'SHA-256 of the result, hex.';
comment on column apify_runs.body is 'Its result as received, whole: it can be mapped again without paying.';
comment on column apify_runs.mapped_at is 'When its tracks last became measurements.';
comment on column apify_runs.albums is 'Albums in it that have a track.';
comment on column apify_runs.tracks is 'Tracks in it.';
comment on column apify_runs.recordings is 'Recordings that were measured.';
comment on column apify_runs.without_count is 'Tracks without a usable count.';
comment on column apify_runs.unmapped is 'Tracks of which no ISRC is known: id, name, count, why, and whether Spotify may yet say.';
-- One run of the actor a chunk, unless it is known to have brought nothing.
create unique index apify_runs_one_a_chunk on apify_runs (snapshot, chunk)
where status is null or status not in ('FAILED', 'TIMED-OUT', 'ABORTED', 'NOT-STARTED', 'GONE', 'SURPLUS');
create index apify_runs_snapshot on apify_runs (snapshot, chunk, id);

-- What an account's captures cost in the calendar month: what their runs of the actor do, and what is set aside for those that are
-- still to be started.
create view playcount_spent_this_month as
with month as (
    select date_trunc('month', clock_timestamp() at time zone 'UTC') at time zone 'UTC' as begins
),

bought as (
    select
        run.snapshot,
        sum(run.cost_usd) as usd,
        coalesce(sum(run.cost_usd) filter (where run.intended_at >= month.begins), 0) as usd_this_month
    from apify_runs as run
    cross join month
    where run.status is distinct from 'NOT-STARTED'
    group by run.snapshot
)

select
    made.account,
    sum(
        coalesce(bought.usd_this_month, 0)
        + case
            when made.state in ('queued', 'running') and made.created_at >= month.begins
                then greatest(made.estimated_cost_usd - coalesce(bought.usd, 0), 0)
            else 0
        end
    ) as usd
from playcount_snapshots as made
cross join month
left join bought on made.id = bought.snapshot
where made.created_at >= month.begins - interval '31 days' or coalesce(bought.usd_this_month, 0) > 0
group by made.account;
comment on view playcount_spent_this_month is 'What the captures of an account cost in this calendar month (UTC), with what is set aside for those under way. In US dollars.';
comment on column playcount_spent_this_month.account is 'The account.';
comment on column playcount_spent_this_month.usd is 'US dollars; held against SNAPSHOT_MONTHLY_CAP_USD.';

-- What a capture brought. Bought histories, by far the most rows, are not in it.
create index song_measurements_snapshot on song_measurements (snapshot, song) where snapshot is not null;
-- Which albums a recording is on.
create index song_identifiers_song on song_identifiers (song, platform, identifier_type);

comment on column song_measurements.song is 'The recording (ISRC). No foreign key: rows come only with a queue row, an import or a capture that has one, and the check would cost more than the insert.';
comment on column song_measurements.raw_ref is 'The evidence: songstats_responses/<id>, apify_runs.actor_run of a capture, or the imported file''s name.';
comment on column vendor_state.vendor is 'songstats; apify and spotify once they had to be left alone.';
