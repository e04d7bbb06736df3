-- Statements around the migrations.

-- name: lock_timeout
-- Without a limit, an upgrade during a backfill would wait for it, and all other sessions would queue behind the upgrade.
set local lock_timeout = '30s';

-- name: lock
select pg_advisory_xact_lock(%(key)s);

-- name: has_version
select to_regclass('alembic_version') is not null as has_version;

-- name: version
select version_num from alembic_version;

-- name: create_version
create table if not exists alembic_version (
    version_num varchar(32) not null,
    constraint alembic_version_pkc primary key (version_num)
);

-- name: set_version
with earlier as (
    delete from alembic_version
    where version_num <> %(version)s
)

insert into alembic_version (version_num) values (%(version)s);

-- name: is_stamped
select to_regclass('deployment') is not null as is_stamped;

-- name: stamp
select kind from deployment;

-- name: identity
select created_at from deployment;

-- name: set_stamp
insert into deployment (kind) values (%(kind)s)
on conflict (only_row) do nothing;
