-- A withdrawn request gives no right to read what other accounts bought. What the account paid for stays readable: hits by the ledger,
-- captures by their account.
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

-- One descent of the primary key per recording.
create view latest_counts as
select
    recording.isrc as song,
    recording.name,
    recording.artist,
    recording.album,
    coalesce(measured.value, imported.value) as play_count,
    coalesce(measured.captured_at, imported.captured_at) as captured_at,
    coalesce(measured.data_source, imported.data_source) as data_source,
    coalesce(measured.learnt_at, imported.learnt_at) as learnt_at
from songs as recording
left join lateral (
    select
        measurement.value,
        measurement.captured_at,
        measurement.data_source,
        measurement.learnt_at
    from song_measurements as measurement
    where
        measurement.song = recording.isrc
        and measurement.platform = 'spotify'
        and measurement.metric = 'platform_displayed_play_count'
        and measurement.data_source <> 'import'
    -- Of two counts for the same time, the displayed one wins: apify_… sorts before songstats.
    order by measurement.captured_at desc, measurement.data_source asc, measurement.learnt_at desc
    limit 1
) as measured on true
left join lateral (
    select
        measurement.value,
        measurement.captured_at,
        measurement.data_source,
        measurement.learnt_at
    from song_measurements as measurement
    where
        measured.captured_at is null
        and measurement.song = recording.isrc
        and measurement.platform = 'spotify'
        and measurement.metric = 'platform_displayed_play_count'
        and measurement.data_source = 'import'
    order by measurement.captured_at desc, measurement.learnt_at desc
    limit 1
) as imported on true
where measured.captured_at is not null or imported.captured_at is not null;

-- Requests from before a series was stopped do not belong to it after it is restarted.
alter table playcount_series add column started_at timestamptz;
update playcount_series set started_at = created_at;
alter table playcount_series alter column started_at set not null;
alter table playcount_series alter column started_at set default now();
