-- Answers of something other than Songstats: with a status, but whether they were billed is unknown, or was until reconciliation.
create index songstats_quota_ledger_foreign on songstats_quota_ledger (settled_at desc, id desc)
where reason = 'transient' and status_code is not null and (billable is null or reconciled_at is not null);

-- `create or replace view` cannot rename a column. A new database does not have the view yet.
do $$
begin
    if exists (
        select from pg_attribute
        where attrelid = to_regclass('analytics.catalog_play_counts') and attname = 'standing' and not attisdropped
    ) then
        alter view analytics.catalog_play_counts rename column standing to status;
    end if;
end
$$;
