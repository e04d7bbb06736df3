alter table songstats_quota_ledger add column reconciled_at timestamptz;
