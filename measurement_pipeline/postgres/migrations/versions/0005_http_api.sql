-- HTTP API: keys, idempotent requests, and the recordings that an account may read.

create table api_keys (
    id uuid primary key default gen_random_uuid(),
    account uuid not null references accounts (id),
    name text not null,
    prefix text not null unique,
    digest bytea not null check (octet_length(digest) = 32),
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz
);

alter table measurement_jobs add column idempotency_key text;
alter table measurement_jobs add column idempotency_digest bytea;
alter table measurement_jobs add constraint measurement_jobs_idempotency_whole
check ((idempotency_key is null) = (idempotency_digest is null));
create unique index measurement_jobs_idempotency on measurement_jobs (account, idempotency_key)
where idempotency_key is not null;

-- Recordings that an account may read over HTTP: those of its catalogues, and those that it requested or captured.
create view account_songs as
select
    catalog.account,
    listed.song
from catalogs as catalog
inner join catalog_songs as listed on catalog.id = listed.catalog
union all
select
    request.account,
    asked.song
from measurement_jobs as request
inner join measurement_job_songs as asked on request.id = asked.job
union all
select
    request.account,
    measured.song
from measurement_jobs as request
inner join song_measurements as measured on request.snapshot = measured.snapshot;
