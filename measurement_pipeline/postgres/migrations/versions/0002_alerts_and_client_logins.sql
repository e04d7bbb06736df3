-- Incidents, client logins, and the part of a pause that the vendor requested.

alter table vendor_state add column stumbled int not null default 0;
alter table vendor_state add column pause_reason text;
alter table vendor_state add column no_probe_before timestamptz;

-- Every claim searches for stored responses that were never parsed.
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
create unique index incidents_open on incidents (key) where ended_at is null;

create table client_logins (
    -- current_user may be the group role, because a member can SET ROLE to it.
    login text primary key check (login <> 'measurement_client'),
    account uuid not null,
    created_at timestamptz not null default now()
);
