-- What makes silence an alarm, who may log in as a client, and how long a pause is the vendor's own wish.

alter table vendor_state add column stumbled int not null default 0;
comment on column vendor_state.stumbled is 'Pauses in a row after answers that told nothing (5xx, timeouts), without an answer between: the next one is longer.';
comment on column vendor_state.throttled is 'Pauses in a row after a 429, without an answer between: the next one is longer.';
alter table vendor_state add column pause_reason text;
alter table vendor_state add column no_probe_before timestamptz;
comment on column vendor_state.pause_reason is 'Why there is, or was, a pause, in words.';
comment on column vendor_state.no_probe_before is 'How much of the pause the vendor itself asked for (Retry-After): until then it is not asked whether it is back. The rest of a pause is our guess.';

-- What was paid for and never read is looked for at every claim.
create index songstats_responses_unread on songstats_responses (song) where parser_version is null;

create table incidents (
    id bigint generated always as identity primary key,
    key text not null,
    what text not null,
    times int not null default 1,
    opened_at timestamptz not null default clock_timestamp(),
    last_at timestamptz not null default clock_timestamp(),
    told_at timestamptz,
    ended_at timestamptz
);
comment on table incidents is 'What went wrong and has to be told to a person: one row an incident, however many runs it fails.';
comment on column incidents.id is 'The incident.';
comment on column incidents.key is 'What makes two failures the same incident: where it failed and why, without the figures that change.';
comment on column incidents.what is 'The message, in plain words, as it was first seen.';
comment on column incidents.times is 'How often it was seen.';
comment on column incidents.opened_at is 'When it was first seen.';
comment on column incidents.last_at is 'When it was last seen.';
comment on column incidents.told_at is 'When the webhook took the message. Null: not told yet, or there is no webhook.';
comment on column incidents.ended_at is 'When it was over; the same key later is a new incident.';
create unique index incidents_open on incidents (key) where ended_at is null;

create table client_logins (
    -- Whoever is a member of the group can put its name on.
    login text primary key check (login <> 'measurement_client'),
    account uuid not null,
    created_at timestamptz not null default now()
);
comment on table client_logins is 'Which account a client''s database login may ask for: what row-level security goes by, since a session setting can be set by anyone.';
comment on column client_logins.login is 'The login role, as current_user names it.';
comment on column client_logins.account is 'The account whose requests it may insert and read.';
comment on column client_logins.created_at is 'When it was let in.';
