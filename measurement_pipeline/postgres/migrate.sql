-- What the migration itself asks of a database, before and after Alembic's part.

-- name: patience
-- An upgrade beside a drain would otherwise wait for it, and everybody else behind the upgrade.
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
