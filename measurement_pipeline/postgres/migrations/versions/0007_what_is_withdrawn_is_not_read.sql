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

-- By one descent of the primary key each.
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
    -- Of one moment the displayed figure wins: its name sorts before songstats.
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
comment on view latest_counts is 'One row a recording that has a figure: the newest one measured; an imported one only where none was measured.';
comment on column latest_counts.song is 'The recording (ISRC).';
comment on column latest_counts.name is 'Its title; null where it is known by its ISRC alone.';
comment on column latest_counts.artist is 'Its artist, as displayed.';
comment on column latest_counts.album is 'Its album, as displayed.';
comment on column latest_counts.play_count is 'All plays since release.';
comment on column latest_counts.captured_at is 'The moment that the figure is for.';
comment on column latest_counts.data_source is 'Where it came from: apify_spotify_playcount, songstats, or import, which nobody measured.';
comment on column latest_counts.learnt_at is 'When it was stored here.';

-- Who wanted a series before a person stopped it has no part in it once somebody else asks for it again.
alter table playcount_series add column started_at timestamptz;
update playcount_series set started_at = created_at;
alter table playcount_series alter column started_at set not null;
alter table playcount_series alter column started_at set default now();
comment on column playcount_series.started_at is 'When it was asked for, or asked for again after it was stopped.';
