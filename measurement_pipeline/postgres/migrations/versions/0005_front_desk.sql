-- The front desk: keys of clients that are programs, requests that are sent twice, and which recordings an account may read.

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
comment on table api_keys is 'Keys of the HTTP API. A key itself is shown once, when it is made, and kept nowhere.';
comment on column api_keys.id is 'The key''s row.';
comment on column api_keys.account is 'The account that whoever has the key speaks for.';
comment on column api_keys.name is 'What it is for, as whoever made it called it.';
comment on column api_keys.prefix is 'How the key begins, so that it can be told from others. No secret.';
comment on column api_keys.digest is 'HMAC-SHA-256 of the key under the server''s secret (API_KEY_SECRET).';
comment on column api_keys.created_at is 'When it was made.';
comment on column api_keys.expires_at is 'From then on it is refused. Null: never.';
comment on column api_keys.last_used_at is 'When it was last accepted, to the minute. Null: never.';
comment on column api_keys.revoked_at is 'When a person revoked it: it is refused since. Null: it was not.';

alter table measurement_jobs add column idempotency_key text;
alter table measurement_jobs add column idempotency_digest bytea;
alter table measurement_jobs add constraint measurement_jobs_idempotency_whole
check ((idempotency_key is null) = (idempotency_digest is null));
comment on column measurement_jobs.idempotency_key is 'The Idempotency-Key that a request over HTTP came with: sent again, it is answered with this row. Null without one.';
comment on column measurement_jobs.idempotency_digest is 'SHA-256 of what was asked with that key: another question under the same key is refused.';
create unique index measurement_jobs_idempotency on measurement_jobs (account, idempotency_key)
where idempotency_key is not null;

-- What an account may read over HTTP: what is in its catalogues, and what its requests asked for or captured.
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
comment on view account_songs is 'Recordings whose measurements an account may read over HTTP: those of its catalogues, and those its requests asked for or captured. A recording may be there more than once.';
comment on column account_songs.account is 'The account.';
comment on column account_songs.song is 'The recording (ISRC).';
