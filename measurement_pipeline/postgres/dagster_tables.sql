-- Asked before Dagster opens its storage, because Dagster would create missing tables.

-- name: exist
select
    to_regclass('runs') is not null
    and to_regclass('event_logs') is not null
    and to_regclass('instigators') is not null as exist;
