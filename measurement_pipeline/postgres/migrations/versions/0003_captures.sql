-- Captures: the play counts that Spotify displays for whole albums, read by an actor at Apify.

alter table measurement_jobs add column schedule text default 'once';
alter table measurement_jobs add column estimated_cost_usd numeric(10, 4);
alter table measurement_jobs add column reused boolean;
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
-- One actor run per chunk, unless the earlier one is known to have no result.
create unique index apify_runs_one_a_chunk on apify_runs (snapshot, chunk)
where status is null or status not in ('FAILED', 'TIMED-OUT', 'ABORTED', 'NOT-STARTED', 'GONE', 'SURPLUS');
create index apify_runs_snapshot on apify_runs (snapshot, chunk, id);

-- Cost of an account's captures in the calendar month: the cost of their actor runs, and the reserved cost of runs still to start.
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

-- Measurements of a capture. Bought histories, by far the most rows, are not in this index.
create index song_measurements_snapshot on song_measurements (snapshot, song) where snapshot is not null;
-- Albums of a recording.
create index song_identifiers_song on song_identifiers (song, platform, identifier_type);
