-- What is asked of Dagster's own database, before Dagster itself is: it would make the tables that are missing.

-- name: exist
select
    to_regclass('runs') is not null
    and to_regclass('event_logs') is not null
    and to_regclass('instigators') is not null as exist;
