-- How far the buying has come: by catalogue, and by request.
create or replace view analytics.backfill_progress as
with asked as (
    select
        'catalog' as kind,
        catalog.id,
        catalog.name,
        null as state,
        catalog.created_at,
        catalog.account,
        listed.song
    from catalogs as catalog
    inner join catalog_songs as listed on catalog.id = listed.catalog
    union all
    select
        'job' as kind,
        request.id,
        null as name,
        request.state,
        request.created_at,
        request.account,
        wanted.song
    from measurement_jobs as request
    inner join measurement_job_songs as wanted on request.id = wanted.job
)

select
    asked.kind,
    asked.id,
    asked.name,
    asked.state,
    asked.created_at,
    count(*)::int as recordings,
    count(*) filter (where queue.outcome = 'stored')::int as stored,
    count(*) filter (where queue.outcome = 'no_history')::int as no_history,
    count(*) filter (where queue.outcome = 'rejected')::int as rejected,
    count(*) filter (where queue.status = 'failed')::int as failed,
    count(*) filter (where queue.status in ('pending', 'in_progress'))::int as still_open,
    count(*) filter (where queue.song is null)::int as never_queued,
    max(queue.updated_at) filter (where queue.status in ('done', 'failed')) as last_settled_at,
    asked.account
from asked
left join songstats_backfill_queue as queue on asked.song = queue.song
group by asked.kind, asked.id, asked.name, asked.state, asked.created_at, asked.account;
comment on view analytics.backfill_progress is 'One row for each catalogue and one for each historical request: the outcomes of its recordings. The columns from stored to never_queued add up to recordings.';
comment on column analytics.backfill_progress.kind is 'catalog or job. | unit: name | source: this view';
comment on column analytics.backfill_progress.id is 'The catalogue or the request. | unit: id | source: catalogs.id, measurement_jobs.id';
comment on column analytics.backfill_progress.name is 'The catalogue''s name; null for a request. | unit: text | source: catalogs.name';
comment on column analytics.backfill_progress.state is 'The request''s state; null for a catalogue. | unit: name | source: measurement_jobs.state';
comment on column analytics.backfill_progress.created_at is 'When the catalogue was imported, or the request made. | unit: time | source: catalogs.created_at, measurement_jobs.created_at';
comment on column analytics.backfill_progress.recordings is 'Recordings in it. | unit: recordings | source: catalog_songs, measurement_job_songs';
comment on column analytics.backfill_progress.stored is 'Recordings with a bought history. | unit: recordings | source: songstats_backfill_queue.outcome';
comment on column analytics.backfill_progress.no_history is 'Recordings of which Songstats has no history. | unit: recordings | source: songstats_backfill_queue.outcome';
comment on column analytics.backfill_progress.rejected is 'Recordings that Songstats refused. | unit: recordings | source: songstats_backfill_queue.outcome';
comment on column analytics.backfill_progress.failed is 'Recordings whose response could not be read, or that got none. | unit: recordings | source: songstats_backfill_queue.status';
comment on column analytics.backfill_progress.still_open is 'Recordings that are to be bought, or are being bought. | unit: recordings | source: songstats_backfill_queue.status';
comment on column analytics.backfill_progress.never_queued is 'Recordings that were never put on the queue. | unit: recordings | source: songstats_backfill_queue';
comment on column analytics.backfill_progress.last_settled_at is 'When the last of them was settled. | unit: time | source: songstats_backfill_queue.updated_at';
comment on column analytics.backfill_progress.account is 'The account that owns the catalogue or made the request. | unit: id | source: catalogs.account, measurement_jobs.account';
