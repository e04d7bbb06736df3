-- When an incident ends, and which requests still have to become partitions in Dagster.

comment on column incidents.ended_at is 'When it ended: its check passed, a run of its job succeeded, its breaker was closed, or it was not seen for 7 days.';

alter table measurement_jobs add column partitions_at timestamptz;
comment on column measurement_jobs.partitions_at is 'When the recordings of an accepted historical request were registered as partitions in Dagster. Null: not yet.';
create index measurement_jobs_without_partitions on measurement_jobs (created_at, id)
where state = 'accepted' and snapshot is null and partitions_at is null;

-- Partitions in Dagster under names that a person knows. Those there are already keep the id under which they were registered.
alter table catalogs add column partition_key text unique;
update catalogs
set partition_key = id::text;
comment on column catalogs.partition_key is 'Its partition of analytics/catalog_charts in Dagster: its name, its account''s, the beginning of its id. Null: it is none yet.';
alter table playcount_snapshots add column partition_key text unique;
update playcount_snapshots
set partition_key = id::text;
comment on column playcount_snapshots.partition_key is 'Its partition of current_play_counts in Dagster: catalogue or first album, day, the beginning of its id. Null: it is none yet.';

-- Pages that were opened before Checkout was limited to cards may save what the payment gate does not count.
update payment_decisions
set
    checkout_url = null,
    checkout_expires_at = null
where checkout_url is not null;
