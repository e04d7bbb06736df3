-- Roles of the database and their rights. Every statement may run again and changes nothing then.
--
--   measurement_owner     owns the tables and runs migrations.
--   measurement_pipeline  reads and writes: no DDL, no TRUNCATE, no deletion of requests, ledger rows or bought data.
--   measurement_client    inserts and reads requests of the account that client_logins gives for its login.
--   measurement_analyst   reads the views of schema analytics only.
--
-- None of them can log in; logins become members. Roles are shared by all databases of a server; rights belong to one database.

-- name: create
do $$
declare
    wanted text;
begin
    foreach wanted in array array['measurement_owner', 'measurement_pipeline', 'measurement_client', 'measurement_analyst'] loop
        continue when exists (select from pg_roles where rolname = wanted);
        begin
            execute format('create role %I nologin', wanted);
        exception when duplicate_object or unique_violation then
            null; -- A migration of another database on this server created it in between.
        end;
    end loop;
end
$$;

-- name: login
select
    current_user as login,
    bool_and(pg_has_role(relowner, 'usage')) as owns_all
from pg_class
where relnamespace = current_schema()::regnamespace and relname = any(%(tables)s);

-- name: owners_outside
-- Owners who would lose access once measurement_owner owns the tables.
select distinct pg_get_userbyid(relowner) as owner
from pg_class
where
    relnamespace = current_schema()::regnamespace
    and relname = any(%(tables)s)
    and not pg_has_role(relowner, 'measurement_owner', 'usage')
order by owner;

-- name: grant_create
-- The owner of a table needs CREATE on its schema.
do $$
begin
    if not has_schema_privilege('measurement_owner', current_schema(), 'create') then
        execute format('grant usage, create on schema %I to measurement_owner', current_schema());
    end if;
    if not has_schema_privilege('measurement_owner', 'analytics', 'create') then
        grant usage, create on schema analytics to measurement_owner;
    end if;
end
$$;

-- name: owned_otherwise
select
    relname as name,
    relkind = 'v' as is_view
from pg_class
where
    relnamespace = current_schema()::regnamespace
    and relname = any(%(tables)s)
    and relowner <> 'measurement_owner'::regrole
order by name;

-- name: grant_usage
-- For databases where PUBLIC lacks USAGE on the schema or TEMPORARY (a catalogue import uses a temporary table). PostgreSQL only
-- warns if the login may not grant a right, so the result is checked.
do $$
declare
    member text;
begin
    foreach member in array array['measurement_pipeline', 'measurement_client'] loop
        continue when has_schema_privilege(member, current_schema(), 'usage');
        execute format('grant usage on schema %I to %I', current_schema(), member);
        if not has_schema_privilege(member, current_schema(), 'usage') then
            raise insufficient_privilege using message = format('%s may not use schema %I', member, current_schema());
        end if;
    end loop;
    if not has_database_privilege('measurement_pipeline', current_database(), 'temporary') then
        execute format('grant temporary on database %I to measurement_pipeline', current_database());
        if not has_database_privilege('measurement_pipeline', current_database(), 'temporary') then
            raise insufficient_privilege using message = 'measurement_pipeline may not create temporary tables';
        end if;
    end if;
end
$$;

-- name: grant
-- Exactly the rights that the statements of this package need. A test revokes each one and expects a statement to fail.
grant select on alembic_version, deployment, active_purchase_pauses, songstats_wanted, songstats_open_rows, playcount_spent_this_month to measurement_pipeline;
grant select on songstats_call_gate, songstats_unread_responses to measurement_pipeline;
grant select, insert, update on accounts, payment_decisions, songs, songstats_backfill_queue, incidents to measurement_pipeline;
grant select, insert on song_identifiers, catalog_songs, measurement_job_songs to measurement_pipeline;
grant select, insert, update (name, partition_key) on catalogs to measurement_pipeline;
grant select, insert, update, delete on run_heartbeats to measurement_pipeline;
grant select, insert, update on vendor_state, songstats_shares to measurement_pipeline;
grant select, insert on operator_acts to measurement_pipeline;
grant select, insert (vendor, new_fields, missing_fields, changed_types) on vendor_drifts to measurement_pipeline;
grant
select,
insert (job, account, state, body),
update (attempts, next_attempt_at, retry_until, delivered_at, abandoned_at, last_status_code, last_error)
on job_callbacks to measurement_pipeline;
grant
select,
insert (account, vendor, reason, paused_by, paused_until),
update (resumed_at, resumed_by)
on purchase_pauses to measurement_pipeline;

-- The columns of the request itself cannot be updated; those of the answer can.
grant
select,
insert (account, source, scope, schedule, recording_limit, coverage, callback_url, idempotency_key, idempotency_digest),
update (
    state, status_code, error, checkout_url, asked, enqueued, skipped, snapshot, estimated_cost_usd, reused, attempts, not_before,
    run_id, updated_at, idempotency_key, idempotency_digest, partitions_at, left_out, covered_share, is_paying
)
on measurement_jobs to measurement_pipeline;

-- Of a key, only its last use and its revocation can be updated.
grant select on account_songs, latest_counts to measurement_pipeline;
grant
select,
insert (account, name, prefix, digest, expires_at),
update (last_used_at, revoked_at)
on api_keys to measurement_pipeline;

-- The specification of a capture cannot be updated; its result can.
grant
select,
insert (
    account, catalog, album_ids, albums_digest, isrcs, platforms, schedule, album_count, estimated_cost_usd, reused_album_ids, state
),
update (
    state, status_code, error, attempts, claimed_by, not_before, captured_at, tracks, recordings, without_count, unmapped, updated_at,
    partition_key
)
on playcount_snapshots to measurement_pipeline;
grant
select,
insert (account, catalog, album_ids, albums_digest, isrcs, platforms),
update (stopped_at, started_at)
on playcount_series to measurement_pipeline;
grant
select,
insert (snapshot, chunk, album_ids, cost_usd, run_id),
update (
    actor_run, status, message, cost_usd, seen_at, finished_at, superseded_at, kept_at, sha256, body, mapped_at, albums, tracks, recordings, without_count, unmapped
)
on apify_runs to measurement_pipeline;

-- Ledger rows and responses are written once. A hit is settled or reconciled later; a response is marked as parsed.
grant select, insert, update (settled_at, status_code, billable, reason, reconciled_at) on songstats_quota_ledger to measurement_pipeline;
-- A retried insert sets `ledger` to its own value to find the row of the first attempt.
grant select, insert, update (ledger, parser_version) on songstats_responses to measurement_pipeline;
grant select, insert on song_measurements to measurement_pipeline;
-- The trigger of song_measurements writes it with its owner's rights.
grant select on song_latest_counts to measurement_pipeline;
grant
select,
insert (song, format, file_name, sha256, body, imported_by, days, first_day, last_day, plays)
on history_imports to measurement_pipeline;

grant select, insert (account, source, scope, platforms, schedule, recording_limit, coverage, callback_url) on measurement_jobs to measurement_client;
grant select on client_logins to measurement_client;

-- name: row_policies
-- Row-level security. An existing policy is not replaced, because CREATE POLICY locks the table: a changed policy gets a new name, and
-- its predecessor is dropped here. The owner, its members and superusers see all rows.
do $$
begin
    if not (select relrowsecurity from pg_class where oid = 'measurement_jobs'::regclass) then
        alter table measurement_jobs enable row level security;
    end if;
    if not (select relrowsecurity from pg_class where oid = 'client_logins'::regclass) then
        alter table client_logins enable row level security;
    end if;
    if not exists (select from pg_policy where polrelid = 'measurement_jobs'::regclass and polname = 'pipeline_works_on_all') then
        create policy pipeline_works_on_all on measurement_jobs to measurement_pipeline using (true) with check (true);
    end if;
    -- By current_user, which requires membership; any session could change a setting. The client reads its row of client_logins with
    -- its own rights, through a policy of that table.
    if not exists (select from pg_policy where polrelid = 'client_logins'::regclass and polname = 'client_knows_itself') then
        create policy client_knows_itself on client_logins for select to measurement_client using (login = current_user);
    end if;
    if not exists (select from pg_policy where polrelid = 'measurement_jobs'::regclass and polname = 'client_reads_its_own') then
        create policy client_reads_its_own on measurement_jobs for select to measurement_client
        using (account = (select mine.account from client_logins as mine where mine.login = current_user));
    end if;
    if not exists (select from pg_policy where polrelid = 'measurement_jobs'::regclass and polname = 'client_asks_for_its_own') then
        create policy client_asks_for_its_own on measurement_jobs for insert to measurement_client
        with check (account = (select mine.account from client_logins as mine where mine.login = current_user));
    end if;
end
$$;

-- name: views_owned_otherwise
select relname as name
from pg_class
where relnamespace = 'analytics'::regnamespace and relkind = 'v' and relowner <> 'measurement_owner'::regrole
order by relname;

-- name: own_function
-- Views run with their owner's rights, so their readers need no rights on the tables. The owner of the schema does not change, because
-- receiving a schema requires the right to create schemas. Functions used by a table belong to the table's owner.
do $$
declare
    owned regprocedure;
begin
    for owned in
        select oid
        from pg_proc
        where
            proowner <> 'measurement_owner'::regrole
            and (
                (
                    pronamespace = 'analytics'::regnamespace
                    and proname in ('play_counts_as_of', 'latest_count_before', 'first_count_since', 'run_rates_over')
                )
                or (
                    pronamespace = current_schema()::regnamespace
                    and proname in (
                        'measurement_job_bytes', 'refuse_large_measurement_job', 'enqueue_job_callback', 'songstats_payers', 'latest_count_of',
                        'keep_latest_counts', 'readable_recording', 'songstats_due_rows'
                    )
                )
            )
    loop
        execute 'alter function ' || owned || ' owner to measurement_owner';
    end loop;
end
$$;

-- name: grant_views
grant usage on schema analytics to measurement_analyst, measurement_pipeline;
grant select on all tables in schema analytics to measurement_analyst, measurement_pipeline;
revoke all on all functions in schema analytics from public;
grant execute on all functions in schema analytics to measurement_analyst, measurement_pipeline;
-- Future views too, created by this login or by a member of measurement_owner.
alter default privileges in schema analytics grant select on tables to measurement_analyst, measurement_pipeline;

-- name: grant_views_to_come
alter default privileges for role measurement_owner in schema analytics
grant select on tables to measurement_analyst, measurement_pipeline;

-- name: analysts
-- Logins that are members of measurement_analyst and of no other role of this project.
select
    login.rolname as name,
    login.rolconnlimit as connections
from pg_roles as login
where
    login.rolcanlogin
    and not login.rolsuper
    and pg_has_role(login.oid, 'measurement_analyst', 'member')
    and not pg_has_role(login.oid, 'measurement_pipeline', 'member')
    and not pg_has_role(login.oid, 'measurement_owner', 'member')
    and not pg_has_role(login.oid, 'measurement_client', 'member')
order by login.rolname;

-- name: settings
select split_part(setting, '=', 1) as name
from pg_db_role_setting
cross join lateral unnest(setconfig) as setting
where
    setrole = %(login)s::regrole
    and setdatabase in (0, (select oid from pg_database where datname = current_database()));
