-- A catalogue's recordings, including those without a count.
create or replace view analytics.catalog_play_counts as
select
    catalog.id as catalog,
    catalog.name as catalog_name,
    recording.isrc as song,
    'spotify'::text as platform,
    recording.name as title,
    recording.artist,
    recording.album,
    recording.release_date,
    latest.play_count,
    latest.day,
    latest.data_source,
    coalesce(latest.data_source <> 'import', false) as is_measured,
    case
        when latest.data_source <> 'import' then 'measured'
        when queue.outcome = 'no_history' then 'no history'
        when queue.outcome = 'rejected' then 'rejected by the vendor'
        when queue.status = 'failed' then 'failed: ' || queue.outcome
        when queue.status = 'in_progress' then 'being bought'
        when queue.status = 'pending' then 'to be bought'
        else 'never asked for'
    end as status,
    catalog.account
from catalogs as catalog
inner join catalog_songs as listed on catalog.id = listed.catalog
inner join songs as recording on listed.song = recording.isrc
left join songstats_backfill_queue as queue on listed.song = queue.song
left join analytics.latest_play_counts as latest on listed.song = latest.song;
comment on view analytics.catalog_play_counts is 'One row for each catalogue, recording and platform, measured or not, with the newest figure and why there is none.';
comment on column analytics.catalog_play_counts.catalog is 'The catalogue. | unit: id | source: catalogs.id';
comment on column analytics.catalog_play_counts.catalog_name is 'Its name, unique within its account. | unit: text | source: catalogs.name';
comment on column analytics.catalog_play_counts.song is 'The recording. | unit: ISRC | source: catalog_songs.song';
comment on column analytics.catalog_play_counts.platform is 'The platform that counted the plays. | unit: name | source: song_measurements.platform';
comment on column analytics.catalog_play_counts.title is 'Its title; null if only its ISRC is known. | unit: text | source: songs.name';
comment on column analytics.catalog_play_counts.artist is 'Its artist, as displayed. | unit: text | source: songs.artist';
comment on column analytics.catalog_play_counts.album is 'Its album, as displayed. | unit: text | source: songs.album';
comment on column analytics.catalog_play_counts.release_date is 'When it was released; null where unknown. | unit: date | source: songs.release_date';
comment on column analytics.catalog_play_counts.play_count is 'All plays since release; null where no figure is known. | unit: plays | source: latest_play_counts.play_count';
comment on column analytics.catalog_play_counts.day is 'The day that the figure is for. | unit: UTC date | source: latest_play_counts.day';
comment on column analytics.catalog_play_counts.data_source is 'Where it came from; import: from a catalogue file, not measured. | unit: name | source: latest_play_counts.data_source';
comment on column analytics.catalog_play_counts.is_measured is 'It has a figure that was measured, and counts in catalog_totals.play_count. | unit: yes or no | source: latest_play_counts.data_source';
comment on column analytics.catalog_play_counts.status is 'measured, or why it is not: no history, rejected by the vendor, failed: …, being bought, to be bought, never asked for. | unit: text | source: songstats_backfill_queue';
comment on column analytics.catalog_play_counts.account is 'The account that owns the catalogue. | unit: id | source: catalogs.account';
