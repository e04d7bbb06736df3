-- Size of a request in bytes of text. The stored size is checked first, because it is known without reading the value: a value that
-- takes more than 8 bytes for each allowed byte is too large as text as well.
create function measurement_job_bytes(source text, scope jsonb, platforms text[], schedule text) returns bigint
language sql stable parallel safe
set search_path = pg_catalog
as $$
select
    case
        when pg_column_size(scope) > 8 * 1048576 then pg_column_size(scope)::bigint
        else coalesce(octet_length(scope::text), 0)::bigint
    end
    + case
        when pg_column_size(platforms) > 1048576 then pg_column_size(platforms)
        else coalesce(octet_length(platforms::text), 0)
    end
    + coalesce(octet_length(source), 0)
    + coalesce(octet_length(schedule), 0)
$$;

-- A trigger instead of a CHECK constraint: existing rows must still be answered, and each change of state would evaluate a CHECK again.
-- Clients see a named check violation in both cases.
create function refuse_large_measurement_job() returns trigger
language plpgsql
set search_path = pg_catalog
as $$
declare
    size bigint;
    allowed constant bigint := 1048576;
begin
    execute 'select ' || quote_ident(tg_table_schema) || '.measurement_job_bytes($1, $2, $3, $4)'
    into size
    using new.source, new.scope, new.platforms, new.schedule;
    if size > allowed then
        raise exception using
            errcode = 'check_violation',
            constraint = 'measurement_jobs_request_size',
            table = tg_table_name,
            schema = tg_table_schema,
            message = 'measurement request of ' || size || ' bytes is too large: at most ' || allowed || ' bytes are allowed',
            hint = 'Ask for a catalogue (catalog_id), or in several requests.';
    end if;
    return new;
end
$$;
create trigger measurement_jobs_request_size
before insert or update of source, scope, platforms, schedule on measurement_jobs
for each row execute function refuse_large_measurement_job();

-- Intake serves the accounts in turn.
create index measurement_jobs_waiting on measurement_jobs (state, account, created_at, id) include (not_before)
where state in ('queued', 'payment_required');
