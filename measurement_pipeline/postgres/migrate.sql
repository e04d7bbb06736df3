-- Statements around Alembic's part of a migration.

-- name: lock_timeout
-- Without a limit, an upgrade during a backfill would wait for it, and all other sessions would queue behind the upgrade.
set local lock_timeout = '30s';

-- name: lock
select pg_advisory_xact_lock(%(key)s);

-- name: is_stamped
select to_regclass('deployment') is not null as is_stamped;

-- name: stamp
select kind from deployment;

-- name: identity
select created_at from deployment;

-- name: set_stamp
insert into deployment (kind) values (%(kind)s)
on conflict (only_row) do nothing;
