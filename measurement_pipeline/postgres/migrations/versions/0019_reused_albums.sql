-- Albums of a capture that another one of the account, of the last hour, has captured already.
alter table playcount_snapshots add column reused_album_ids text[] not null default '{}';
