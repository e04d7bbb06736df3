-- The measurement database: requests, queue, ledger, responses, measurements.
--
-- States are text with a CHECK instead of enum types, so that a value can be added or removed in a transaction. Tests compare each
-- CHECK with its Python enum. All times come from the database: now() within a transaction, clock_timestamp() after a lock wait.

create table deployment (
    only_row boolean primary key default true check (only_row),
    kind text not null check (kind in ('sandbox', 'live')),
    created_at timestamptz not null default now()
);

create table accounts (
    id uuid primary key default gen_random_uuid(),
    name text,
    stripe_customer_id text,
    created_at timestamptz not null default now()
);

create table payment_decisions (
    account uuid primary key references accounts (id),
    verdict text not null check (verdict in ('allowed', 'denied')),
    checked_at timestamptz not null default now(),
    checkout_url text,
    checkout_expires_at timestamptz
);

create table songs (
    isrc text primary key check (isrc ~ '^[A-Z]{2}[A-Z0-9]{3}[0-9]{7}$'),
    name text,
    artist text,
    album text,
    release_date date,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

create table song_identifiers (
    song text not null references songs (isrc),
    platform text not null,
    identifier_type text not null,
    value text not null,
    primary key (platform, identifier_type, value, song)
);

create table catalogs (
    id uuid primary key default gen_random_uuid(),
    account uuid not null references accounts (id),
    name text not null,
    created_at timestamptz not null default now(),
    unique (account, name)
);

create table catalog_songs (
    catalog uuid not null references catalogs (id),
    song text not null references songs (isrc),
    primary key (catalog, song)
);

create table measurement_jobs (
    id uuid primary key default gen_random_uuid(),
    account uuid not null,
    source text,
    scope jsonb,
    platforms text[] default '{spotify}',
    state text not null default 'queued'
    check (state in ('queued', 'accepted', 'done', 'rejected', 'payment_required', 'failed', 'withdrawn')),
    status_code int,
    error text,
    checkout_url text,
    asked int,
    enqueued int,
    skipped int,
    snapshot uuid,
    attempts int not null default 0,
    -- Clients may write any column. Times outside Python's range are rejected, infinity included.
    not_before timestamptz
    check (not_before between '1900-01-01 00:00:00+00' and '9999-01-01 00:00:00+00'),
    run_id text,
    created_at timestamptz not null default now()
    check (created_at between '1900-01-01 00:00:00+00' and '9999-01-01 00:00:00+00'),
    updated_at timestamptz not null default now()
    check (updated_at between '1900-01-01 00:00:00+00' and '9999-01-01 00:00:00+00')
);
create index measurement_jobs_open on measurement_jobs (state, created_at)
where state in ('queued', 'payment_required', 'accepted');
create index measurement_jobs_account on measurement_jobs (account, created_at);

create table measurement_job_songs (
    job uuid not null references measurement_jobs (id),
    song text not null references songs (isrc),
    primary key (song, job)
);
create index measurement_job_songs_job on measurement_job_songs (job);

create table songstats_backfill_queue (
    song text primary key references songs (isrc),
    rank_score bigint not null default 0,
    status text not null default 'pending' check (status in ('pending', 'in_progress', 'done', 'failed')),
    outcome text check (outcome in ('stored', 'no_history', 'rejected', 'malformed', 'exhausted', 'transient')),
    attempts int not null default 0,
    attempt_run text,
    lease bigint not null default 0,
    claimed_by text,
    last_run text,
    claimed_at timestamptz,
    heartbeat_at timestamptz,
    not_before timestamptz,
    operator_launched boolean not null default false,
    suspect boolean not null default false,
    last_status_code int,
    last_error text,
    created_at timestamptz not null default now(),
    requeued_at timestamptz,
    updated_at timestamptz not null default now(),
    constraint songstats_backfill_queue_outcome_of_status check (
        case status
            when 'done' then outcome in ('stored', 'no_history', 'rejected') and outcome is not null
            when 'failed' then outcome in ('malformed', 'exhausted', 'transient') and outcome is not null
            else outcome is null
        end
    ),
    constraint songstats_backfill_queue_owner_while_in_progress check (
        (status = 'in_progress') = (claimed_by is not null and heartbeat_at is not null)
    )
);
-- The claim reads pending rows in rank order, and only the two open statuses.
create index songstats_backfill_queue_due on songstats_backfill_queue (rank_score desc, coalesce(requeued_at, created_at), song)
where status in ('pending', 'in_progress');
create index songstats_backfill_queue_owner on songstats_backfill_queue (claimed_by) where status = 'in_progress';
create index songstats_backfill_queue_failed on songstats_backfill_queue (outcome) where status = 'failed';

create table songstats_quota_ledger (
    id bigint generated always as identity primary key,
    song text not null references songs (isrc),
    account uuid not null references accounts (id),
    job uuid references measurement_jobs (id),
    run_id text not null,
    lease bigint not null,
    reserved_at timestamptz not null default clock_timestamp(),
    settled_at timestamptz,
    status_code int,
    billable boolean,
    reason text check (
        reason in (
            'stored', 'no history', 'rejected', 'malformed', 'throttled', 'refused key', 'transient',
            'timeout: unknown', 'crashed: unknown'
        )
    )
);
create index songstats_quota_ledger_counted on songstats_quota_ledger (reserved_at) where billable is distinct from false;
create index songstats_quota_ledger_open on songstats_quota_ledger (song) where settled_at is null;
create index songstats_quota_ledger_settled on songstats_quota_ledger (settled_at desc, id desc)
where reason in ('stored', 'no history', 'rejected', 'malformed');
create index songstats_quota_ledger_song on songstats_quota_ledger (song);
create index songstats_quota_ledger_job on songstats_quota_ledger (job);

create table songstats_responses (
    id bigint generated always as identity primary key,
    song text not null references songs (isrc),
    ledger bigint not null unique references songstats_quota_ledger (id),
    received_at timestamptz not null default clock_timestamp(),
    status_code int not null,
    headers jsonb not null default '{}',
    sha256 text not null,
    body bytea not null,
    parser_version int
);
create index songstats_responses_song on songstats_responses (song, id desc);

create table song_measurements (
    song text not null,
    platform text not null,
    metric text not null,
    captured_at timestamptz not null,
    data_source text not null,
    learnt_at timestamptz not null default now(),
    value bigint not null check (value >= 0),
    raw_ref text,
    snapshot uuid,
    primary key (song, platform, metric, captured_at, data_source, learnt_at)
);

create table vendor_state (
    vendor text primary key,
    breaker text not null default 'closed' check (breaker in ('closed', 'open')),
    breaker_kind text check (breaker_kind in ('key', 'streak')),
    reason text,
    opened_at timestamptz,
    streak_since timestamptz,
    paused_until timestamptz,
    throttled int not null default 0,
    next_call_at timestamptz
);
insert into vendor_state (vendor) values ('songstats');

create table run_heartbeats (
    run_id text primary key,
    beat_at timestamptz not null default clock_timestamp()
);

create table operator_acts (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    actor text not null,
    act text not null,
    detail jsonb not null default '{}'
);

-- Who could pay for a recording: the accepted requests for it, of accounts whose last payment decision is `allowed`. The earliest one
-- pays. The reservation checks whether the decision is recent enough.
create view songstats_payable as
select
    wanted.song,
    request.id as job,
    request.account,
    request.created_at,
    decision.checked_at
from measurement_job_songs as wanted
inner join measurement_jobs as request on wanted.job = request.id
inner join payment_decisions as decision on request.account = decision.account
where request.state = 'accepted' and decision.verdict = 'allowed';
