-- How the first stored answer of a day differs in form from the hundred before it.
create table vendor_drifts (
    id bigint generated always as identity primary key,
    vendor text not null references vendor_state (vendor),
    found_at timestamptz not null default clock_timestamp(),
    new_fields text[] not null,
    missing_fields text[] not null,
    changed_types text[] not null
);
alter table vendor_state drop constraint vendor_state_breaker_kind_check;
alter table vendor_state add constraint vendor_state_breaker_kind_check check (breaker_kind in ('key', 'streak', 'drift'));
