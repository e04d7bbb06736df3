-- A request that was taken back gives no right to read what others bought meanwhile. What was paid for in the account's name stays
-- readable, whichever request or series it was for: hits by the ledger, captures by their own account.
create or replace view account_songs as
select
    catalog.account,
    listed.song
from catalogs as catalog
inner join catalog_songs as listed on catalog.id = listed.catalog
union all
select
    request.account,
    asked.song
from measurement_jobs as request
inner join measurement_job_songs as asked on request.id = asked.job
where request.state <> 'withdrawn'
union all
select
    spent.account,
    spent.song
from songstats_quota_ledger as spent
where spent.billable is distinct from false
union all
select
    captured.account,
    measured.song
from playcount_snapshots as captured
inner join song_measurements as measured on captured.id = measured.snapshot;
comment on view account_songs is 'Recordings whose measurements an account may read over HTTP: those of its catalogues, those its requests ask for unless they were withdrawn, and those it paid for, by hits or captures. A recording may be there more than once.';
