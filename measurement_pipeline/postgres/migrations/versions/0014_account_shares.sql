-- The limits bound the arithmetic of shares: a weight of 0 would starve an account, and a huge one all others.
alter table accounts
add column share_weight int not null default 1 check (share_weight between 1 and 1000),
add column monthly_hit_cap int check (monthly_hit_cap >= 0);

-- The hits of one account in the last 30 days: the reservation counts them under its lock where the account has a cap.
create index songstats_quota_ledger_account on songstats_quota_ledger (account, reserved_at)
where billable is distinct from false;
