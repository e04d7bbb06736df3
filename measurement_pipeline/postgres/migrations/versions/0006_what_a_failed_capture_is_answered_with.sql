-- A capture of albums that there are none of is its client's mistake, and no fault of the pipeline's.

alter table playcount_snapshots add column status_code smallint not null default 500;
comment on column playcount_snapshots.status_code is
'What requests are told where it failed: 404 where none of the albums is known to anybody, 500 otherwise.';
