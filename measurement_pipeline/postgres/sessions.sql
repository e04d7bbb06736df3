-- Other sessions of this database that may block ours. A login without pg_read_all_stats sees the process, login and application of
-- other logins' sessions; state and times are null.

-- name: long_lived
-- Transactions open for longer than `seconds`, active or idle, and holders of advisory locks. This project holds advisory locks for
-- milliseconds, or for a migration; a longer holder blocks it.
with advisory as (
    select distinct held.pid
    from pg_locks as held
    where
        held.locktype = 'advisory'
        and held.granted
        and held.database = (select oid from pg_database where datname = current_database())
)

select
    session.pid,
    coalesce(session.usename, '') as login,
    coalesce(nullif(session.application_name, ''), 'without a name') as application,
    coalesce(session.state, 'state hidden') as state,
    coalesce(session.xact_start, session.state_change) as since,
    extract(epoch from clock_timestamp() - coalesce(session.xact_start, session.state_change))::double precision as age_seconds,
    advisory.pid is not null as has_advisory_lock
from pg_stat_activity as session
left join advisory on session.pid = advisory.pid
where
    session.datname = current_database()
    and session.pid <> pg_backend_pid()
    and coalesce(session.backend_type, 'client backend') = 'client backend'
    and (
        session.xact_start < clock_timestamp() - make_interval(secs => %(seconds)s)
        or (
            advisory.pid is not null
            and coalesce(
                coalesce(session.xact_start, session.state_change) < clock_timestamp() - make_interval(secs => %(lock_seconds)s),
                true
            )
        )
    )
order by since nulls first, session.pid;

-- name: hidden_logins
select array_agg(distinct session.usename::text order by session.usename::text) as logins
from pg_stat_activity as session
where
    session.datname = current_database()
    and session.pid <> pg_backend_pid()
    and session.usename is not null
    and session.state is null
    and session.backend_type is null;
