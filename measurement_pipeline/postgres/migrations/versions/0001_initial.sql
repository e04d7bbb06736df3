-- The measurement database: requests, queue, ledger, responses, measurements.
--
-- States are text with a CHECK rather than enum types: a value can be added or dropped in one transaction with the code that
-- knows it. The tests hold each CHECK equal to its Python enum. All times are the database's: now() for what a transaction
-- says, clock_timestamp() where a wait for a lock lies between.

create table deployment (
    only_row boolean primary key default true check (only_row),
    kind text not null check (kind in ('sandbox', 'live')),
    created_at timestamptz not null default now()
);
comment on table deployment is 'One row: whether this database holds sandbox (invented) or live (bought) history. Stamped at the first migration; a process whose vendors are of the other kind refuses to start.';
comment on column deployment.only_row is 'Always true: keeps the table at one row.';
comment on column deployment.kind is 'sandbox: the vendors are doubles and every figure is invented. live: real vendors, real money.';
comment on column deployment.created_at is 'When the stamp was set.';

comment on table alembic_version is 'Which migrations this database has had. Alembic''s own; leave it alone.';
comment on column alembic_version.version_num is 'The last one.';

create table accounts (
    id uuid primary key default gen_random_uuid(),
    name text,
    stripe_customer_id text,
    created_at timestamptz not null default now()
);
comment on table accounts is 'Who asks for measurements and pays for them.';
comment on column accounts.id is 'The account; also metadata.accountId of its Stripe customer.';
comment on column accounts.name is 'For people; may be null for an account first met in a request.';
comment on column accounts.stripe_customer_id is 'The Stripe customer, once known (cus_…). Null: not looked up yet, or none.';
comment on column accounts.created_at is 'When the account was first seen here.';

create table payment_decisions (
    account uuid primary key references accounts (id),
    verdict text not null check (verdict in ('allowed', 'denied')),
    checked_at timestamptz not null default now(),
    checkout_url text,
    checkout_expires_at timestamptz
);
comment on table payment_decisions is 'What Stripe last said of an account. Only answers are kept: an unknown (Stripe away) is never stored.';
comment on column payment_decisions.account is 'The account asked about.';
comment on column payment_decisions.verdict is 'allowed: a card is on file, may spend for 10 minutes before Stripe is asked again. denied: no card; the next question asks Stripe again.';
comment on column payment_decisions.checked_at is 'When Stripe answered.';
comment on column payment_decisions.checkout_url is 'The open Stripe Checkout page on which a denied account can save a card.';
comment on column payment_decisions.checkout_expires_at is 'When that page closes; a later denial then makes a new one.';

create table songs (
    isrc text primary key check (isrc ~ '^[A-Z]{2}[A-Z0-9]{3}[0-9]{7}$'),
    name text,
    artist text,
    album text,
    release_date date,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
comment on table songs is 'One row a recording, keyed by ISRC. Titles are what a catalogue said; null where the recording is known by its ISRC alone.';
comment on column songs.isrc is 'ISRC (ISO 3901), twelve characters, upper case, no hyphens.';
comment on column songs.name is 'Title of the recording.';
comment on column songs.artist is 'Artist as displayed.';
comment on column songs.album is 'Album as displayed.';
comment on column songs.release_date is 'Release date; null where unknown.';
comment on column songs.created_at is 'When the recording was first seen here.';
comment on column songs.updated_at is 'When its title, artist, album or date last changed.';

create table song_identifiers (
    song text not null references songs (isrc),
    platform text not null,
    identifier_type text not null,
    value text not null,
    primary key (platform, identifier_type, value, song)
);
comment on table song_identifiers is 'What other systems call a recording. An album id maps to every recording on it.';
comment on column song_identifiers.song is 'The recording (ISRC).';
comment on column song_identifiers.platform is 'Whose identifier it is: spotify, …';
comment on column song_identifiers.identifier_type is 'What is identified: album_id, track_id, …';
comment on column song_identifiers.value is 'The identifier itself.';

create table catalogs (
    id uuid primary key default gen_random_uuid(),
    account uuid not null references accounts (id),
    name text not null,
    created_at timestamptz not null default now(),
    unique (account, name)
);
comment on table catalogs is 'A named set of recordings that belongs to one account.';
comment on column catalogs.id is 'The catalogue; scope.catalog_id of a request.';
comment on column catalogs.account is 'Whose it is. A request of another account is answered as if it did not exist.';
comment on column catalogs.name is 'Its name, unique within the account.';
comment on column catalogs.created_at is 'When it was first imported.';

create table catalog_songs (
    catalog uuid not null references catalogs (id),
    song text not null references songs (isrc),
    primary key (catalog, song)
);
comment on table catalog_songs is 'Which recordings a catalogue holds.';
comment on column catalog_songs.catalog is 'The catalogue.';
comment on column catalog_songs.song is 'The recording (ISRC).';

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
    -- Clients may write any column: a moment that no calendar of theirs or ours can show is refused, infinity too.
    not_before timestamptz
    check (not_before between '1900-01-01 00:00:00+00' and '9999-01-01 00:00:00+00'),
    run_id text,
    created_at timestamptz not null default now()
    check (created_at between '1900-01-01 00:00:00+00' and '9999-01-01 00:00:00+00'),
    updated_at timestamptz not null default now()
    check (updated_at between '1900-01-01 00:00:00+00' and '9999-01-01 00:00:00+00')
);
comment on table measurement_jobs is 'Requests for measurements. A client inserts account, source and scope, and reads the answer from the same row.';
comment on column measurement_jobs.id is 'The request.';
comment on column measurement_jobs.account is 'Who asks, and pays.';
comment on column measurement_jobs.source is 'historical or current. Unconstrained on purpose: a bad request is kept and answered, not refused at insert.';
comment on column measurement_jobs.scope is 'Exactly one of {"isrcs": […]}, {"album_ids": […]}, {"catalog_id": "…"}. Unconstrained on purpose, like source.';
comment on column measurement_jobs.platforms is 'Whose counts are asked for; spotify is the one there is.';
comment on column measurement_jobs.state is 'queued → accepted → done; rejected (400, or 402 when unpaid for 7 days); payment_required (402) → accepted once a card is on file; failed (intake gave up, see error); withdrawn.';
comment on column measurement_jobs.status_code is 'The answer as an HTTP status: 202 accepted, 400 rejected, 402 no card on file, 500 failed. Null while queued.';
comment on column measurement_jobs.error is 'Why it was refused, or what it waits for, in words.';
comment on column measurement_jobs.checkout_url is 'Where a card can be saved, while payment_required.';
comment on column measurement_jobs.asked is 'Recordings the scope resolved to = enqueued + skipped + those already queued for another request. Written once.';
comment on column measurement_jobs.enqueued is 'Recordings this request put on the queue.';
comment on column measurement_jobs.skipped is 'Recordings owned or settled already: no hit is spent on them.';
comment on column measurement_jobs.snapshot is 'The capture that answers a current request; null for historical ones.';
comment on column measurement_jobs.attempts is 'Intake attempts that ended in an unexpected error.';
comment on column measurement_jobs.not_before is 'Intake leaves the request alone until then.';
comment on column measurement_jobs.run_id is 'The Dagster run (or caller) that last handled it.';
comment on column measurement_jobs.created_at is 'When it was asked.';
comment on column measurement_jobs.updated_at is 'When its state last changed.';
create index measurement_jobs_open on measurement_jobs (state, created_at)
where state in ('queued', 'payment_required', 'accepted');
create index measurement_jobs_account on measurement_jobs (account, created_at);

create table measurement_job_songs (
    job uuid not null references measurement_jobs (id),
    song text not null references songs (isrc),
    primary key (song, job)
);
comment on table measurement_job_songs is 'What a request asked for, whoever queued it first: its progress, its receipt, and who pays.';
comment on column measurement_job_songs.job is 'The request.';
comment on column measurement_job_songs.song is 'The recording (ISRC).';
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
comment on table songstats_backfill_queue is 'One row a recording, ever: whether its history is to be bought, being bought, or settled.';
comment on column songstats_backfill_queue.song is 'The recording (ISRC).';
comment on column songstats_backfill_queue.rank_score is 'Its latest known play count: the most played is bought first. 0 where no count is known.';
comment on column songstats_backfill_queue.status is 'pending: to be bought. in_progress: a run holds it. done: settled for good. failed: settled with malformed or exhausted; transient ones come back.';
comment on column songstats_backfill_queue.outcome is 'stored, no_history, rejected (done); malformed, exhausted, transient (failed); null before.';
comment on column songstats_backfill_queue.attempts is 'Runs that tried to buy it and spent, or may have spent, a call. Capped.';
comment on column songstats_backfill_queue.attempt_run is 'The run that counted the last attempt, so that a run counts one.';
comment on column songstats_backfill_queue.lease is 'Rises with each claim; a write that carries an older one changes nothing.';
comment on column songstats_backfill_queue.claimed_by is 'The Dagster run that holds it, while in_progress.';
comment on column songstats_backfill_queue.last_run is 'The run that last claimed it, also once it is settled.';
comment on column songstats_backfill_queue.claimed_at is 'When it was last claimed.';
comment on column songstats_backfill_queue.heartbeat_at is 'The owner''s last sign of life, while in_progress; an old one means abandoned.';
comment on column songstats_backfill_queue.not_before is 'Left alone until then.';
comment on column songstats_backfill_queue.operator_launched is 'An operator launched it; where no request pays, the operators'' own account does.';
comment on column songstats_backfill_queue.suspect is 'Settled in a streak that opened the breaker: the key or the vendor may have been at fault. requeue --suspect takes these up again.';
comment on column songstats_backfill_queue.last_status_code is 'The vendor''s last HTTP status.';
comment on column songstats_backfill_queue.last_error is 'What last went wrong, in words.';
comment on column songstats_backfill_queue.created_at is 'When it was first enqueued: its age in the queue.';
comment on column songstats_backfill_queue.requeued_at is 'When it was last put back after a failure; its age counts from then, so that it does not jump ahead of those who waited.';
comment on column songstats_backfill_queue.updated_at is 'When its status last changed.';
-- The claim walks pending rows in rank order; the two open statuses are all it ever looks at.
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
comment on table songstats_quota_ledger is 'One row a call to Songstats: reserved before it, settled after it.';
comment on column songstats_quota_ledger.id is 'The call.';
comment on column songstats_quota_ledger.song is 'The recording asked for (ISRC).';
comment on column songstats_quota_ledger.account is 'Who pays for the hit.';
comment on column songstats_quota_ledger.job is 'The request it was spent for; null where an operator launched it.';
comment on column songstats_quota_ledger.run_id is 'The Dagster run that called.';
comment on column songstats_quota_ledger.lease is 'The claim under which it called.';
comment on column songstats_quota_ledger.reserved_at is 'When the hit was set aside, before the call.';
comment on column songstats_quota_ledger.settled_at is 'When the answer, or the lack of one, was recorded. Null: the call is in the air, or its run died.';
comment on column songstats_quota_ledger.status_code is 'HTTP status of the answer; null where none came.';
comment on column songstats_quota_ledger.billable is 'Whether the vendor counts the hit: true, false, or null while unknown. The budget counts true and null.';
comment on column songstats_quota_ledger.reason is 'What the hit came to.';
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
comment on table songstats_responses is 'What was paid for, as received, whole: a newer parser can read it again without a hit.';
comment on column songstats_responses.id is 'The response; song_measurements.raw_ref points here as songstats_responses/<id>.';
comment on column songstats_responses.song is 'The recording asked for (ISRC).';
comment on column songstats_responses.ledger is 'The call that brought it.';
comment on column songstats_responses.received_at is 'When it was kept.';
comment on column songstats_responses.status_code is 'HTTP status.';
comment on column songstats_responses.headers is 'Response headers worth keeping; never a credential.';
comment on column songstats_responses.sha256 is 'SHA-256 of the body, hex.';
comment on column songstats_responses.body is 'The body after transfer and content decoding.';
comment on column songstats_responses.parser_version is 'The version of the parser that last read it; null: not read yet (a crash came between, or a requeue asks for it).';
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
comment on table song_measurements is 'Every figure, append-only. A restatement is a second row for the same point with a later learnt_at; the newest learnt_at is what is believed today.';
comment on column song_measurements.song is 'The recording (ISRC). No foreign key: rows come only with a queue row or an import that has one, and the check would cost more than the insert.';
comment on column song_measurements.platform is 'Whose figure it is: spotify.';
comment on column song_measurements.metric is 'platform_displayed_play_count: cumulative plays as displayed. popularity: Spotify''s 0 to 100 level.';
comment on column song_measurements.captured_at is 'The moment the figure is for; a daily point is that date at 00:00 UTC.';
comment on column song_measurements.data_source is 'Where the figure came from: songstats (bought history), apify_spotify_playcount (captured), import (a catalogue file).';
comment on column song_measurements.learnt_at is 'When it was stored here.';
comment on column song_measurements.value is 'The figure, as it came: cumulative counts can fall and plateau, and are kept so.';
comment on column song_measurements.raw_ref is 'The evidence: songstats_responses/<id>, or the imported file''s name.';
comment on column song_measurements.snapshot is 'The capture that brought it; null for history.';

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
comment on table vendor_state is 'What the whole deployment knows of a vendor: breaker, throttle pause and pace. One row a vendor.';
comment on column vendor_state.vendor is 'songstats.';
comment on column vendor_state.breaker is 'open: nothing is claimed or called until it is closed.';
comment on column vendor_state.breaker_kind is 'key: the key was refused; a free probe closes it once the key works. streak: answers stopped making sense; a person closes it.';
comment on column vendor_state.reason is 'Why it is open, in words.';
comment on column vendor_state.opened_at is 'When it opened.';
comment on column vendor_state.streak_since is 'Answers older than this no longer count towards a streak: when the breaker was last closed.';
comment on column vendor_state.paused_until is 'The vendor asked for a pause (429): nothing is due before.';
comment on column vendor_state.throttled is 'Pauses in a row without an answer between: the next one is longer.';
comment on column vendor_state.next_call_at is 'When the next call may go out: the pace.';
insert into vendor_state (vendor) values ('songstats');

create table run_heartbeats (
    run_id text primary key,
    beat_at timestamptz not null default clock_timestamp()
);
comment on table run_heartbeats is 'The last sign of life of each Dagster run of intake and backfill. Dagster''s own status does not tell whether a run''s process lives.';
comment on column run_heartbeats.run_id is 'The Dagster run.';
comment on column run_heartbeats.beat_at is 'When it last gave one.';

create table operator_acts (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    actor text not null,
    act text not null,
    detail jsonb not null default '{}'
);
comment on table operator_acts is 'What a person overrode, and who.';
comment on column operator_acts.id is 'The act.';
comment on column operator_acts.at is 'When.';
comment on column operator_acts.actor is 'Who, as far as it is known: the login name, or the Dagster run that was launched.';
comment on column operator_acts.act is 'What was done: requeue, breaker closed, launched, …';
comment on column operator_acts.detail is 'On what, and how many.';

-- Who could pay for a recording today: the accepted requests that want it, of accounts that Stripe last said yes to. The earliest
-- one pays. Whether that yes is fresh enough to spend on is for the reservation to ask.
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
comment on view songstats_payable is 'Recordings that somebody would pay for now: one row for each accepted request of an allowed account.';
comment on column songstats_payable.song is 'The recording (ISRC).';
comment on column songstats_payable.job is 'The request that wants it.';
comment on column songstats_payable.account is 'Who would pay.';
comment on column songstats_payable.created_at is 'When that request was made; the earliest pays.';
comment on column songstats_payable.checked_at is 'When Stripe last said yes to that account.';
