-- End of incidents, and requests whose recordings are not registered as Dagster partitions yet.

alter table measurement_jobs add column partitions_at timestamptz;
create index measurement_jobs_without_partitions on measurement_jobs (created_at, id)
where state = 'accepted' and snapshot is null and partitions_at is null;

-- Readable partition keys in Dagster. Existing partitions keep the id under which they were registered.
alter table catalogs add column partition_key text unique;
update catalogs
set partition_key = id::text;
alter table playcount_snapshots add column partition_key text unique;
update playcount_snapshots
set partition_key = id::text;

-- Checkout pages opened before the limit to cards may save a payment method that the payment gate does not accept.
update payment_decisions
set
    checkout_url = null,
    checkout_expires_at = null
where checkout_url is not null;
