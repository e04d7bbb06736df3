-- Settings of server, database and logins that can lose or reject data.

-- name: session
select
    current_setting('server_encoding') as encoding,
    current_setting('default_transaction_isolation') as isolation;

-- name: not_durable
-- Of this session, and of future sessions of other logins of this database.
select setting.name || ' = off' as what
from pg_settings as setting
where setting.name in ('fsync', 'full_page_writes', 'synchronous_commit') and setting.setting = 'off'
union
select
    'synchronous_commit = off for '
    || coalesce('login ' || quote_ident(login.rolname::text), 'every login of the database') as what
from pg_db_role_setting as kept
cross join lateral unnest(kept.setconfig) as configured (pair)
left join pg_roles as login on kept.setrole = login.oid
where
    (
        kept.setdatabase = (select database.oid from pg_database as database where database.datname = current_database())
        -- `alter role … set` applies to every database, so only logins that write here count.
        or (kept.setdatabase = 0 and has_table_privilege(login.oid, to_regclass('measurement_jobs'), 'insert'))
    )
    and configured.pair ~* '^synchronous_commit=(off|false|no|0)$'
order by what;
