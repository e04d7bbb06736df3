alter table songstats_quota_ledger add column reconciled_at timestamptz;
comment on column songstats_quota_ledger.reconciled_at is 'When the vendor''s own count showed that a call of unknown outcome was not billed. Null otherwise. operator_acts has the figures.';
comment on column songstats_quota_ledger.billable is 'Whether the vendor counts the hit: true, false, or null while unknown. The budget counts true and null. Null becomes false where the vendor''s monthly count shows it (reconciled_at).';
