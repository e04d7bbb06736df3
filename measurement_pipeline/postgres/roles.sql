-- The database's roles and what each may do. All of it may be done again, and then changes nothing.
--
--   measurement_owner     owns the tables, and migrates.
--   measurement_pipeline  works on them: no DDL, no TRUNCATE, and nothing that was asked for, spent or bought can be deleted.
--   measurement_client    asks for the account that client_logins names for its login, and reads the answers.
--   measurement_analyst   reads the views of the schema analytics, and nothing else.
--
-- None of them logs in: logins become members. Roles belong to the whole server, so that its databases share them; what they
-- may do is each database's own.

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
            null; -- The migration of another database on this server made it meanwhile.
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
-- Owners who would lose what they can do here once measurement_owner owns it.
select distinct pg_get_userbyid(relowner) as owner
from pg_class
where
    relnamespace = current_schema()::regnamespace
    and relname = any(%(tables)s)
    and not pg_has_role(relowner, 'measurement_owner', 'usage')
order by owner;

-- name: make_room
-- What a new owner needs: to make tables in the schema.
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

-- name: admit
-- Where not everybody may use the schema, or make temporary tables (a catalogue is staged in one). Whoever cannot give a right
-- away is only warned by PostgreSQL.
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
            raise insufficient_privilege using message = 'measurement_pipeline may not make temporary tables';
        end if;
    end if;
end
$$;

-- name: grant
-- All that the statements of this package need, and no more: a test takes each right away and sees one of them refused.
grant select on alembic_version, deployment, songstats_payable, playcount_spent_this_month to measurement_pipeline;
grant select, insert, update on accounts, payment_decisions, songs, songstats_backfill_queue, incidents to measurement_pipeline;
grant select, insert on song_identifiers, catalog_songs, measurement_job_songs to measurement_pipeline;
grant select, insert, update (name, partition_key) on catalogs to measurement_pipeline;
grant select, insert, update, delete on run_heartbeats to measurement_pipeline;
grant select, insert, update on vendor_state to measurement_pipeline;
grant select, insert on operator_acts to measurement_pipeline;

-- What was asked stays as it was asked; the answer is the pipeline's.
grant
select,
insert (account, source, scope, schedule, idempotency_key, idempotency_digest),
update (
    state, status_code, error, checkout_url, asked, enqueued, skipped, snapshot, estimated_cost_usd, reused, attempts, not_before,
    run_id, updated_at, idempotency_key, idempotency_digest, partitions_at
)
on measurement_jobs to measurement_pipeline;

-- A key is made once; what becomes of it later is that it is used, and revoked.
grant select on account_songs, latest_counts to measurement_pipeline;
grant
select,
insert (account, name, prefix, digest, expires_at),
update (last_used_at, revoked_at)
on api_keys to measurement_pipeline;

-- What is to be captured stays as it was asked for; what it came to is the pipeline's. A result, once kept, is not written over.
grant
select,
insert (account, catalog, album_ids, albums_digest, isrcs, platforms, schedule, album_count, estimated_cost_usd),
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
    actor_run, status, message, seen_at, finished_at, superseded_at, kept_at, sha256, body, mapped_at, albums, tracks, recordings, without_count, unmapped
)
on apify_runs to measurement_pipeline;

-- What was spent and what it brought: written once. A hit is settled, or reconciled; a response is marked as read.
grant select, insert, update (settled_at, status_code, billable, reason, reconciled_at) on songstats_quota_ledger to measurement_pipeline;
-- The ledger's number is written over itself by a second try, which so finds the first one's row.
grant select, insert, update (ledger, parser_version) on songstats_responses to measurement_pipeline;
grant select, insert on song_measurements to measurement_pipeline;

grant select, insert (account, source, scope, platforms, schedule) on measurement_jobs to measurement_client;
grant select on client_logins to measurement_client;

-- name: guard
-- Which rows. A policy that is there is left alone, since making one stops everybody for a moment: one that is to change gets a
-- new name, and its predecessor is dropped here. The owner, its members and superusers see all rows.
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
    -- By current_user, which is a role one is a member of; a setting could be anybody's say-so. Read through a policy of its own,
    -- with the client's own rights.
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
-- The views run with their owner's rights: whoever may read one needs none on the tables. The schema stays whose it is, since to
-- be given one takes the right to make schemas. The functions below a table belong to its owner.
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
                oid = 'analytics.play_counts_as_of(timestamptz)'::regprocedure
                or (
                    pronamespace = current_schema()::regnamespace
                    and proname in ('measurement_job_bytes', 'refuse_large_measurement_job')
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
-- Views to come, whoever makes them: the login that migrates now, or one that is given the owner's role.
alter default privileges in schema analytics grant select on tables to measurement_analyst, measurement_pipeline;

-- name: grant_views_to_come
alter default privileges for role measurement_owner in schema analytics
grant select on tables to measurement_analyst, measurement_pipeline;

-- name: analysts
-- Logins that read as analysts and are nothing else here.
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
-- What is set for a login in this database.
select split_part(setting, '=', 1) as name
from pg_db_role_setting
cross join lateral unnest(setconfig) as setting
where
    setrole = %(login)s::regrole
    and setdatabase in (0, (select oid from pg_database where datname = current_database()));
